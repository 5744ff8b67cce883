"""Arithmetic on rows of vectors, a block at a time, since they may not fit into memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating[Any]]

BLOCK_ROWS = 16_384
"""Rows that are read at a time."""


def blocks(x: Rows) -> Iterator[tuple[int, Rows]]:
    """Blocks of rows in order, each with the number of its first row."""
    for start in range(0, len(x), BLOCK_ROWS):
        yield start, x[start : start + BLOCK_ROWS]


def unit_rows(x: Rows) -> Rows:
    """The rows divided by their Euclidean length; rows of zeros stay zeros."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norms > 0, norms, 1))


def means_of_groups(x: Rows, group: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """(groups, dim) mean of the rows of each group, from the (rows,) number and the (groups,) size of each group."""
    order = np.argsort(group, kind="stable")
    stops = np.cumsum(counts)
    starts = stops - counts
    means = np.empty((len(counts), x.shape[1]))
    first = 0
    while first < len(counts):
        # Whole groups, about BLOCK_ROWS rows of them.
        last = max(first + 1, int(np.searchsorted(stops, starts[first] + BLOCK_ROWS, "right")))
        rows = x[order[starts[first] : stops[last - 1]]].astype(np.float64)
        means[first:last] = np.add.reduceat(rows, starts[first:last] - starts[first], axis=0)
        first = last
    return np.asarray(means / counts[:, None])
