"""The cost of log likelihood ratios: how informative a matcher's scores are, and how much their calibration loses."""

import numpy as np

from encsel.core import Vectors
from encsel.errors import BadCalibration

_BLOCK = 1 << 18


def cllr(genuine: Vectors, impostor: Vectors) -> float:
    """Log-likelihood-ratio cost in bits, at least 0: 1 for uninformative scores, more for misleading ones.

    Args:
        genuine, impostor: natural log likelihood ratios, any shape.
    Raises:
        BadCalibration: a side has no scores, or some are NaN.
    Source: Brümmer and du Preez 2006, "Application-independent evaluation of speaker detection", equation 30,
        doi:10.1016/j.csl.2005.08.001.

    >>> import numpy as np
    >>> cllr(np.zeros(3), np.zeros(5))
    1.0
    >>> cllr(np.array([20.0]), np.array([-20.0])) < 1e-8
    True
    """
    genuine, impostor = _both(genuine, impostor)
    cost = _mean_cost(genuine, -1) + _mean_cost(impostor, 1)
    return float(cost / (2 * np.log(2)))


def min_cllr(genuine: Vectors, impostor: Vectors) -> float:
    """Minimum `cllr` over all increasing functions of the scores, in [0, 1]: what calibration could reach.

    Args:
        genuine, impostor: scores, any shape; higher means more alike.
    Raises:
        BadCalibration: a side has no scores, or some are NaN.
    Source: as for `cllr`; pool adjacent violators, after pooling equal scores.

    >>> import numpy as np
    >>> min_cllr(np.array([1.0, 2.0]), np.array([-3.0, 0.5]))
    0.0
    """
    from scipy.optimize import isotonic_regression

    genuine, impostor = _both(genuine, impostor)
    # Impostor scores between two genuine ones are pooled in any case: they are counted, and there may be millions.
    scores, counts = np.unique(genuine, return_counts=True)
    impostor = np.sort(impostor, kind="stable")
    ends = np.stack([np.searchsorted(impostor, scores, side) for side in ("left", "right")], axis=1)
    others = np.diff(np.concatenate([[0], ends.ravel(), [len(impostor)]])).astype(np.float64)
    own = np.zeros(len(others))
    own[1::2] = counts
    own, others = own[own + others > 0], others[own + others > 0]
    share = isotonic_regression(own / (own + others), weights=own + others).x
    with np.errstate(divide="ignore"):
        ratio = np.log(share) - np.log1p(-share) - np.log(len(genuine) / len(impostor))
    cost = own @ np.where(own > 0, np.logaddexp(0, -ratio), 0) / len(genuine)
    cost += others @ np.where(others > 0, np.logaddexp(0, ratio), 0) / len(impostor)
    return float(cost / (2 * np.log(2)))


def _both(genuine: Vectors, impostor: Vectors) -> tuple[Vectors, Vectors]:
    genuine, impostor = (np.ravel(np.asarray(scores)) for scores in (genuine, impostor))
    if not len(genuine) or not len(impostor):
        raise BadCalibration(
            f"{len(genuine)} genuine and {len(impostor)} impostor scores; a cost needs both. Add people."
        )
    if np.isnan(genuine).any() or np.isnan(impostor).any():
        raise BadCalibration("Some scores are not numbers (NaN). Leave them out.")
    return genuine, impostor


def _mean_cost(scores: Vectors, sign: int) -> float:
    """Mean of ln(1 + e^x) of the scores times a sign, computed in float64 a block at a time."""
    blocks = (scores[i : i + _BLOCK].astype(np.float64) for i in range(0, len(scores), _BLOCK))
    return float(sum(np.logaddexp(0, sign * block).sum() for block in blocks) / len(scores))
