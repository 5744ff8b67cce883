"""Nearest neighbours, searched once per encoder and shared by every metric that needs them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration

SMALL = 4000
"""Number of rows below which the search uses one thread."""


@dataclass(frozen=True)
class Neighbours:
    """The k nearest other rows of each row, nearest first: (rows, k) Euclidean distances, float64, and row numbers."""

    distances: NDArray[np.float64]
    index: NDArray[np.intp]


def neighbours_of_people(x: Vectors, k: int, use: str) -> Neighbours:
    """The k nearest other people of each, from (n, dim) centroids.

    Raises:
        BadCalibration: fewer than k + 2 people, or all rows equal; `use` is part of the message, as in `centred_rows`.
    """
    if len(x) < k + 2:
        raise BadCalibration(f"{len(x)} people; {use} at least {k + 2}. Add people.")
    neighbours = nearest_neighbours(x, k)
    if not neighbours.distances.any():
        raise BadCalibration(f"All people have the same embedding; {use} variation. Check the encoder.")
    return neighbours


def neighbour_distances(x: Vectors, k: int, *, device: str = "cpu") -> NDArray[np.float64]:
    """The distances of `nearest_neighbours` alone."""
    return nearest_neighbours(x, k, device=device).distances


def nearest_neighbours(x: Vectors, k: int, *, device: str = "cpu", as_given: bool = False) -> Neighbours:
    """The k nearest other rows of each of the (rows, dim) distinct rows.

    Args:
        device: "cpu" (scikit-learn), or a torch device; the two agree to 1e-6.
        as_given: search the rows in their own number type, not centred, as the study's released code does, on the CPU.
    Raises:
        BadCalibration: k or fewer rows.
    """
    if len(x) <= k:
        raise BadCalibration(
            f"{len(x)} distinct samples; {k} neighbours per sample need at least {k + 1}. Add samples."
        )
    rows: NDArray[Any] = x
    if not as_given:
        # Centring keeps the digits that the expansion |a|^2 - 2ab + |b|^2 would lose on a cloud far from the origin.
        rows = np.asarray(x, dtype=np.float64)
        rows = rows - rows.mean(axis=0)
        if device != "cpu":
            return _on_device(rows, k, device)
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    # On a small search, several threads would wait for each other.
    with threadpool_limits(1 if len(x) < SMALL else None):
        distances, index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows).kneighbors()
    return Neighbours(distances, index)


def _on_device(centred: NDArray[Any], k: int, device: str, chunk: int = 512) -> Neighbours:
    import torch

    rows = torch.from_numpy(centred).to(device)
    squares = (rows * rows).sum(dim=1)
    distances, index = [], []
    for start in range(0, len(rows), chunk):
        block = rows[start : start + chunk]
        squared = squares[start : start + chunk, None] + squares - 2 * block @ rows.T
        rows_of_block = torch.arange(len(block), device=rows.device)
        squared[rows_of_block, start + rows_of_block] = torch.inf
        nearest = squared.topk(k, dim=1, largest=False)
        distances.append(nearest.values.clamp(min=0).sqrt().cpu())
        index.append(nearest.indices.cpu())
    return Neighbours(torch.cat(distances).numpy(), torch.cat(index).numpy())


def distinct_rows(x: Vectors) -> NDArray[np.intp]:
    """Index of the first occurrence of every distinct row, ascending."""
    first = {row.tobytes(): i for i, row in reversed([*enumerate(x)])}
    return np.sort(np.fromiter(first.values(), dtype=np.intp))
