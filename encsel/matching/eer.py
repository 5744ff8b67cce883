"""The equal error rate of verification scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration


def eer(genuine: Vectors, impostor: Vectors) -> float:
    """Error rate where false accepts equal false rejects, on the full ROC with straight lines between its points.

    Args:
        genuine, impostor: scores, any shape, finite; higher means more alike. A score at the threshold is accepted.
    Returns:
        Share in [0, 1]; 0.5 is chance, 1 perfectly inverted.
    Raises:
        BadCalibration: a side has no scores.
    Source: linear interpolation of (FPR, FNR) where FNR - FPR changes sign, as in ISO/IEC 19795-1 DET practice. The
        nearest-point convention differs from it by more the more scores are tied.
    """
    own, other = np.sort(np.ravel(genuine)), np.sort(np.ravel(impostor))
    if not len(own) or not len(other):
        raise BadCalibration(f"{len(own)} genuine and {len(other)} impostor scores; an EER needs both. Add people.")
    return eer_of_sorted(own, other)


def eer_of_sorted(own: Vectors, other: Vectors) -> float:
    """As `eer`, of ascending scores, at least one of each."""
    # The curves cross between two neighbouring genuine scores: of the impostor scores only those in between matter.
    fnr, fpr = _rates(own, other, own)
    crossed = int(np.argmax(fnr >= fpr)) if fnr[-1] >= fpr[-1] else len(own)
    if crossed == 0:
        return 0.0
    low, high = own[crossed - 1], own[crossed] if crossed < len(own) else np.inf
    between = other[np.searchsorted(other, low, "right") : np.searchsorted(other, high, "right")]
    fnr, fpr = _rates(own, other, np.unique(np.concatenate([[low], between, [high]])))
    return _crossing(fpr, fnr)


def _rates(own: Vectors, other: Vectors, thresholds: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """FNR and FPR at thresholds, from sorted scores."""
    fnr, below = (np.searchsorted(scores, thresholds, "left") / len(scores) for scores in (own, other))
    return fnr, 1 - below


def auc_placements(genuine: Vectors, impostor: Vectors) -> NDArray[np.float64]:
    """Share of impostor scores below each genuine score, ties half; their mean is the AUC.

    Args:
        genuine, impostor: scores, any shape, finite.
    Source: placement values of Hanley and Hajian-Tilaki 1997, doi:10.1016/S1076-6332(97)80161-4.
    """
    return placements_among_sorted(np.ravel(genuine), np.sort(np.ravel(impostor)))


def placements_among_sorted(own: Vectors, other: Vectors) -> NDArray[np.float64]:
    """As `auc_placements`, of ascending impostor scores."""
    below = np.searchsorted(other, own, "left") + np.searchsorted(other, own, "right")
    return np.asarray(below / (2 * len(other)))


MAX_CORRELATION = 0.97
"""Above it a few dozen people say nothing more, and the distribution of the ratio gets hard to integrate."""


def likelihood_ratio_eer(correlations: Vectors) -> float:
    """EER of the best matcher of jointly Gaussian variates with these canonical correlations.

    The log-likelihood ratio of a pair is a weighted sum of chi-square variables, with other weights for genuine and for
    impostor pairs; both distribution functions come from their characteristic functions by numerical inversion.

    Args:
        correlations: (k,); clipped to [0, 0.97].
    Returns:
        Share in (0, 0.5], 0.5 where no correlation is above 0; off by less than 0.001.
    Source: Gil-Pelaez 1951, doi:10.1093/biomet/38.3-4.481, on the quadratic form of Imhof 1961.
    """
    r = np.clip(np.asarray(correlations, dtype=np.float64), 0, MAX_CORRELATION)
    r = r[r > 1e-6]
    if not len(r):
        return 0.5
    # (x + y) / sqrt 2 and (x - y) / sqrt 2 are independent, of variance 1 + r and 1 - r when genuine, else 1 and 1.
    genuine = _chi_square_cdf(np.concatenate([r / 2, -r / 2]))
    impostor_weights = np.concatenate([r / (2 * (1 + r)), -r / (2 * (1 - r))])
    impostor = _chi_square_cdf(impostor_weights)
    low, high = 2 * float(impostor_weights.sum()) - 1, 2 * float(r.sum()) + 1
    for _ in range(26):
        middle = (low + high) / 2
        if genuine(middle) + impostor(middle) < 1:
            low = middle
        else:
            high = middle
    return float(np.clip((genuine(middle) + 1 - impostor(middle)) / 2, 0, 0.5))


def _chi_square_cdf(weights: NDArray[np.float64]) -> Callable[[float], float]:
    """Distribution function of a weighted sum of independent chi-square variables of one degree of freedom."""
    step = 0.08 / np.sqrt(2 * np.square(weights).sum())
    t = (np.arange(800) + 0.5) * step
    transform = np.exp(-0.5 * np.log(1 - 2j * np.outer(t, weights)).sum(axis=1)) / t * step / np.pi
    return lambda x: 0.5 - float((np.exp(-1j * t * x) * transform).imag.sum())


def _crossing(fpr: NDArray[np.float64], fnr: NDArray[np.float64]) -> float:
    """Where a ROC from (1, 0) to (0, 1) meets the diagonal."""
    difference = fnr - fpr
    after = int(np.argmax(difference >= 0))
    before = max(after - 1, 0)
    rise = difference[after] - difference[before]
    share = -difference[before] / rise if rise > 0 else 0.0
    return float(fnr[before] + share * (fnr[after] - fnr[before]))
