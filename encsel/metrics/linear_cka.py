"""Linear centred kernel alignment of two embeddings of the same people: biased, debiased, matched to a size.

Everything is in float64, from the rows of both encoders or from their Gram matrices, whichever is less; the two are
equal. Kornblith et al. 2019, arXiv:1905.00414; unbiased HSIC of Song et al. 2012, JMLR 13. Biased CKA of unrelated
embeddings grows with fewer people, debiased CKA does not; matched CKA is the expected value of biased CKA at another
number of people.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric, Vectors
from encsel.errors import BadCalibration
from encsel.metrics.centroids import centred_rows
from encsel.rows import blocks
from encsel.threads import cached_property, in_threads, one_thread

REFERENCE_SIZE = 1249
"""Number of identities of the study, on which the published regressions were fitted."""
MIN_FOR_CKA = 4
MAX_MATRIX = 3000
"""Largest number of people whose Gram matrices are held to compare two encoders."""
_PRODUCTS = 25
"""Multiplications in a matrix product that take as long as reading one element of a Gram matrix."""
_BLOCK = 64

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Cka:
    """CKA of one pair, roughly in [0, 1], higher is more alike; the last two can be below 0 by chance."""

    biased: float
    debiased: float
    matched: float


class Gram:
    """Inner products of n people about their mean, float64.

    Args:
        rows: (n, dim) rows about their mean, from which the products are computed as needed.
        matrix: (n, n) products that are not those of rows, centred in rows and columns.
    """

    def __init__(self, rows: Vectors | None = None, matrix: Matrix | None = None) -> None:
        self.rows = rows
        if rows is not None:
            self.diagonal = np.concatenate([np.einsum("ij,ij->i", block, block) for _, block in blocks(rows)])
        if matrix is not None:
            self.matrix, self.diagonal = matrix, np.diag(matrix)

    def __len__(self) -> int:
        return len(self.diagonal)

    @cached_property
    def matrix(self) -> Matrix:
        """(n, n) inner products."""
        assert self.rows is not None
        return np.asarray(self.rows @ self.rows.T)

    @cached_property
    def norm(self) -> float:
        """`inner` of itself."""
        return self.inner(self)

    @cached_property
    def by_person_of_itself(self) -> NDArray[np.float64]:
        return self.by_person(self)

    def inner(self, other: "Gram") -> float:
        """Sum of the products of all elements."""
        if (cross := self._cross(other)) is not None:
            return float(np.vdot(cross, cross))
        return float(np.vdot(self.matrix, other.matrix))

    def by_person(self, other: "Gram") -> NDArray[np.float64]:
        """(n,) sums of the products of the elements in each row."""
        if self.rows is not None and other.rows is not None and (cross := self._cross(other)) is not None:
            parts = zip(blocks(self.rows), blocks(other.rows), strict=True)
            return np.concatenate([np.einsum("ij,ij->i", a @ cross, b) for (_, a), (_, b) in parts])
        return np.asarray(np.einsum("ij,ij->i", self.matrix, other.matrix))

    def times(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) product of the matrix and a vector."""
        if self.rows is not None:
            product = sum(block.T @ vector[start : start + len(block)] for start, block in blocks(self.rows))
            return np.concatenate([block @ product for _, block in blocks(self.rows)])
        return np.asarray(self.matrix @ vector)

    def _cross(self, other: "Gram") -> Matrix | None:
        """(dim, other dim) products of columns; None without rows, or if Gram matrices are small and take less time."""
        if self.rows is None or other.rows is None or (len(self) <= MAX_MATRIX and not _is_faster_by_rows(self, other)):
            return None
        parts = zip(blocks(self.rows), blocks(other.rows), strict=True)
        return np.asarray(sum(a.T @ b for (_, a), (_, b) in parts))


def gram(x: Vectors) -> Gram:
    """Inner products of (n, dim) rows, one per identity, scaled to a mean of 1 of those with themselves.

    CKA ignores scale, but squares of tiny values would underflow.

    Raises:
        BadCalibration: fewer than 4 rows, or all rows equal.
    """
    rows = centred_rows(x, MIN_FOR_CKA, "CKA needs", "identities")
    length = np.sqrt(sum(float(np.vdot(block, block)) for _, block in blocks(rows)) / len(rows))
    for _, block in blocks(rows):
        block /= length
    return Gram(rows)


def cka_of_grams(k: Gram, q: Gram, *, matched_to: int = REFERENCE_SIZE) -> Cka:
    """The three forms of CKA from `gram`s of the same people in the same order; errors as for `ckas_of_grams`."""
    return ckas_of_grams(k, q, (matched_to,))[matched_to]


def ckas_of_grams(k: Gram, q: Gram, sizes: Iterable[int]) -> dict[int, Cka]:
    """The three forms of CKA by the number of people that the last is matched to.

    Raises:
        BadCalibration: different numbers of people, or an encoder whose own variation is not above its noise.
    """
    if len(k) != len(q):
        raise BadCalibration(f"{len(k)} identities on one side and {len(q)} on the other; CKA needs the same people.")
    inner = k.norm if k is q else k.inner(q)
    biased, debiased = float(inner / np.sqrt(k.norm * q.norm)), _unbiased(k, q, None, inner)
    return {size: Cka(biased, debiased, _unbiased(k, q, size, inner)) for size in sizes}


def unbiased_cka(k: Gram, q: Gram, matched_to: int | None) -> float:
    """Debiased CKA, or with `matched_to` matched CKA; arguments and errors as for `cka_of_grams`."""
    return _unbiased(k, q, matched_to, k.inner(q))


def _unbiased(k: Gram, q: Gram, matched_to: int | None, inner: float) -> float:
    of_k, of_q = (_term(x, x, matched_to, x.norm) for x in (k, q))
    # Of people who all differ alike, or but for one not at all, rounding leaves some variation of either sign.
    if any(own <= 1e-12 * x.norm / len(x) ** 2 for x, own in ((k, of_k), (q, of_q))):
        raise BadCalibration(
            f"With {len(k)} identities an encoder's own variation is not above its noise; debiased CKA is undefined. "
            "Add people or drop the encoder."
        )
    return float(_term(k, q, matched_to, inner) / np.sqrt(of_k * of_q))


def matched_standard_error(k: Gram, q: Gram, *, matched_to: int = REFERENCE_SIZE) -> float:
    """Jackknife standard error of matched CKA over at least 5 people; 1.645 of it gives valid 90 % intervals.

    It is not a bootstrap: people drawn twice are alike in both encoders, which raises the CKA of any pair.
    """
    n = len(k)
    if n <= MIN_FOR_CKA:
        raise BadCalibration(f"{n} identities; the error of CKA needs at least {MIN_FOR_CKA + 1}. Add people.")
    by_person = (k.by_person(q), k.by_person_of_itself, q.by_person_of_itself)
    kq, kk, qq = (
        _terms_without_one(a, b, matched_to, sums)
        for (a, b), sums in zip(((k, q), (k, k), (q, q)), by_person, strict=True)
    )
    variation = kk * qq
    if (kk <= 0).any() or (variation <= 0).any():
        raise BadCalibration(f"With {n} identities an encoder's own variation depends on one of them. Add people.")
    values = kq / np.sqrt(variation)
    return float(np.sqrt((n - 1) * np.mean((values - values.mean()) ** 2)))


def null_of_matched(
    ks: Sequence[Gram],
    qs: Sequence[Gram],
    *,
    permutations: NDArray[np.intp],
    matched_to: int = REFERENCE_SIZE,
    device: str = "cpu",
) -> NDArray[np.float64]:
    """(permutations, faces, voices) matched CKA of every pair; each (n,) permutation reorders the people of `ks`."""
    traces = np.outer([_spread(k) for k in ks], [_spread(q) for q in qs]) / matched_to
    of_k, of_q = ([_term(x, x, matched_to, x.norm) for x in side] for side in (ks, qs))
    variation = np.outer(of_k, of_q)
    # The CKA of an encoder whose own variation is not above its noise is 0.
    scale = np.where(variation > 0, np.sqrt(np.abs(variation)), np.inf)
    return (null_of_hsic(ks, qs, permutations=permutations, device=device) + traces) / scale


def null_of_hsic(
    ks: Sequence[Gram], qs: Sequence[Gram], *, permutations: NDArray[np.intp], device: str = "cpu"
) -> NDArray[np.float64]:
    """The same of `unbiased_hsic`."""
    if len(qs) < len(ks):  # reorder the side with fewer encoders
        moved = null_of_hsic(qs, ks, permutations=np.argsort(permutations, axis=1), device=device)
        return moved.transpose(0, 2, 1)
    n = len(ks[0])
    k_diagonals, q_diagonals = (np.stack([x.diagonal for x in side]) for side in (ks, qs))
    # Only these two depend on the shuffle.
    off_diagonal = _shuffled_products(ks, qs, permutations, device)
    diagonal = np.stack([k_diagonals[:, p] @ q_diagonals.T for p in permutations])
    return _hsic(off_diagonal, diagonal, np.outer(k_diagonals.sum(axis=1), q_diagonals.sum(axis=1)), n)


def _shuffled_products(
    ks: Sequence[Gram], qs: Sequence[Gram], permutations: NDArray[np.intp], device: str
) -> NDArray[np.float64]:
    """(permutations, faces, voices) sums of products of all elements off the diagonal."""
    if device != "cpu":
        return _on_device(ks, qs, permutations, device)
    n, shape = len(ks[0]), (len(permutations), len(ks), len(qs))
    of = (_by_rows if all(_is_faster_by_rows(k, q) for k in ks for q in qs) else _by_matrices)(ks, qs)
    # Several at a time, so that small sets do not wait for Python, in as many threads as there are processors.
    size = max(1, min(-(-len(permutations) // (os.cpu_count() or 1)), _BLOCK * _BLOCK * _BLOCK // n**2))
    with one_thread():
        parts = in_threads(of, [permutations[i : i + size] for i in range(0, len(permutations), size)])
        return np.concatenate([np.zeros((0, *shape[1:])), *parts])


def _is_faster_by_rows(k: Gram, q: Gram) -> bool:
    return k.rows is not None and q.rows is not None and k.rows.shape[1] * q.rows.shape[1] < _PRODUCTS * len(k)


def _by_rows(ks: Sequence[Gram], qs: Sequence[Gram]) -> Callable[[NDArray[np.intp]], NDArray[np.float64]]:
    """A function from permutations to `_shuffled_products`, by the products of columns."""
    k_rows = np.hstack([np.asarray(k.rows) for k in ks])
    q_rows = np.hstack([np.asarray(q.rows) for q in qs]).T.copy()
    k_starts, q_starts = (np.cumsum([0, *(np.asarray(x.rows).shape[1] for x in side)])[:-1] for side in (ks, qs))
    diagonals = [np.stack([x.diagonal for x in side]) for side in (ks, qs)]

    def of(some: NDArray[np.intp]) -> NDArray[np.float64]:
        cross = np.square(q_rows @ k_rows[some])
        sums = np.add.reduceat(np.add.reduceat(cross, q_starts, axis=1), k_starts, axis=2).transpose(0, 2, 1)
        return np.asarray(sums - np.stack([diagonals[0][:, p] @ diagonals[1].T for p in some]))

    return of


def _by_matrices(ks: Sequence[Gram], qs: Sequence[Gram]) -> Callable[[NDArray[np.intp]], NDArray[np.float64]]:
    """The same by Gram matrices, in float32: exact to 1e-6, far below the spread of the null."""
    moved = np.stack([_in_float32(k) for k in ks])
    above = np.stack([np.triu(_in_float32(q), 1) for q in qs])
    n = above.shape[1]
    if n <= 2 * _BLOCK:
        flat = above.reshape(len(qs), -1).T

        def of_small(some: NDArray[np.intp]) -> NDArray[np.float64]:
            found = (k[some[:, :, None], some[:, None]].reshape(len(some), -1) @ flat for k in moved)
            return 2 * np.stack([one.astype(np.float64) for one in found], axis=1)

        return of_small
    # Blocks of rows, to the right of the diagonal only: products are symmetric.
    parts = [np.ascontiguousarray(above[:, i : i + _BLOCK, i:]).reshape(len(qs), -1).T for i in range(0, n, _BLOCK)]
    del above

    def of(some: NDArray[np.intp]) -> NDArray[np.float64]:
        sums = np.zeros((len(some), len(ks), len(qs)))
        for total, p in zip(sums, some, strict=True):
            for start, part in zip(range(0, n, _BLOCK), parts, strict=True):
                # Rows, then columns: faster than both at once.
                total += moved[:, p[start : start + _BLOCK]].take(p[start:], axis=2).reshape(len(ks), -1) @ part
        return 2 * sums

    return of


def _in_float32(k: Gram) -> NDArray[np.float32]:
    """The matrix, which is not held in float64 as well if it is large."""
    if k.rows is None or len(k) <= MAX_MATRIX:
        return k.matrix.astype(np.float32)
    rows = k.rows.astype(np.float32)
    return np.asarray(rows @ rows.T)


def _on_device(
    ks: Sequence[Gram], qs: Sequence[Gram], permutations: NDArray[np.intp], device: str
) -> NDArray[np.float64]:
    import torch

    off_diagonal = [[_in_float32(x) for x in side] for side in (ks, qs)]
    for matrix in (*off_diagonal[0], *off_diagonal[1]):
        np.fill_diagonal(matrix, 0)
    k_moved = torch.from_numpy(np.stack(off_diagonal[0])).to(device)
    q_moved = torch.from_numpy(np.stack(off_diagonal[1])).to(device).flatten(1)
    sums = []
    for p in permutations:
        order = torch.from_numpy(p).to(device)
        sums.append((k_moved[:, order][:, :, order].flatten(1) @ q_moved.T).double().cpu().numpy())
    return np.stack(sums)


def _term(k: Gram, q: Gram, n: int | None, inner: float) -> float:
    """HSIC without bias (n None), or with its bias at n identities, from the inner product of the two."""
    return _unbiased_hsic(k, q, inner) + (0.0 if n is None else _spread(k) * _spread(q) / n)


def _terms_without_one(k: Gram, q: Gram, matched_to: int, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) `_term` without each person in turn; `sums` are those of `by_person`."""
    n = len(k)
    m = n - 1
    # Rows of both sum to zero, so those off the diagonal sum to minus the diagonal.
    k_diagonal, q_diagonal = k.diagonal, q.diagonal
    both = k_diagonal * q_diagonal
    by_person = sums - both
    cross = by_person.sum() - 2 * by_person
    whole = (2 * k_diagonal - k_diagonal.sum()) * (2 * q_diagonal - q_diagonal.sum()) / ((m - 1) * (m - 2))
    products = both.sum() - 3 * both + k.times(q_diagonal) + q.times(k_diagonal) + by_person
    unbiased = (cross + whole - 2 * products / (m - 2)) / (m * (m - 3))
    # Without person i the others sum to minus row i.
    k_spread, q_spread = ((d.sum() - d * n / m) / (m - 1) for d in (k_diagonal, q_diagonal))
    return np.asarray(unbiased + k_spread * q_spread / matched_to)


def unbiased_hsic(k: Gram, q: Gram) -> float:
    """Sum of the squared covariances of the rows behind two Gram matrices, without bias; may be below 0 by chance."""
    return _unbiased_hsic(k, q, k.norm if k is q else k.inner(q))


def _unbiased_hsic(k: Gram, q: Gram, inner: float) -> float:
    diagonal = float(k.diagonal @ q.diagonal)
    return float(_hsic(inner - diagonal, diagonal, float(k.diagonal.sum() * q.diagonal.sum()), len(k)))


def _hsic(off_diagonal: Any, diagonal: Any, sums: Any, n: int) -> Any:
    """HSIC without bias, from sums of products off and on the diagonals, and the product of the diagonals' sums."""
    return (off_diagonal + sums / ((n - 1) * (n - 2)) - 2 * diagonal / (n - 2)) / (n * (n - 3))


def _spread(k: Gram) -> float:
    """Trace of the covariance matrix behind a centred Gram matrix."""
    return float(k.diagonal.sum() / (len(k) - 1))


_RANGE = (0.0, 1.0)
_LARGER = "larger: the two encoders order people more alike"
METRICS = (
    Metric("cka_biased", 1, "pair", _LARGER, _RANGE, "Kornblith et al. 2019, arXiv:1905.00414",
           lambda x, y: cka_of_grams(gram(x), gram(y)).biased,
           label="CKA, biased", unit="fraction", column="cka"),
    Metric("cka_debiased", 1, "pair", _LARGER, _RANGE, "unbiased HSIC of Song et al. 2012, JMLR 13",
           lambda x, y: cka_of_grams(gram(x), gram(y)).debiased,
           label="CKA, debiased", unit="fraction"),
    Metric("cka_matched", 1, "pair", _LARGER, _RANGE, "unbiased HSIC plus the bias term tr(Sx)tr(Sy)/N at N = 1249",
           lambda x, y: cka_of_grams(gram(x), gram(y)).matched,
           label="CKA, matched to 1249 people", unit="fraction"),
)  # fmt: skip
