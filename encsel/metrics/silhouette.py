"""Silhouette: whether samples lie closer to their person than to the next one, by cosine distance."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric, Vectors
from encsel.errors import BadCalibration
from encsel.rows import converted, grouped, spread, sums_of_groups, unit_rows

_CHUNK = 2000


def silhouette(x: Vectors, people: NDArray[Any]) -> float:
    """Mean over samples of (b - a) / max(a, b), in [-1, 1].

    a is the mean cosine distance to the other samples of the same person, b to those of the nearest other person; a
    person's only sample counts as 0. It is `sklearn.metrics.silhouette_score` with metric="cosine" from one product of
    samples with people: a mean cosine distance to a person is 1 minus the cosine sum over the person's samples.

    Args:
        x: (rows, dim) embeddings; people: (rows,) identity of each.
    Raises:
        BadCalibration: fewer than 2 people, nobody with 2 samples, or all rows equal.
    Source: Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7.
    """
    _, owner, counts = grouped(np.asarray(people))
    n_people = len(counts)
    if n_people < 2 or counts.max() < 2:
        raise BadCalibration(
            f"{len(x)} samples of {n_people} people; a silhouette needs at least 2 people, one of them with 2 samples."
        )
    # Scaled first: squares of tiny or huge values would leave the range of floats.
    scale = spread(x)
    if scale is None:
        raise BadCalibration("All samples have the same embedding; a silhouette needs at least 2. Check the encoder.")
    rows = converted(x, lambda block: unit_rows(block.astype(np.float64) / scale), np.float64)
    sums = sums_of_groups(rows, owner, counts)
    values = np.zeros(len(rows))
    for at in np.array_split(np.arange(len(rows)), -(-len(rows) // _CHUNK)):
        place, own, size = np.arange(len(at)), owner[at], counts[owner[at]]
        cosines = rows[at] @ sums.T
        others = np.maximum(size - 1, 1)
        within = (others - cosines[place, own] + np.square(rows[at]).sum(axis=1)) / others
        between = 1 - cosines / counts
        between[place, own] = np.inf
        nearest = between.min(axis=1)
        larger = np.maximum(within, nearest)
        values[at] = np.where((size > 1) & (larger > 0), (nearest - within) / np.where(larger > 0, larger, 1), 0)
    return float(values.mean())


METRICS = (
    Metric("silhouette", 1, "people", "larger: samples lie nearer to their own person than to the next", (-1.0, 1.0),
           "Rousseeuw 1987; cosine distance, mean over samples", silhouette, invariant_to=("rotation", "scale"),
           label="silhouette, mean of the two"),
)  # fmt: skip
