"""Distances to the nearest neighbours, searched once per encoder and shared by every metric that needs them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration


def neighbour_distances(x: Vectors, k: int) -> NDArray[np.float64]:
    """Euclidean distance from each row to its k nearest other rows, ascending.

    Args:
        x: (rows, dim) finite, distinct rows.
        k: neighbours wanted, at least 1.
    Returns:
        (rows, k) float64, all > 0 when rows are distinct.
    Raises:
        BadCalibration: k or fewer rows.
    """
    from sklearn.neighbors import NearestNeighbors

    if len(x) <= k:
        raise BadCalibration(f"{len(x)} distinct samples; {k} neighbours each need at least {k + 1}. Add samples.")
    # Centring keeps the digits that the expansion |a|^2 - 2ab + |b|^2 would lose on a cloud far from the origin.
    centred = np.asarray(x, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    distances, _ = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(centred).kneighbors()
    return distances


def distinct_rows(x: Vectors) -> NDArray[np.intp]:
    """Index of the first occurrence of every distinct row, ascending."""
    rows = np.ascontiguousarray(x)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    first: dict[bytes, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key.tobytes(), i)
    return np.fromiter(first.values(), dtype=np.intp, count=len(first))
