"""Rows of vectors that may not fit into memory: arithmetic a block at a time, on arrays that may lie in files."""

import hashlib
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.errors import UsageError

Rows = NDArray[np.floating[Any]]

BLOCK_ROWS = 2048
"""Rows that are read at a time: so few that the memory of one block serves the next."""
SCATTERED_ROWS = 256
"""Rows that are read at a time if they do not follow each other: the system reads more of a file around each."""
LARGE = 64 << 20
"""Bytes from which an array that encsel makes lies in a temporary file instead of memory."""


class FileMap(mmap.mmap):
    """A file mapped by encsel, whose pages may be released at any time: none holds a change that the file lacks."""


def blocks(x: NDArray[Any], n_rows: int = 0) -> Iterator[tuple[int, NDArray[Any]]]:
    """The first row and the rows of each block of BLOCK_ROWS or `n_rows` rows; of a mapped file, no more stay resident.

    A block is a view of `x`, unless its numbers are not aligned in the file.
    """
    try:
        n_rows = n_rows or BLOCK_ROWS
        for start in range(0, len(x), n_rows):
            block = x[start : start + n_rows]
            yield start, block if block.flags.aligned else block.copy()
            release(x)
    finally:
        release(x)


def release(x: Any) -> None:
    """Give the resident pages of a mapped file back to the system; nothing for an array in memory."""
    mapped = _file_of(x)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def is_mapped(x: NDArray[Any]) -> bool:
    """Whether the array lies in a mapped file."""
    return _file_of(x) is not None


def _file_of(x: Any) -> mmap.mmap | None:
    """The mapped file in which an array lies, unless its pages may hold changes that the file lacks."""
    is_safe = False
    while x is not None and not isinstance(x, mmap.mmap):
        is_safe = is_safe or (isinstance(x, np.memmap) and x.mode in ("r", "r+"))
        x = x.obj if isinstance(x, memoryview) else getattr(x, "base", None)
    return x if is_safe or isinstance(x, FileMap) else None


def scratch(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """A new array, in memory or, if it is large, in a private temporary file without a name; `release` it when full.

    Raises:
        UsageError: no room for the file.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if n_bytes < LARGE:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile() as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, not a crash later
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                file.truncate(n_bytes)
            return np.ndarray(shape, dtype, FileMap(file.fileno(), n_bytes))
    except OSError as error:
        raise UsageError(
            f"A temporary file of {n_bytes / 2**30:.1f} GiB cannot be made in {tempfile.gettempdir()} "
            f"({error.strerror or error}). Free some space, or set TMPDIR to a folder with more."
        ) from error


def taken(x: NDArray[Any], index: NDArray[np.intp]) -> NDArray[Any]:
    """The rows of an index, as `x[index]`."""
    if not is_mapped(x) and len(index) * x[:1].nbytes < LARGE:
        return x[index]
    rows = scratch((len(index), *x.shape[1:]), x.dtype)
    for start, block in blocks(rows, SCATTERED_ROWS):
        block[...] = x[index[start : start + len(block)]]
        release(x)
    return rows


def converted(x: NDArray[Any], convert: Callable[[NDArray[Any]], NDArray[Any]], dtype: Any) -> NDArray[Any]:
    """What a function makes of each block of rows, in one array of type `dtype`."""
    made = scratch(x.shape, dtype)
    for start, block in blocks(x):
        made[start : start + len(block)] = convert(block)
        release(made)
    return made


def joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Arrays of rows, one after the other; one alone as it is."""
    if len(parts) == 1:
        return parts[0]
    rows = scratch((sum(map(len, parts)), *parts[0].shape[1:]), np.result_type(*parts))
    at = 0
    for part in parts:
        for _, block in blocks(part):
            rows[at : at + len(block)] = block
            at += len(block)
            release(rows)
    return rows


def unit_rows(x: Rows) -> Rows:
    """The rows divided by their Euclidean length; rows of zeros stay zeros."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norms > 0, norms, 1))


def unit_rows_in_place(x: Rows) -> Rows:
    """The array itself, with `unit_rows` in place of its rows."""
    for _, block in blocks(x):
        block[...] = unit_rows(block)
    return x


def grouped(labels: NDArray[np.str_]) -> tuple[NDArray[np.str_], NDArray[np.intp], NDArray[np.intp]]:
    """The distinct labels, sorted; the place of each row's label among them; and the number of rows of each."""
    # Rows of one label mostly follow each other: one label of each run is sorted.
    is_first = np.ones(len(labels), bool)
    is_first[1:] = labels[1:] != labels[:-1]
    names, inverse = np.unique(labels[is_first], return_inverse=True)
    group = inverse[np.cumsum(is_first) - 1]
    return names, group, np.bincount(group, minlength=len(names))


def means_of_groups(x: Rows, group: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """(groups, dim) mean of the rows of each group, from the (rows,) number and the (groups,) size of each group."""
    means = sums_of_groups(x, group, counts)
    for start, block in blocks(means):
        block /= counts[start : start + len(block), None]
    return means


def sums_of_groups(x: Rows, group: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """(groups, dim) sum of the rows of each group; arguments as for `means_of_groups`."""
    in_order = bool((group[1:] >= group[:-1]).all())
    order = np.arange(0) if in_order else np.argsort(group, kind="stable")
    stops = np.cumsum(counts)
    starts = stops - counts
    sums = scratch((len(counts), x.shape[1]), np.float64)
    first = 0
    while first < len(counts):
        # Whole groups, about BLOCK_ROWS rows of them.
        last = max(first + 1, int(np.searchsorted(stops, starts[first] + BLOCK_ROWS, "right")))
        at = slice(starts[first], stops[last - 1])
        rows = (x[at] if in_order else x[order[at]]).astype(np.float64)
        sums[first:last] = _sums_of_runs(rows, counts[first:last])
        first = last
        release(x)
        release(sums)
    return sums


def _sums_of_runs(rows: Rows, sizes: NDArray[np.intp]) -> Rows:
    """(runs, dim) sum of each run of rows, as `np.add.reduceat`, which takes several times longer for short runs."""
    starts = np.cumsum(sizes) - sizes
    if sizes.max() > 8:
        return np.asarray(np.add.reduceat(rows, starts, axis=0))
    # In its order of summation: the first row, plus the sum of the others.
    sums, others = rows[starts], np.full((len(sizes), rows.shape[1]), -0.0)
    for turn in range(1, sizes.max()):
        more = sizes > turn
        if more.all():
            others += rows[starts + turn]
        else:
            others[more] += rows[starts[more] + turn]
    return np.asarray(np.add(sums, others, out=sums, where=(sizes > 1)[:, None]))


def add_rows(sums: Rows, group: NDArray[np.intp], rows: Rows) -> None:
    """Add each row to the sum of its group, in order, as `np.add.at(sums, group, rows)`, which is slow."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    turn = np.empty_like(group)
    turn[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # First the first row of every group, then the second, ...
    for part in np.split(np.argsort(turn, kind="stable"), np.cumsum(np.bincount(turn))[:-1]):
        sums[group[part]] += rows[part]


def mean_of_rows(x: Rows) -> NDArray[np.float64]:
    """(dim,) mean of the rows."""
    total = np.zeros((1, x.shape[1]))
    for start, block in blocks(x):
        rows = block.astype(np.float64)
        # Row after row, as one sum over all of them.
        total = (np.vstack([total, rows]) if start else rows).sum(axis=0, keepdims=True)
    return np.asarray(total[0] / len(x))


def spread(x: Rows) -> float | None:
    """The largest absolute value; None if all rows are the same, but for rounding."""
    extremes = [(block.min(axis=0), block.max(axis=0)) for _, block in blocks(x)]
    low, high = np.min([low for low, _ in extremes], axis=0), np.max([high for _, high in extremes], axis=0)
    largest = max(-float(low.min()), float(high.max()))
    return largest if largest > 0 and (high.astype(np.float64) - low).max() > 1e-12 * largest else None


def row_hashes(x: NDArray[Any]) -> NDArray[np.uint64]:
    """(rows,) number of each row; rows of the same bytes have the same, others hardly ever."""
    hashes = np.empty(len(x), np.uint64)
    n_words = -(-x[:1].nbytes // 8)
    factors = np.random.default_rng(0).integers(1 << 64, size=n_words, dtype=np.uint64) | np.uint64(1)
    for start, block in blocks(x):
        data = np.ascontiguousarray(block).view(np.uint8).reshape(len(block), -1)
        if data.shape[1] % 8:
            data = np.pad(data, ((0, 0), (0, -data.shape[1] % 8)))
        words = data.view(np.uint64)
        # The upper half into the lower: floats of few digits have only zeros there, which would be lost.
        hashes[start : start + len(block)] = (words ^ (words >> np.uint64(32))) @ factors
    return hashes


def equal_rows(x: NDArray[Any], keys: NDArray[np.uint64]) -> list[list[int]]:
    """Positions of rows with the same bytes, of each such group of two or more; `keys` tell most others apart."""
    ordered = np.sort(keys)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return []
    candidates = np.flatnonzero(np.isin(keys, repeated))
    same: dict[tuple[int, bytes], list[int]] = {}
    for n, (i, key) in enumerate(zip(candidates.tolist(), keys[candidates].tolist(), strict=True), start=1):
        same.setdefault((key, hashlib.blake2b(x[i].tobytes(), digest_size=16).digest()), []).append(i)
        if n % BLOCK_ROWS == 0:
            release(x)
    release(x)
    return [where for where in same.values() if len(where) > 1]
