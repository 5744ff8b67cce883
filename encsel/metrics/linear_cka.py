"""Linear centred kernel alignment of two embeddings of the same people: biased, debiased, matched to a size.

Everything is in float64, on Gram matrices computed once per encoder. Kornblith et al. 2019, arXiv:1905.00414; unbiased
HSIC of Song et al. 2012, JMLR 13. Biased CKA of unrelated embeddings grows with fewer people, debiased CKA does not;
matched CKA is the expected value of biased CKA at another number of people.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric, Vectors
from encsel.errors import BadCalibration
from encsel.metrics.centroids import centred_rows

REFERENCE_SIZE = 1249
"""Number of identities of the study, on which the published regressions were fitted."""
MIN_FOR_CKA = 4

Gram = NDArray[np.float64]


@dataclass(frozen=True)
class Cka:
    """CKA of one pair, roughly in [0, 1], higher is more alike; the last two can be below 0 by chance."""

    biased: float
    debiased: float
    matched: float


def gram(x: Vectors, *, device: str = "cpu") -> Gram:
    """(n, n) Gram matrix of (n, dim) rows about their mean, float64, scaled to unit mean diagonal.

    CKA ignores scale, but squares of tiny values would underflow. A torch `device` also computes in float64.

    Raises:
        BadCalibration: fewer than 4 rows, or all rows equal.
    """
    centred = centred_rows(x, MIN_FOR_CKA, "CKA needs", "identities")
    if device == "cpu":
        k = centred @ centred.T
    else:
        import torch

        moved = torch.from_numpy(centred).to(device)
        k = (moved @ moved.T).cpu().numpy()
    return k / (np.trace(k) / len(k))


def cka_of_grams(k: Gram, q: Gram, *, matched_to: int = REFERENCE_SIZE) -> Cka:
    """The three forms of CKA from `gram`s of the same people in the same order.

    Raises:
        BadCalibration: different numbers of people, or an encoder whose own variation is not above its noise.
    """
    if k.shape != q.shape:
        raise BadCalibration(f"{len(k)} identities on one side and {len(q)} on the other; CKA needs the same people.")
    biased = np.vdot(k, q) / np.sqrt(np.vdot(k, k) * np.vdot(q, q))
    return Cka(float(biased), unbiased_cka(k, q, None), unbiased_cka(k, q, matched_to))


def unbiased_cka(k: Gram, q: Gram, matched_to: int | None) -> float:
    """Debiased CKA, or with `matched_to` matched CKA; arguments and errors as for `cka_of_grams`."""
    variation = _term(k, k, matched_to) * _term(q, q, matched_to)
    if _term(k, k, matched_to) <= 0 or variation <= 0:
        raise BadCalibration(
            f"With {len(k)} identities an encoder's own variation is not above its noise; debiased CKA is undefined. "
            "Add people or drop the encoder."
        )
    return float(_term(k, q, matched_to) / np.sqrt(variation))


def matched_standard_error(k: Gram, q: Gram, *, matched_to: int = REFERENCE_SIZE) -> float:
    """Jackknife standard error of matched CKA over at least 5 people; 1.645 of it gives valid 90 % intervals.

    It is not a bootstrap: people drawn twice are alike in both encoders, which raises the CKA of any pair.
    """
    n = len(k)
    if n <= MIN_FOR_CKA:
        raise BadCalibration(f"{n} identities; the error of CKA needs at least {MIN_FOR_CKA + 1}. Add people.")
    kq, kk, qq = (_terms_without_one(a, b, matched_to) for a, b in ((k, q), (k, k), (q, q)))
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
    variation = np.outer([_term(k, k, matched_to) for k in ks], [_term(q, q, matched_to) for q in qs])
    # The CKA of an encoder whose own variation is not above its noise is 0.
    scale = np.where(variation > 0, np.sqrt(np.abs(variation)), np.inf)
    return (null_of_hsic(ks, qs, permutations=permutations, device=device) + traces) / scale


def null_of_hsic(
    ks: Sequence[Gram], qs: Sequence[Gram], *, permutations: NDArray[np.intp], device: str = "cpu"
) -> NDArray[np.float64]:
    """The same of `unbiased_hsic`."""
    n = len(ks[0])
    # Only the cross product depends on the shuffle. In float32 it is exact to 1e-6, far below the spread of the null.
    k_off = [_off_diagonal(k).astype(np.float32) for k in ks]
    q_off = np.stack([_off_diagonal(q).astype(np.float32).ravel() for q in qs])
    k_sums = np.stack([k.sum(axis=0) - np.diag(k) for k in ks])
    q_sums = np.stack([q.sum(axis=0) - np.diag(q) for q in qs])
    constant = np.outer(k_sums.sum(axis=1), q_sums.sum(axis=1)) / ((n - 1) * (n - 2))
    cross_of = _cross_products(k_off, q_off, device)
    values = np.empty((len(permutations), len(ks), len(qs)))
    for i, p in enumerate(permutations):
        cross = cross_of(p)
        values[i] = (cross + constant - 2 * (k_sums[:, p] @ q_sums.T) / (n - 2)) / (n * (n - 3))
    return values


def _cross_products(
    k_off: Sequence[NDArray[np.float32]], q_off: NDArray[np.float32], device: str
) -> Callable[[NDArray[np.intp]], NDArray[np.float64]]:
    """A function from a shuffle of people to the (faces, voices) inner products of Gram matrices."""
    if device == "cpu":
        # Rows, then columns: faster than both at once.
        return lambda p: np.stack([q_off @ k[p].take(p, axis=1).ravel() for k in k_off]).astype(np.float64)
    import torch

    ks = torch.from_numpy(np.stack(k_off)).to(device)
    qs = torch.from_numpy(q_off).to(device)

    def product(p: NDArray[np.intp]) -> NDArray[np.float64]:
        order = torch.from_numpy(p).to(device)
        shuffled = ks[:, order][:, :, order].reshape(len(ks), -1)
        return (shuffled @ qs.T).double().cpu().numpy()

    return product


def _term(k: Gram, q: Gram, n: int | None) -> float:
    """HSIC without bias (n None), or with its bias at n identities."""
    return unbiased_hsic(k, q) + (0.0 if n is None else _spread(k) * _spread(q) / n)


def _terms_without_one(k: Gram, q: Gram, matched_to: int) -> NDArray[np.float64]:
    """(n,) `_term` without each person in turn."""
    n = len(k)
    m = n - 1
    k_diag, q_diag = np.diag(k), np.diag(q)
    k_off, q_off = _off_diagonal(k), _off_diagonal(q)
    k_sums, q_sums = k_off.sum(axis=0), q_off.sum(axis=0)
    by_person = (k_off * q_off).sum(axis=0)
    cross = by_person.sum() - 2 * by_person
    whole = (k_sums.sum() - 2 * k_sums) * (q_sums.sum() - 2 * q_sums) / ((m - 1) * (m - 2))
    sums = k_sums @ q_sums - k_sums * q_sums - k_off @ q_sums - q_off @ k_sums + by_person
    unbiased = (cross + whole - 2 * sums / (m - 2)) / (m * (m - 3))
    # Rows sum to zero, so without person i the others sum to minus row i.
    k_spread, q_spread = ((np.trace(x) - diag * n / m) / (m - 1) for x, diag in ((k, k_diag), (q, q_diag)))
    return np.asarray(unbiased + k_spread * q_spread / matched_to)


def unbiased_hsic(k: Gram, q: Gram) -> float:
    """Sum of the squared covariances of the rows behind two Gram matrices, without bias; may be below 0 by chance."""
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
