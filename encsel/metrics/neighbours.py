"""The nearest neighbours, searched once per encoder and shared by every metric that needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration

SMALL = 4000
"""Rows below which one thread searches."""


@dataclass(frozen=True)
class Neighbours:
    """The k nearest other rows of each row, the nearest first.

    Attributes:
        distances: (rows, k) Euclidean, float64, ascending, all > 0 when rows are distinct.
        index: (rows, k) row numbers.
    """

    distances: NDArray[np.float64]
    index: NDArray[np.intp]


def neighbour_distances(x: Vectors, k: int, *, device: str = "cpu") -> NDArray[np.float64]:
    """The distances of `nearest_neighbours` alone."""
    return nearest_neighbours(x, k, device=device).distances


def nearest_neighbours(x: Vectors, k: int, *, device: str = "cpu", as_given: bool = False) -> Neighbours:
    """The k nearest other rows of each row.

    Args:
        x: (rows, dim) finite, distinct rows.
        k: neighbours wanted, at least 1.
        device: "cpu" (scikit-learn), or a torch device; the two agree to 1e-6.
        as_given: search the rows in their own number type and place, as the study's released code does, on the CPU.
            It moves intrinsic dimensions by up to 1e-4.
    Raises:
        BadCalibration: k or fewer rows.
    """
    if len(x) <= k:
        raise BadCalibration(f"{len(x)} distinct samples; {k} neighbours each need at least {k + 1}. Add samples.")
    # Centring keeps the digits that the expansion |a|^2 - 2ab + |b|^2 would lose on a cloud far from the origin.
    centred: NDArray[Any] = np.asarray(x, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    if as_given:
        centred = x
    elif device != "cpu":
        return _on_device(centred, k, device)
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    # Several threads on a small search wait for each other, ten times as long on a machine that is shared.
    with threadpool_limits(1 if len(x) < SMALL else None):
        distances, index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(centred).kneighbors()
    return Neighbours(distances, index)


def _on_device(centred: NDArray[Any], k: int, device: str, chunk: int = 512) -> Neighbours:
    import torch

    rows = torch.from_numpy(centred).to(device)
    squares = (rows * rows).sum(dim=1)
    distances, index = [], []
    for start in range(0, len(rows), chunk):
        block = rows[start : start + chunk]
        squared = squares[start : start + chunk, None] + squares - 2 * block @ rows.T
        own = torch.arange(len(block), device=rows.device)
        squared[own, start + own] = torch.inf
        nearest = squared.topk(k, dim=1, largest=False)
        distances.append(nearest.values.clamp(min=0).sqrt().cpu())
        index.append(nearest.indices.cpu())
    return Neighbours(torch.cat(distances).numpy(), torch.cat(index).numpy())


def distinct_rows(x: Vectors) -> NDArray[np.intp]:
    """Index of the first occurrence of every distinct row, ascending."""
    rows = np.ascontiguousarray(x)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    first: dict[bytes, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key.tobytes(), i)
    return np.fromiter(first.values(), dtype=np.intp, count=len(first))
