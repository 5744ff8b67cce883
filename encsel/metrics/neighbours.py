"""Nearest neighbours, searched once per encoder and shared by every metric that needs them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Vectors
from encsel.errors import BadCalibration
from encsel.metrics.search import MAX_AT_ONCE, dense, nearest_among, nearest_of_all, on_device
from encsel.rows import equal_rows
from encsel.threads import one_thread

MAX_EXACT = 20_000
"""Largest number of rows whose neighbours are all searched; of more rows, those of a sample are."""
N_SEARCHED = 2000
"""Number of rows in that sample. Their neighbours are searched among all rows."""
DENSE = 2048
"""Number of rows up to which all distances are computed in float64."""


@dataclass(frozen=True)
class Neighbours:
    """The k nearest other rows of some rows, nearest first.

    Attributes:
        distances: (searched, k) Euclidean, float64.
        index: (searched, k) row numbers.
        rows: (searched,) numbers, ascending, of the rows whose neighbours these are.
        n_rows: number of rows among which they were searched.
    """

    distances: NDArray[np.float64]
    index: NDArray[np.intp]
    rows: NDArray[np.intp]
    n_rows: int


def rows_to_search(n_rows: int, *, seed: int) -> NDArray[np.intp]:
    """Numbers of all rows, or of a random sample of N_SEARCHED of more than MAX_EXACT rows; ascending."""
    if n_rows <= MAX_EXACT:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng([seed, 13]).choice(n_rows, N_SEARCHED, replace=False))


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


def nearest_neighbours(
    x: Vectors, k: int, *, of: NDArray[np.intp] | None = None, device: str = "cpu", as_given: bool = False
) -> Neighbours:
    """The k nearest other rows of each of the (rows, dim) distinct rows, or of the rows numbered `of`.

    Float32 products of rows about their mean, each pair of rows once, tell which rows may be among the nearest; their
    distances are computed from the rows.

    Args:
        of: (searched,) row numbers, ascending; None: all rows.
        device: "cpu", or a torch device; the two agree to 1e-6.
        as_given: search with scikit-learn in the rows' own number type, not centred, as the study's released code does.
    Raises:
        BadCalibration: k or fewer rows.
    """
    n = len(x)
    if n <= k:
        raise BadCalibration(f"{n} distinct samples; {k} neighbours per sample need at least {k + 1}. Add samples.")
    rows = np.arange(n) if of is None else of
    if x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float64)
    if as_given:
        from sklearn.neighbors import NearestNeighbors

        distances, index = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(x).kneighbors(x[rows])
        others = index != rows[:, None]
        others[others.all(axis=1), -1] = False  # a row equal to others may be missing among its nearest
        return Neighbours(distances[others].reshape(-1, k), index[others].reshape(-1, k), rows, n)
    if device != "cpu":
        return Neighbours(*on_device(x, k, rows, device), rows, n)
    # Tiles run in parallel, so products within one must not.
    with one_thread():
        found = None
        if n > DENSE:
            found = nearest_of_all(x, k) if len(rows) == n <= MAX_AT_ONCE else nearest_among(x, k, rows)
        distances, index = found or dense(x, k, rows)
    return Neighbours(distances, index, rows, n)


def distinct_rows(embeddings: Embeddings) -> Vectors:
    """The (rows, dim) distinct vectors of an encoder, in the order of their first occurrence."""
    is_first = np.ones(len(embeddings.vectors), bool)
    for same in equal_rows(embeddings.vectors, embeddings.row_hashes):
        is_first[same[1:]] = False
    return embeddings.rows(is_first).vectors
