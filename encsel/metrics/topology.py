"""How samples cluster by person: cosine distance within people, between people, and the gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric, Vectors
from encsel.errors import BadCalibration
from encsel.metrics.centroids import unit_rows

MIN_SAMPLES = 5
"""Samples from which a person's own spread counts, as in the study."""


@dataclass(frozen=True)
class Topology:
    """Cosine distances in [0, 2].

    Attributes:
        intra: of a sample to its own person's centroid, mean over samples.
        inter: between the centroids of two people, mean over pairs of people.
    """

    intra: float
    inter: float
    n_people: int

    @property
    def gap(self) -> float:
        """`inter - intra`: larger, better separated."""
        return self.inter - self.intra


def topology(x: Vectors, people: NDArray[Any], *, min_samples: int = MIN_SAMPLES) -> Topology:
    """Distances within and between the people who have at least `min_samples` rows.

    Args:
        x: (rows, dim) embeddings.
        people: (rows,) whose each is.
    Raises:
        BadCalibration: fewer than 2 such people, or rows that are all the same.
    """
    everyone, index, counts = np.unique(people, return_inverse=True, return_counts=True)
    kept = counts >= min_samples
    n = int(kept.sum())
    if n < 2:
        raise BadCalibration(
            f"{n} of {len(everyone)} people have {min_samples} samples or more; cluster topology needs at least 2 such."
        )
    rows = kept[index]
    vectors = np.asarray(x[rows], dtype=np.float64)
    own = (np.cumsum(kept) - 1)[index[rows]]
    # Scaled first: squares of tiny or huge values would leave the range of floats.
    scale = np.abs(vectors).max()
    if not scale > 0 or np.ptp(vectors, axis=0).max() <= 1e-12 * scale:
        raise BadCalibration("All samples have the same embedding; cluster topology needs at least 2. Check it.")
    vectors = vectors / scale
    sums = np.zeros((n, vectors.shape[1]))
    np.add.at(sums, own, vectors)
    centroids = unit_rows(sums)
    intra = 1 - float(np.einsum("ij,ij->i", unit_rows(vectors), centroids[own]).mean())
    total = centroids.sum(axis=0)
    inter = 1 - float(total @ total - np.einsum("ij,ij->", centroids, centroids)) / (n * (n - 1))
    return Topology(intra, inter, n)


METRICS = (
    Metric("compactness_gap", 1, "people", "larger: people lie further apart than their own samples", (-2.0, 2.0),
           "the study's cluster topology: people with 5 samples or more, cosine distance",
           lambda x, people: topology(x, people).gap, invariant_to=("rotation", "scale"),
           label="compactness gap, mean of the two"),
)  # fmt: skip
