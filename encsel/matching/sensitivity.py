"""Sensitivity d': conversions between d', EER and AUC, and its standard error over people.

d' is the distance of two Gaussians of unit variance: EER = Phi(-d' / 2), AUC = Phi(d' / sqrt 2). It is infinite for a
rate of 0 or 1, so rates are clipped first, to one of three ranges.
"""

import math

import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]
Number = float | NDArray[np.float64]

EVIDENCE_AUC: Range = (0.3, 0.995)
"""Clip range of an AUC used as evidence; a value below 0.3 is just bad luck."""
PREDICTED_EER: Range = (0.005, 0.6)
"""Clip range of a predicted or true EER, which is hardly ever worse than chance."""
MEASURED: Range = (0.005, 0.995)
"""Clip range of a measured rate, which can be worse than chance by bad luck."""


def distance_of_auc(auc: Number, clip: Range = EVIDENCE_AUC) -> NDArray[np.float64]:
    """d' of an AUC, clipped to `clip`."""
    from scipy.special import ndtri

    return np.asarray(math.sqrt(2) * ndtri(np.clip(auc, *clip)))


def distance_of_eer(eer: Number, clip: Range = PREDICTED_EER) -> NDArray[np.float64]:
    """d' of an EER, clipped to `clip`."""
    from scipy.special import ndtri

    return np.asarray(-2 * ndtri(np.clip(eer, *clip)))


def eer_of_distance(distance: Number) -> NDArray[np.float64]:
    """EER of a d'; above 0.5 if it is negative."""
    from scipy.special import ndtr

    return np.asarray(ndtr(-np.asarray(distance) / 2))


def distance_error(auc: float, auc_se: float | None, n_people: int, clip: Range = EVIDENCE_AUC) -> float:
    """Standard error of the d' behind an AUC; n people cannot resolve an AUC finer than 1 / 2n."""
    # Slope of d' in the AUC, at the clipped AUC so that it stays finite.
    d = float(distance_of_auc(auc, clip))
    slope = math.sqrt(2) * math.sqrt(2 * math.pi) * math.exp(d * d / 4)
    return max(auc_se or 0.0, 1 / (2 * n_people)) * slope


def eer_interval(eer: float, half_width: float) -> tuple[float, float]:
    """Interval of a measured EER whose d' is uncertain by `half_width`; it always contains the EER."""
    d = float(distance_of_eer(eer, MEASURED))
    low, high = (float(x) for x in eer_of_distance(np.array([d + half_width, d - half_width])))
    return min(low, eer), max(high, eer)


def normal_quantile(coverage: float) -> float:
    """Half-width, in standard deviations, of a central normal interval."""
    from scipy.special import ndtri

    return float(ndtri((1 + coverage) / 2))
