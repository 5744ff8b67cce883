"""The search for nearest neighbours: float32 products in tiles, each pair of rows once; near pairs from differences."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.rows import blocks, mean_of_rows, release, taken
from encsel.threads import in_threads

ONE_IN = 4
"""One in so many rows bound the distance of every row's k-th neighbour before all are compared with all."""
SAMPLED_ONE_IN, MOST = 8, 20_000
"""The same where only some rows are searched: these comparisons are extra work, so that there are at most MOST."""
TILE = 512, 2048
ROUNDING = 2e-6
"""Largest rounding error of a squared distance from float32 products, as a fraction of the two squared lengths.

Up to 1.4e-6 was measured, at up to 4096 dimensions. It widens the limits within which rows are candidates, whose
distances are computed again from the rows.
"""
MAX_CANDIDATES = 400
"""Candidates per neighbour, on average, beyond which float32 cannot tell rows apart and float64 is used for all."""
_DISTANCE_BITS, _PAIRS = 31, 256
MAX_AT_ONCE = 1 << (64 - _DISTANCE_BITS) // 2
"""Largest number of rows that are compared with each other at once: two row numbers and a distance in one number."""
_SMALLEST = 1e-30
"""Sums of squares below this, or above its inverse, may contain squares outside the range of float32."""

Found = tuple[NDArray[np.float64], NDArray[np.intp]]
"""Distances and row numbers."""


def dense(x: Vectors, k: int, rows: NDArray[np.intp]) -> Found:
    """The search in float64, as scikit-learn does it."""
    centred = np.asarray(x, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    squares = np.einsum("ij,ij->i", centred, centred)
    distances, index = np.empty((len(rows), k)), np.empty((len(rows), k), np.intp)

    def search(start: int) -> None:
        at = slice(start, start + TILE[0])
        some = rows[at]
        squared = squares - 2 * centred[some] @ centred.T
        squared += squares[some, None]
        squared[np.arange(len(some)), some] = np.inf
        nearest = np.argpartition(squared, k - 1, axis=1)[:, :k] if k < len(x) - 1 else np.argsort(squared)[:, :k]
        values = np.take_along_axis(squared, nearest, axis=1)
        order = np.argsort(values, axis=1, kind="stable")
        distances[at] = np.sqrt(np.maximum(np.take_along_axis(values, order, axis=1), 0))
        index[at] = np.take_along_axis(nearest, order, axis=1)

    _do(search, range(0, len(rows), TILE[0]))
    return distances, index


@dataclass(frozen=True)
class _Side:
    """Rows about a mean in float32, times the square root of 2, and half of their squared lengths.

    Beside each row stand 1 and its length, so that a product of two sides is one of squared distances.
    """

    rows: NDArray[np.float32]
    lengths: NDArray[np.float32]

    def __getitem__(self, at: slice) -> "_Side":
        return _Side(self.rows[at], self.lengths[at])

    def squared_distances(self, other: "_Side") -> NDArray[np.float32]:
        turned = np.negative(self.rows)
        turned[:, -2], turned[:, -1] = self.lengths, 1
        return np.asarray(turned @ other.rows.T)


class _Scaled:
    """Makes sides of rows, at a mean squared length near 1."""

    def __init__(self, x: Vectors) -> None:
        self._mean = mean_of_rows(x)
        some = taken(x, np.arange(0, len(x), max(len(x) // TILE[1], 1))) - self._mean
        self._scale = float(np.sqrt(np.square(some).sum() / len(some) / 2)) or 1.0

    def side(self, x: Vectors, numbers: NDArray[np.intp] | None = None) -> _Side:
        """The side of some rows of `x`, or of all."""
        numbers = np.arange(len(x)) if numbers is None else numbers
        rows = np.empty((len(numbers), x.shape[1] + 2), np.float32)
        for start, block in blocks(rows):
            block[:, :-2] = (taken(x, numbers[start : start + len(block)]) - self._mean) / self._scale
        lengths = np.einsum("ij,ij->i", rows[:, :-2], rows[:, :-2]) / np.float32(2)
        rows[:, -2], rows[:, -1] = 1, lengths
        return _Side(rows, lengths)


class _Candidates:
    """Pairs of rows that may be neighbours, each as one number whose order is that of row, distance, other row."""

    def __init__(self, lengths: NDArray[np.float32], n_columns: int, k: int) -> None:
        self._column_bits = max(n_columns - 1, 1).bit_length()
        self._lengths, self._k = lengths, k
        self.limit = np.full(len(lengths), np.inf, np.float32)
        """Squared distance of each row beyond which no other row can be among its neighbours."""
        self._keys: list[NDArray[np.uint64]] = []

    @staticmethod
    def rows_that_fit(n_columns: int) -> int:
        """Number of rows that can be told apart beside so many columns."""
        return 1 << (64 - _DISTANCE_BITS - max(n_columns - 1, 1).bit_length())

    def bound(self, rows: slice, squared: NDArray[np.float32]) -> None:
        """Limit rows by their k-th smallest squared distance to some others."""
        # The k-th smallest of the smallest of groups of 4 is no smaller than that of all, and found sooner.
        width = squared.shape[1] // 4
        fewer = squared[:, : 4 * width].reshape(len(squared), 4, width).min(axis=1) if width >= 4 * self._k else squared
        kth = np.partition(fewer, self._k - 1, axis=1)[:, self._k - 1]
        self.limit[rows] = self._with_margin(rows, kth)

    def add(self, start: int, squared: NDArray[np.float32], columns: NDArray[np.intp]) -> None:
        """Add the pairs of rows from `start` on with these columns that are within the limits."""
        at = np.flatnonzero(squared <= self.limit[start : start + len(squared), None])
        row, column = np.divmod(at, squared.shape[1])
        self._keep(start + row, squared.ravel()[at], columns[column])

    def add_transposed(self, start: int, squared: NDArray[np.float32], columns: slice) -> None:
        """Add the pairs of the columns, which are rows as well, with the rows from `start` on."""
        at = np.flatnonzero(squared <= self.limit[columns])
        row, column = np.divmod(at, squared.shape[1])
        self._keep(columns.start + column, squared.ravel()[at], start + row)

    @property
    def are_too_many(self) -> bool:
        return sum(map(len, self._keys)) > MAX_CANDIDATES * self._k * len(self._lengths)

    def nearest(self, exact: Callable[[NDArray[np.intp], NDArray[np.intp]], Vectors]) -> Found:
        """The k nearest of each row; `exact` computes the distances of (b,) rows from (b, c) other rows each."""
        keys = np.sort(np.concatenate(self._keys))
        self._keys.clear()
        n, k = len(self._lengths), self._k
        first_key = np.arange(n, dtype=np.uint64) << np.uint64(_DISTANCE_BITS + self._column_bits)
        starts = np.searchsorted(keys, first_key)
        kth = self._distances(keys[starts + k - 1])
        limit = self._with_margin(slice(None), kth)
        last_key = first_key | (limit.view(np.uint32).astype(np.uint64) << np.uint64(self._column_bits))
        counts = np.searchsorted(keys, last_key | np.uint64((1 << self._column_bits) - 1), "right") - starts
        distances, index = np.empty((n, k)), np.empty((n, k), np.intp)
        column_of = np.uint64((1 << self._column_bits) - 1)

        def finish(some: NDArray[np.intp]) -> None:
            taken = keys[starts[some, None] + np.arange(counts[some[0]])]
            column = (taken & column_of).astype(np.intp)
            found = exact(some, column)
            nearest = np.argsort(found, axis=1, kind="stable")[:, :k]
            distances[some] = np.take_along_axis(found, nearest, axis=1)
            index[some] = np.take_along_axis(column, nearest, axis=1)

        # Rows with as many candidates together: most have k or a few more, those among near-duplicates may have many.
        order = np.argsort(counts, kind="stable")
        same = np.split(order, np.flatnonzero(np.diff(counts[order])) + 1)
        _do(finish, [part for rows in same for part in np.split(rows, range(TILE[0], len(rows), TILE[0]))])
        return distances, index

    def _with_margin(self, rows: slice, squared: NDArray[np.float32]) -> NDArray[np.float32]:
        lengths = self._lengths[rows]
        error = ROUNDING * (lengths + np.square(np.sqrt(lengths) + np.sqrt(np.maximum(squared, 0))))
        return np.asarray(np.maximum(squared, 0) + 2 * error, dtype=np.float32)

    def _keep(self, row: NDArray[np.intp], squared: NDArray[np.float32], column: NDArray[np.intp]) -> None:
        bits = np.maximum(squared, np.float32(0)).view(np.uint32).astype(np.uint64) << np.uint64(self._column_bits)
        head = row.astype(np.uint64) << np.uint64(_DISTANCE_BITS + self._column_bits)
        self._keys.append(np.bitwise_or(head | bits, column.astype(np.uint64), dtype=np.uint64))

    def _distances(self, keys: NDArray[np.uint64]) -> NDArray[np.float32]:
        bits = (keys >> np.uint64(self._column_bits)) & np.uint64((1 << _DISTANCE_BITS) - 1)
        return bits.astype(np.uint32).view(np.float32)


def nearest_of_all(x: Vectors, k: int) -> Found | None:
    """The search of all rows, each pair once; None if float32 cannot tell the rows apart."""
    n = len(x)
    order = np.random.default_rng(0).permutation(n)
    scaled = _Scaled(x)
    side = scaled.side(x, order)
    candidates = _Candidates(side.lengths, n, k)
    m = max(n // ONE_IN, 2 * k)
    everyone = np.arange(n)

    # The first m rows bound themselves, then all others, and are compared with all on the way.
    def bound(start: int) -> None:
        is_first = start < m
        rows = slice(start, min(start + TILE[0], m if is_first else n))
        squared = side[rows].squared_distances(side[:m])
        if is_first:
            np.fill_diagonal(squared[:, rows], np.inf)
        candidates.bound(rows, squared)
        candidates.add(start, squared, everyone[:m])
        if not is_first:
            candidates.add_transposed(start, squared, slice(0, m))

    def compare(start: int) -> None:
        rows = slice(start, min(start + TILE[0], n))
        squared = side[rows].squared_distances(side[rows])
        np.fill_diagonal(squared, np.inf)
        candidates.add(start, squared, everyone[rows])
        for first_column in range(rows.stop, n, TILE[1]):
            if candidates.are_too_many:
                return
            columns = slice(first_column, min(first_column + TILE[1], n))
            squared = side[rows].squared_distances(side[columns])
            candidates.add(start, squared, everyone[columns])
            candidates.add_transposed(start, squared, columns)

    starts = range(m, n, TILE[0])
    _do(bound, range(0, m, TILE[0]))
    _do(bound, starts)
    _do(compare, starts)
    if candidates.are_too_many:
        return None
    distances, index = candidates.nearest(lambda rows, columns: _exact(x, order[rows], order[columns]))
    back = np.empty(n, np.intp)
    back[order] = everyone
    return distances[back], order[index[back]]


def nearest_among(x: Vectors, k: int, rows: NDArray[np.intp]) -> Found | None:
    """The search of some rows, ascending, among all, a block at a time; None as in `nearest_of_all`."""
    scaled = _Scaled(x)
    m = int(np.clip(len(x) // SAMPLED_ONE_IN, 2 * k, MOST))
    sample = np.sort(np.random.default_rng(0).choice(len(x), m, replace=False))
    bounding = scaled.side(x, sample)
    parts = []
    for some in np.array_split(rows, -(-len(rows) // _Candidates.rows_that_fit(len(x)))):
        part = _nearest_among(x, k, some, scaled, sample, bounding)
        if part is None:
            return None
        parts.append(part)
    return np.concatenate([distances for distances, _ in parts]), np.concatenate([index for _, index in parts])


def _nearest_among(
    x: Vectors, k: int, rows: NDArray[np.intp], scaled: _Scaled, sample: NDArray[np.intp], bounding: _Side
) -> Found | None:
    side = scaled.side(x, rows)
    candidates = _Candidates(side.lengths, len(x), k)

    def squared_distances(start: int, other: _Side, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        squared = side[start : start + TILE[0]].squared_distances(other)
        some = rows[start : start + TILE[0]]
        at = np.searchsorted(numbers, some)
        mine = np.flatnonzero(numbers[np.minimum(at, len(numbers) - 1)] == some)
        squared[mine, at[mine]] = np.inf
        return squared

    def bound(start: int) -> None:
        squared = squared_distances(start, bounding, sample)
        candidates.bound(slice(start, start + len(squared)), squared)

    starts = range(0, len(rows), TILE[0])
    _do(bound, starts)
    for first, block in blocks(x):
        other = scaled.side(block)
        numbers = np.arange(first, first + len(block))

        def compare(tile: tuple[int, slice], other: _Side = other, numbers: NDArray[np.intp] = numbers) -> None:
            start, columns = tile
            candidates.add(start, squared_distances(start, other[columns], numbers[columns]), numbers[columns])

        columns = [slice(c, c + TILE[1]) for c in range(0, len(block), TILE[1])]
        _do(compare, [(start, some) for start in starts for some in columns])
        if candidates.are_too_many:
            return None
    return candidates.nearest(lambda i, j: _exact(x, rows[i], j))


def _exact(x: Vectors, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
    """(b, c) distances of (b,) rows from (b, c) other rows each, from their differences."""
    squared = np.empty(columns.shape)
    step = max(1, _PAIRS // columns.shape[1])
    for start in range(0, len(rows), step):
        at = slice(start, start + step)
        difference = np.take(x, columns[at], axis=0)
        with np.errstate(over="ignore"):  # computed again
            difference -= x[rows[at], None]
            squared[at] = (difference[:, :, None] @ difference[..., None])[..., 0, 0]
    if x.dtype == np.float32:
        for i, j in _parts(*np.nonzero(~((squared > _SMALLEST) & (squared < 1 / _SMALLEST)))):
            precise = x[columns[i, j]].astype(np.float64) - x[rows[i]]
            squared[i, j] = np.einsum("ij,ij->i", precise, precise)
    release(x)
    return np.asarray(np.sqrt(squared))


def _parts(*indices: NDArray[np.intp]) -> Iterable[tuple[NDArray[np.intp], ...]]:
    """The indices, _PAIRS at a time."""
    return (tuple(index[start : start + _PAIRS] for index in indices) for start in range(0, len(indices[0]), _PAIRS))


def _do(function: Callable[[Any], None], items: Iterable[Any]) -> None:
    for _ in in_threads(function, items):
        pass


def on_device(x: Vectors, k: int, rows: NDArray[np.intp], device: str, chunk: int = 512) -> Found:
    import torch

    centred = np.asarray(x, dtype=np.float64)
    moved = torch.from_numpy(centred - centred.mean(axis=0)).to(device)
    squares = (moved * moved).sum(dim=1)
    distances, index = [], []
    for start in range(0, len(rows), chunk):
        some = torch.from_numpy(rows[start : start + chunk]).to(device)
        squared = squares[some, None] + squares - 2 * moved[some] @ moved.T
        squared[torch.arange(len(some), device=some.device), some] = torch.inf
        nearest = squared.topk(k, dim=1, largest=False)
        distances.append(nearest.values.clamp(min=0).sqrt().cpu())
        index.append(nearest.indices.cpu())
    return torch.cat(distances).numpy(), torch.cat(index).numpy()
