"""Encoders projected on their principal axes in every fold, once per encoder."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Vectors
from encsel.data.sampling import limit_rows
from encsel.errors import BadCalibration
from encsel.matching.axes import Side, project
from encsel.matching.folds import MAX_FOR_ALL_FOLDS, Folds
from encsel.matching.likelihood import N_AXES
from encsel.metrics.centroids import median_samples
from encsel.rows import unit_rows

SAMPLE_ROWS, SAMPLE_REPEATS = 3000, 3
"""Single samples scored in total, 2 to 20 per person, and repeats in which they are scored; 1 for a large set."""
MEANS_OF = (3, 10)
"""Numbers of samples per person whose mean is scored as well, if half of the people have as many."""


@dataclass(frozen=True)
class Fold:
    """One encoder in one fold: people, and (r, k) L2-normalised single samples of the test people, on its axes.

    `means` are the test people by MEANS_OF, (t, k) each, as means of that many samples.
    """

    side: Side
    rows: Vectors
    owners: NDArray[np.intp]
    means: Mapping[int, Vectors]


Projections = list[list[Fold]]
"""By repeat and fold."""


def project_encoder(embeddings: Embeddings, x: Vectors, folds: Folds, *, seed: int) -> Projections:
    """Project one encoder, its people's centroids (n, dim) and their samples, in every fold."""
    n = len(x)
    limited = limit_rows(embeddings, rows_per_person(n), seed=seed)
    owners = np.searchsorted(np.unique(embeddings.labels), limited.labels)
    most = median_samples(embeddings)
    means = {k: limit_rows(embeddings, k, seed=seed).centroids for k in MEANS_OF if most >= k}
    singles = unit_rows(limited.vectors.astype(np.float64))
    everything = in_span_of(x, np.vstack([singles, *means.values()]))
    projections: Projections = []
    for number, repeat in enumerate(folds):
        of_repeat = []
        for train, test in repeat:
            with_samples = number < (SAMPLE_REPEATS if n <= MAX_FOR_ALL_FOLDS else 1)
            used = np.flatnonzero(np.isin(owners, test)) if with_samples else np.zeros(0, np.intp)
            starts = n + len(singles) + n * np.arange(len(means))
            projected = project(
                everything, train, np.concatenate([test, n + used, *(start + test for start in starts)]), n_axes=N_AXES
            )
            t, r = len(test), len(used)
            people, samples, rest = np.split(projected.test, [t, t + r])
            side = Side(projected.train, people, projected.sd)
            of_means = {k: rest[i * t : (i + 1) * t] for i, k in enumerate(means)}
            of_repeat.append(Fold(side, samples.astype(np.float32), owners[used], of_means))
        projections.append(of_repeat)
    return projections


def project_centroids(x: Vectors, folds: Folds) -> list[list[Side]]:
    """Project (n, dim) centroids in every fold."""
    x = in_span_of(x, np.zeros((0, x.shape[1])))
    return [[project(x, train, test, n_axes=N_AXES) for train, test in repeat] for repeat in folds]


def rows_per_person(n_people: int) -> int:
    """Number of single samples scored per person."""
    return int(np.clip(SAMPLE_ROWS // n_people, 2, 20))


def sides_of(projections: Projections) -> list[list[Side]]:
    """The people of every fold, without their single samples."""
    return [[fold.side for fold in repeat] for repeat in projections]


def in_span_of(x: Vectors, rows: Vectors) -> Vectors:
    """Centroids `x`, then `rows`, minus the mean of `x`, in the span of `x` if that has fewer dimensions.

    Axes fitted on centroids lie in their span, so components of rows outside it have no effect.
    """
    centre = x.mean(axis=0)
    x, rows = x - centre, rows - centre
    if len(x) > x.shape[1]:
        return np.vstack([x, rows])
    values, vectors = np.linalg.eigh(x @ x.T)
    varies = values > len(x) * np.finfo(np.float64).eps * max(values[-1], float(np.square(centre).sum()) * 1e-8)
    if not varies.any():
        raise BadCalibration("All people have the same embedding; matching needs variation. Check the encoder.")
    axes = x.T @ (vectors[:, varies] / np.sqrt(values[varies]))
    return np.vstack([x @ axes, rows @ axes])
