"""Clusters of samples by person: cosine distance within people, between people, and the gap."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric, Vectors
from encsel.errors import BadCalibration
from encsel.rows import unit_rows

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
    everyone, index, counts = np.unique(people, return_inverse=True, return_counts=True)
    large = counts >= min_samples
    n = int(large.sum())
    if n < 2:
        raise BadCalibration(
            f"{n} of {len(everyone)} people have {min_samples} samples or more; cluster topology needs at least 2."
        )
    rows = large[index]
    vectors: Vectors = np.asarray(x[rows], dtype=np.float64)
    owner = (np.cumsum(large) - 1)[index[rows]]
    # Scaled first: squares of tiny or huge values would leave the range of floats.
    scale = np.abs(vectors).max()
    if not scale > 0 or np.ptp(vectors, axis=0).max() <= 1e-12 * scale:
        raise BadCalibration(
            "All samples have the same embedding; cluster topology needs at least 2. Check the encoder."
        )
    vectors = unit_rows(vectors / scale) if reference else vectors / scale
    sums = np.zeros((n, vectors.shape[1]))
    np.add.at(sums, owner, vectors)
    centroids = unit_rows(sums)
    intra = 1 - float(np.einsum("ij,ij->i", unit_rows(vectors), centroids[owner]).mean())
    total = centroids.sum(axis=0)
    inter = 1 - float(total @ total - np.einsum("ij,ij->", centroids, centroids)) / (n * (n - 1))
    return Topology(intra, inter, n)


METRICS = (
    Metric("compactness_gap", 1, "people", "larger: people lie further apart than their own samples", (-2.0, 2.0),
           "the study's cluster topology: people with 5 samples or more, cosine distance",
           lambda x, people: topology(x, people).gap, invariant_to=("rotation", "scale"),
           label="compactness gap, mean of the two"),
)  # fmt: skip
