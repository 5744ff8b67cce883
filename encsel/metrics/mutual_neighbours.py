"""Mutual nearest neighbours: whether two encoders put the same people next to each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric, Vectors
from encsel.errors import BadCalibration
from encsel.metrics.neighbours import nearest_neighbours

K = 10


def nearest_people(x: Vectors) -> NDArray[np.intp]:
    """(n, 10) the nearest other people of each.

    Args:
        x: (n, dim) centroids, one row per person.
    Raises:
        BadCalibration: fewer than 12 people, or rows that are all the same.
    """
    if len(x) < K + 2:
        raise BadCalibration(f"{len(x)} people; {K} mutual neighbours need at least {K + 2}. Add people.")
    found = nearest_neighbours(x, K)
    if not found.distances.any():
        raise BadCalibration("All people have the same embedding; neighbours need at least 2 that differ. Check it.")
    return found.index


def mutual_knn(face: NDArray[np.intp], voice: NDArray[np.intp]) -> float:
    """Share of the 10 nearest people that both encoders agree on, mean over people, in [0, 1].

    Unrelated encoders share 10 / (n - 1) of them by chance.

    Args:
        face, voice: (n, 10) from `nearest_people`, same people in the same order.
    Source: Huh et al. 2024, arXiv:2405.07987.
    """
    shared = (face[:, :, None] == voice[:, None, :]).sum()
    return float(shared / face.size)


METRICS = (
    Metric("mutual_knn", 1, "pair", "larger: the two encoders put the same people next to each other", (0.0, 1.0),
           "Huh et al. 2024, arXiv:2405.07987; k = 10",
           lambda x, y: mutual_knn(nearest_people(x), nearest_people(y)),
           label="mutual 10-NN", unit="fraction"),
)  # fmt: skip
