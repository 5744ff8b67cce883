"""EER by number of training people, extrapolated to the reference size."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from encsel.core import Vectors
from encsel.matching.axes import Side, project
from encsel.matching.crossval import pooled_rates
from encsel.matching.eer import EerRule, eer_of_sorted
from encsel.matching.error_rates import COVERAGE, SPREAD
from encsel.matching.folds import Folds
from encsel.matching.likelihood import N_AXES
from encsel.matching.projections import in_span_of
from encsel.matching.scorers import REFERENCE_TRAIN
from encsel.matching.sensitivity import MEASURED, distance_error, distance_of_auc, eer_of_distance, normal_quantile

CURVE_POINTS = 6
SMALLEST_CURVE = 15
"""Fewest training people on a learning curve."""
CURVE_PRIOR: Mapping[str, tuple[float, float, float, float]] = {
    "reference": (10.0, 0.0, 1.0, 0.07),
    "cca": (25.0, 0.0, 1.0, 0.07),
    "likelihood": (73.0, 0.23, 1.35, 0.5),
}
"""By scorer, (a, b, sd, error): in simulated populations, of twelve kinds for `likelihood` and of six for the others, k
was about a n^b at n training people, ln k had a standard deviation of about sd, and d' departed from the form by about
`error`, relatively."""


@dataclass(frozen=True)
class CurvePoint:
    """EER and AUC by scorer at one number of training people."""

    n_train: int
    eer: Mapping[str, float]
    auc: Mapping[str, float]


@dataclass(frozen=True)
class Extrapolation:
    """A learning curve extrapolated to `n_train` people; None, with a reason, if it cannot be.

    The form fitted to the d' of the AUCs, d'(N) = d sqrt(N / (N + k)), is what a matcher of Gaussian variates with N
    noisy estimates of their covariance approaches. A few dozen people determine k poorly, hence CURVE_PRIOR.
    `plateau` is the EER with unlimited training people, `residual` the root mean square of d' about the curve.
    """

    n_train: int
    eer: float | None
    interval: tuple[float, float] | None
    plateau: float | None
    residual: float | None
    reason: str | None = None


@dataclass(frozen=True)
class LearningCurve:
    """Measured points, and their extrapolation by scorer."""

    points: tuple[CurvePoint, ...]
    extrapolated: Mapping[str, Extrapolation]


def curve_sizes(folds: Folds) -> list[int]:
    """Numbers of training people on a learning curve, the whole training part last."""
    most = min(len(train) for repeat in folds for train, _ in repeat)
    least = min(SMALLEST_CURVE, most)
    return sorted({round(s) for s in np.geomspace(least, most, CURVE_POINTS)})


def curve_projections(x: Vectors, folds: Folds, *, seed: int) -> dict[int, list[list[Side]]]:
    """By number of training people, one encoder (centroids) in every fold; smaller sets are parts of larger ones."""
    x = in_span_of(x, np.zeros((0, x.shape[1])))
    rng = np.random.default_rng([seed, 11])
    orders = [[rng.permutation(train) for train, _ in repeat] for repeat in folds]
    return {
        size: [
            [project(x, order[:size], test, n_axes=N_AXES) for order, (_, test) in zip(row, repeat, strict=True)]
            for row, repeat in zip(orders, folds, strict=True)
        ]
        for size in curve_sizes(folds)
    }


def learning_curve(
    face: Mapping[int, list[list[Side]]],
    voice: Mapping[int, list[list[Side]]],
    folds: Folds,
    *,
    eer_rule: EerRule = eer_of_sorted,
) -> LearningCurve:
    """Learning curve of one pair, from both encoders' `curve_projections`."""
    rates = {size: pooled_rates(face[size], voice[size], folds, eer_rule=eer_rule) for size in face}
    points = tuple(
        CurvePoint(size, {name: r.eer for name, r in by_name.items()}, {name: r.auc for name, r in by_name.items()})
        for size, by_name in rates.items()
    )
    extrapolated = {}
    for name, last in rates[points[-1].n_train].items():
        error = distance_error(last.auc, last.auc_se, last.n_people, MEASURED)
        extrapolated[name] = extrapolate(list(rates), [p.auc[name] for p in points], error, scorer=name)
    return LearningCurve(points, extrapolated)


def extrapolate(
    sizes: Sequence[int], aucs: Sequence[float], error: float, *, scorer: str = "reference", to: int = REFERENCE_TRAIN
) -> Extrapolation:
    """The EER at `to` people from points of a curve; `error` is the standard error of the d' of the last point."""
    n = np.array(sizes, dtype=np.float64)
    d = distance_of_auc(np.array(aucs), MEASURED)
    if len(n) < 3:
        return Extrapolation(to, None, None, None, None, f"{len(n)} points; a curve needs at least 3")
    if d[-1] <= 2 * error or d[-1] <= 0:
        return Extrapolation(to, None, None, None, None, "trained on all people it is not above chance")
    scale, power, prior_sd, model_error = CURVE_PRIOR[scorer]
    k = np.geomspace(0.5, 5000, 200)
    shape = np.sqrt(n[:, None] / (n[:, None] + k))
    top = (shape * d[:, None]).sum(axis=0) / np.square(shape).sum(axis=0)
    squares = np.square(d[:, None] - top * shape).sum(axis=0)
    log = -0.5 * (squares / max(error, 0.02) ** 2 + np.square(np.log(k / (scale * n[-1] ** power)) / prior_sd))
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    # The curve passes through the last point, which uses all people; the fit decides only its shape beyond.
    factors = np.sqrt((1 + k / n[-1]) / (1 + k / to))
    factor = float(weight @ factors)
    spread = math.sqrt(float(weight @ np.square(factors - factor)))
    at = factor * d[-1]
    half = normal_quantile(COVERAGE) * math.hypot(SPREAD * factor * error, spread * d[-1], model_error * d[-1])
    low, high = (float(eer_of_distance(x)) for x in (at + half, max(at - half, 0)))
    plateau = float(eer_of_distance(d[-1] * float(weight @ np.sqrt(1 + k / n[-1]))))
    residual = math.sqrt(float(weight @ squares) / len(n))
    return Extrapolation(to, float(eer_of_distance(at)), (low, high), plateau, residual)
