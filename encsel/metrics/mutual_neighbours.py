"""Mutual nearest neighbours: whether two encoders put the same people next to each other."""

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric, Vectors
from encsel.metrics.neighbours import neighbours_of_people

K = 10


def nearest_people(x: Vectors) -> NDArray[np.intp]:
    """(n, 10) nearest other people of each person, from (n, dim) centroids; raises as `neighbours_of_people`."""
    return neighbours_of_people(x, K, f"{K} mutual neighbours need").index


def mutual_knn(face: NDArray[np.intp], voice: NDArray[np.intp]) -> float:
    """Fraction of the 10 nearest people, (n, 10) each, shared by both encoders, in [0, 1]; 10 / (n - 1) by chance."""
    return float((face[:, :, None] == voice[:, None, :]).sum() / face.size)


METRICS = (
    Metric("mutual_knn", 1, "pair", "larger: the two encoders put the same people next to each other", (0.0, 1.0),
           "Huh et al. 2024, arXiv:2405.07987; k = 10",
           lambda x, y: mutual_knn(nearest_people(x), nearest_people(y)),
           label="mutual 10-NN", unit="fraction"),
)  # fmt: skip
