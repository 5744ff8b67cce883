"""The equal error rate of verification scores."""

from __future__ import annotations

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


def _crossing(fpr: NDArray[np.float64], fnr: NDArray[np.float64]) -> float:
    """Where a ROC from (1, 0) to (0, 1) meets the diagonal."""
    difference = fnr - fpr
    after = int(np.argmax(difference >= 0))
    before = max(after - 1, 0)
    rise = difference[after] - difference[before]
    share = -difference[before] / rise if rise > 0 else 0.0
    return float(fnr[before] + share * (fnr[after] - fnr[before]))
