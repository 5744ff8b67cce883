"""Linear centred kernel alignment of two embeddings of the same people: biased, debiased, matched to a size.

All in float64 on Gram matrices that the caller computes once per encoder. Kornblith et al. 2019, arXiv:1905.00414;
unbiased HSIC of Song et al. 2012, JMLR 13. Biased CKA of unrelated embeddings grows as people get fewer; the debiased
value does not; the matched value is what the biased one would be, in expectation, at another number of people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric, Vectors
from encsel.errors import BadCalibration

REFERENCE_SIZE = 1249
"""Identities of the study that the published regressions were fitted on."""
MIN_FOR_CKA = 4

Gram = NDArray[np.float64]


@dataclass(frozen=True)
class Cka:
    """The three forms for one pair, in about [0, 1], higher is more alike; chance can put the last two below 0."""

    biased: float
    debiased: float
    matched: float


def gram(x: Vectors, *, device: str = "cpu") -> Gram:
    """Gram matrix of the rows about their mean.

    Args:
        x: (n, dim), one row per identity, finite, any scale.
        device: "cpu", or the torch device on which the product is taken, in float64 as well.
    Returns:
        (n, n) float64, scaled to unit mean diagonal: CKA does not depend on scale, but squares of
        tiny values would underflow.
    Raises:
        BadCalibration: fewer than 4 rows, or all rows equal.
    """
    if len(x) < MIN_FOR_CKA:
        raise BadCalibration(f"{len(x)} identities; CKA needs at least {MIN_FOR_CKA}. Add people.")
    rows = np.asarray(x, dtype=np.float64)
    centred = rows - rows.mean(axis=0)
    # Rounding alone leaves about 1e-16 of the largest value; equal rows must not pass for variation.
    if np.abs(centred).max() <= 1e-12 * max(np.abs(rows).max(), np.finfo(np.float64).tiny):
        raise BadCalibration("All identities have the same embedding; CKA needs variation. Check the encoder.")
    centred /= np.abs(centred).max()
    if device == "cpu":
        k = centred @ centred.T
    else:
        import torch

        moved = torch.from_numpy(centred).to(device)
        k = (moved @ moved.T).cpu().numpy()
    return k / (np.trace(k) / len(k))


def cka_of_grams(k: Gram, q: Gram, *, matched_to: int = REFERENCE_SIZE) -> Cka:
    """The three forms of CKA from two Gram matrices of the same people in the same order.

    Args:
        k, q: (n, n) from `gram`.
        matched_to: identities at which the biased value is wanted.
    Raises:
        BadCalibration: the two have different people, or an encoder has no structure left once noise is taken off.
    """
    if k.shape != q.shape:
        raise BadCalibration(f"{len(k)} identities on one side and {len(q)} on the other; CKA needs the same people.")
    biased = np.vdot(k, q) / np.sqrt(np.vdot(k, k) * np.vdot(q, q))
    return Cka(float(biased), _ratio(k, q, None), _ratio(k, q, matched_to))


def matched_of(k: Gram, q: Gram, *, matched_to: int = REFERENCE_SIZE) -> float:
    """`cka(k, q).matched` alone.

    Raises:
        BadCalibration: as `cka`.
    """
    return _ratio(k, q, matched_to)


def matched_standard_error(k: Gram, q: Gram, *, matched_to: int = REFERENCE_SIZE) -> float:
    """Jackknife standard error of matched CKA over people; with 1.645 of it 90 % intervals hold.

    Never a bootstrap: people drawn twice are alike in both encoders, which raises CKA of any two.

    Args:
        k, q: (n, n) from `gram`, n of at least 5.
    """
    n = len(k)
    if n <= MIN_FOR_CKA:
        raise BadCalibration(f"{n} identities; the error of CKA needs at least {MIN_FOR_CKA + 1}. Add people.")
    kq, kk, qq = (_terms_without_one(a, b, matched_to) for a, b in ((k, q), (k, k), (q, q)))
    own = kk * qq
    if (kk <= 0).any() or (own <= 0).any():
        raise BadCalibration(f"With {n} identities an encoder's own variation hangs on one of them. Add people.")
    values = kq / np.sqrt(own)
    return float(np.sqrt((n - 1) * np.mean((values - values.mean()) ** 2)))


def null_of_matched(
    ks: Sequence[Gram],
    qs: Sequence[Gram],
    *,
    permutations: NDArray[np.intp],
    matched_to: int = REFERENCE_SIZE,
    device: str = "cpu",
) -> NDArray[np.float64]:
    """Matched CKA of every pair when people are shuffled, one shuffle shared by all pairs.

    Args:
        ks, qs: Gram matrices of the face and of the voice encoders, all (n, n), same people in the same order.
        permutations: (n_permutations, n) orders of the people of `ks`.
    Returns:
        (n_permutations, len(ks), len(qs)).
    """
    n = len(ks[0])
    # Only the cross product changes with the shuffle. float32 holds it to 1e-6, far below the spread of the null.
    k_off = [_off_diagonal(k).astype(np.float32) for k in ks]
    q_off = np.stack([_off_diagonal(q).astype(np.float32).ravel() for q in qs])
    k_sums = np.stack([k.sum(axis=0) - np.diag(k) for k in ks])
    q_sums = np.stack([q.sum(axis=0) - np.diag(q) for q in qs])
    constant = np.outer(k_sums.sum(axis=1), q_sums.sum(axis=1)) / ((n - 1) * (n - 2))
    traces = np.outer([_spread(k) for k in ks], [_spread(q) for q in qs]) / matched_to
    own = np.outer([_term(k, k, matched_to) for k in ks], [_term(q, q, matched_to) for q in qs])
    # An encoder whose own variation is not above its noise is like no other.
    scale = np.where(own > 0, np.sqrt(np.abs(own)), np.inf)
    cross_of = _cross_products(k_off, q_off, device)
    values = np.empty((len(permutations), len(ks), len(qs)))
    for i, p in enumerate(permutations):
        cross = cross_of(p)
        unbiased = (cross + constant - 2 * (k_sums[:, p] @ q_sums.T) / (n - 2)) / (n * (n - 3))
        values[i] = (unbiased + traces) / scale
    return values


def _cross_products(
    k_off: Sequence[NDArray[np.float32]], q_off: NDArray[np.float32], device: str
) -> Callable[[NDArray[np.intp]], NDArray[np.float64]]:
    """A shuffle of people to the (faces, voices) inner products of shuffled face with voice Gram matrices."""
    if device == "cpu":
        # Rows, then columns: four times as fast as both at once.
        return lambda p: np.stack([q_off @ k[p].take(p, axis=1).ravel() for k in k_off]).astype(np.float64)
    import torch

    ks = torch.from_numpy(np.stack(k_off)).to(device)
    qs = torch.from_numpy(q_off).to(device)

    def product(p: NDArray[np.intp]) -> NDArray[np.float64]:
        order = torch.from_numpy(p).to(device)
        shuffled = ks[:, order][:, :, order].reshape(len(ks), -1)
        return (shuffled @ qs.T).double().cpu().numpy()

    return product


def _ratio(k: Gram, q: Gram, n: int | None) -> float:
    own = _term(k, k, n) * _term(q, q, n)
    if _term(k, k, n) <= 0 or own <= 0:
        raise BadCalibration(
            f"With {len(k)} identities an encoder's own variation is not above its noise; debiased CKA is undefined. "
            "Add people or drop the encoder."
        )
    return float(_term(k, q, n) / np.sqrt(own))


def _term(k: Gram, q: Gram, n: int | None) -> float:
    """HSIC without bias (n None), or with the bias it would have at n identities."""
    return _unbiased_hsic(k, q) + (0.0 if n is None else _spread(k) * _spread(q) / n)


def _terms_without_one(k: Gram, q: Gram, matched_to: int) -> NDArray[np.float64]:
    """(n,) `_term` of the people without each one, from sums that are computed once."""
    n = len(k)
    m = n - 1
    k_own, q_own = np.diag(k), np.diag(q)
    k_off, q_off = _off_diagonal(k), _off_diagonal(q)
    k_sums, q_sums = k_off.sum(axis=0), q_off.sum(axis=0)
    by_person = (k_off * q_off).sum(axis=0)
    cross = by_person.sum() - 2 * by_person
    whole = (k_sums.sum() - 2 * k_sums) * (q_sums.sum() - 2 * q_sums) / ((m - 1) * (m - 2))
    sums = k_sums @ q_sums - k_sums * q_sums - k_off @ q_sums - q_off @ k_sums + by_person
    unbiased = (cross + whole - 2 * sums / (m - 2)) / (m * (m - 3))
    # Rows sum to zero, so without person i the others sum to minus row i.
    k_spread, q_spread = ((np.trace(x) - own * n / m) / (m - 1) for x, own in ((k, k_own), (q, q_own)))
    return np.asarray(unbiased + k_spread * q_spread / matched_to)


def _unbiased_hsic(k: Gram, q: Gram) -> float:
    n = len(k)
    k_sums, q_sums = k.sum(axis=0) - np.diag(k), q.sum(axis=0) - np.diag(q)
    cross = np.vdot(k, q) - np.vdot(np.diag(k), np.diag(q))
    whole = k_sums.sum() * q_sums.sum() / ((n - 1) * (n - 2))
    return float((cross + whole - 2 * (k_sums @ q_sums) / (n - 2)) / (n * (n - 3)))


def _spread(k: Gram) -> float:
    """Trace of the covariance matrix behind a centred Gram matrix."""
    return float(np.trace(k) / (len(k) - 1))


def _off_diagonal(k: Gram) -> Gram:
    return k - np.diag(np.diag(k))


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
