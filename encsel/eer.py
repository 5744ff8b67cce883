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
    thresholds = np.unique(np.concatenate([own, other]))
    fnr = np.append(np.searchsorted(own, thresholds, "left") / len(own), 1.0)
    fpr = np.append(1 - np.searchsorted(other, thresholds, "left") / len(other), 0.0)
    return _crossing(fpr, fnr)


def _crossing(fpr: NDArray[np.float64], fnr: NDArray[np.float64]) -> float:
    """Where a ROC from (1, 0) to (0, 1) meets the diagonal."""
    difference = fnr - fpr
    after = int(np.argmax(difference >= 0))
    before = max(after - 1, 0)
    rise = difference[after] - difference[before]
    share = -difference[before] / rise if rise > 0 else 0.0
    return float(fnr[before] + share * (fnr[after] - fnr[before]))
