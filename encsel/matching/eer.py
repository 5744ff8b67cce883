"""The equal error rate of verification scores."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration

EerRule = Callable[[Vectors, Vectors], float]
"""From ascending genuine and impostor scores to an EER."""


MANY = 100_000
"""Number of impostor scores from which not all are sorted."""


def eer(genuine: Vectors, impostor: Vectors) -> float:
    """Error rate at which false accepts equal false rejects, on the full ROC with straight lines between its points.

    Args:
        genuine, impostor: scores, any shape, finite; higher means more alike. A score at the threshold is accepted.
    Returns:
        Fraction in [0, 1]; 0.5 is chance, 1 perfectly inverted.
    Raises:
        BadCalibration: a side has no scores.
    Source: linear interpolation of (FPR, FNR) where FNR - FPR changes sign, as in ISO/IEC 19795-1 DET practice.
    """
    genuine, impostor = np.sort(np.ravel(genuine)), np.ravel(impostor)
    if not len(genuine) or not len(impostor):
        raise BadCalibration(
            f"{len(genuine)} genuine and {len(impostor)} impostor scores; an EER needs both. Add people."
        )
    return eer_of_sorted(genuine, _ascending(genuine, impostor))


def _ascending(genuine: Vectors, impostor: Vectors) -> Vectors:
    """The impostor scores, ascending; of many, those surely below the threshold of the EER are set to -inf."""
    for fraction in (0.2, 0.02, 0.002, 0) if len(impostor) >= MANY else ():
        # Where fewer genuine scores are rejected than impostor scores accepted, the threshold of the EER is higher; if
        # no impostor score is as high as the lowest genuine one, the EER is 0.
        low = genuine[int(fraction * len(genuine))]
        above = impostor[impostor >= low]
        if not fraction or len(above) / len(impostor) > np.searchsorted(genuine, low) / len(genuine):
            return np.concatenate([np.full(len(impostor) - len(above), -np.inf, impostor.dtype), np.sort(above)])
    return np.sort(impostor)


def eer_of_sorted(genuine: Vectors, impostor: Vectors) -> float:
    """`eer` of ascending scores, at least one of each."""
    # The curves cross between two neighbouring genuine scores: only the impostor scores in between matter.
    fnr, fpr = _rates(genuine, impostor, genuine)
    crossed = int(np.argmax(fnr >= fpr)) if fnr[-1] >= fpr[-1] else len(genuine)
    if crossed == 0:
        return 0.0
    low, high = genuine[crossed - 1], genuine[crossed] if crossed < len(genuine) else np.inf
    between = impostor[np.searchsorted(impostor, low, "right") : np.searchsorted(impostor, high, "right")]
    fnr, fpr = _rates(genuine, impostor, np.unique(np.concatenate([[low], between, [high]])))
    # The point where the ROC from (1, 0) to (0, 1) meets the diagonal.
    difference = fnr - fpr
    after = int(np.argmax(difference >= 0))
    before = max(after - 1, 0)
    rise = difference[after] - difference[before]
    fraction = -difference[before] / rise if rise > 0 else 0.0
    return float(fnr[before] + fraction * (fnr[after] - fnr[before]))


def nearest_eer(genuine: Vectors, impostor: Vectors) -> float:
    """EER by the rule of the study's released code: the mean of FNR and FPR at the ROC point where they are closest.

    The ROC is that of `sklearn.metrics.roc_curve`, which leaves out points on straight stretches, so with few people
    the closest remaining point can be far from where the two rates are equal.
    """
    from sklearn.metrics import roc_curve

    is_genuine = np.repeat([1, 0], [len(genuine), len(impostor)])
    fpr, tpr, _ = roc_curve(is_genuine, np.concatenate([genuine, impostor]))
    fnr = 1 - tpr
    at = np.argmin(np.abs(fnr - fpr))
    return float((fnr[at] + fpr[at]) / 2)


def _rates(genuine: Vectors, impostor: Vectors, thresholds: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """FNR and FPR at thresholds, from ascending scores."""
    fnr, below = (np.searchsorted(scores, thresholds, "left") / len(scores) for scores in (genuine, impostor))
    return fnr, 1 - below


def auc_placements(genuine: Vectors, impostor: Vectors) -> NDArray[np.float64]:
    """Fraction of impostor scores below each genuine score, ties counted half; the mean is the AUC.

    Source: placement values of Hanley and Hajian-Tilaki 1997, doi:10.1016/S1076-6332(97)80161-4.
    """
    genuine, impostor = np.ravel(genuine), np.sort(np.ravel(impostor), kind="stable")
    below = np.searchsorted(impostor, genuine, "left") + np.searchsorted(impostor, genuine, "right")
    return np.asarray(below / (2 * len(impostor)))
