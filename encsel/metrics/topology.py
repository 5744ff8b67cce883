"""Clusters of samples by person: cosine distance within people, between people, and the gap."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric, Vectors
from encsel.errors import BadCalibration
from encsel.rows import add_rows, blocks, grouped, release, scratch, spread, taken, unit_rows, unit_rows_in_place

MIN_SAMPLES = 5
"""Fewest samples of a person who counts, as in the study."""


@dataclass(frozen=True)
class Topology:
    """Mean cosine distances in [0, 2]: `intra` of samples to their person's centroid, `inter` between centroids."""

    intra: float
    inter: float
    n_people: int

    @property
    def gap(self) -> float:
        """`inter - intra`; larger is better separated."""
        return self.inter - self.intra


def topology(x: Vectors, people: NDArray[Any], *, min_samples: int = MIN_SAMPLES, reference: bool = False) -> Topology:
    """Distances within and between the `people` with at least `min_samples` rows.

    Args:
        reference: average rows scaled to unit length, as the study's released code does here, not rows as given.
    Raises:
        BadCalibration: fewer than 2 such people, or all rows equal.
    """
    everyone, owner, counts = grouped(np.asarray(people))
    large = counts >= min_samples
    n = int(large.sum())
    if n < 2:
        raise BadCalibration(
            f"{n} of {len(everyone)} people have {min_samples} samples or more; cluster topology needs at least 2."
        )
    if not large.all():
        rows = np.flatnonzero(large[owner])
        x, owner, counts = taken(x, rows), (np.cumsum(large) - 1)[owner[rows]], counts[large]
    # Scaled first: squares of tiny or huge values would leave the range of floats.
    scale = spread(x)
    if scale is None:
        raise BadCalibration(
            "All samples have the same embedding; cluster topology needs at least 2. Check the encoder."
        )

    def prepared(block: Vectors) -> Vectors:
        rows = block.astype(np.float64) / scale
        return unit_rows(rows) if reference else rows

    centroids = scratch((n, x.shape[1]), np.float64)
    for _, block in blocks(centroids):
        block[...] = 0
    for start, block in blocks(x):
        add_rows(centroids, owner[start : start + len(block)], prepared(block))
        release(centroids)
    centroids = unit_rows_in_place(centroids)
    cosines = np.empty(len(x))
    for start, block in blocks(x):
        own = centroids[owner[start : start + len(block)]]
        cosines[start : start + len(block)] = np.einsum("ij,ij->i", unit_rows(prepared(block)), own)
        release(centroids)
    total, squares = np.zeros(x.shape[1]), 0.0
    for _, block in blocks(centroids, 16_384):
        total += block.sum(axis=0)
        squares += float(np.einsum("ij,ij->", block, block))
    return Topology(1 - float(cosines.mean()), 1 - float(total @ total - squares) / (n * (n - 1)), n)


METRICS = (
    Metric("compactness_gap", 1, "people", "larger: people lie further apart than their own samples", (-2.0, 2.0),
           "the study's cluster topology: people with 5 samples or more, cosine distance",
           lambda x, people: topology(x, people).gap, invariant_to=("rotation", "scale"),
           label="compactness gap, mean of the two"),
)  # fmt: skip
