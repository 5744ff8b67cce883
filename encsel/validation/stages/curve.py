"""curve: learning curve of every pair, extrapolated to the reference size."""

from __future__ import annotations

from collections.abc import Sequence

from encsel.matching.folds import some_folds
from encsel.matching.learning_curve import LearningCurve, curve_projections, learning_curve
from encsel.prediction.shipped import DEFAULT_REGRESSION
from encsel.storage.sections import Section, number, span
from encsel.validation.result import Validation
from encsel.validation.stage import Outcomes, Stage
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    folds = some_folds(work.folds, len(work.people))
    return work.of_pairs(
        STAGE, "curve", lambda pair, sides: learning_curve(sides[pair[0]], sides[pair[1]], folds),
        shared=work.for_pairs(
            "smaller training sets", lambda key: curve_projections(work.centroids(key), folds, seed=work.seed)
        ),
        more={"protocol": work.protocol},
    )  # fmt: skip


def sections(validation: Validation) -> Sequence[Section]:
    curves: list[tuple[LearningCurve, tuple[str, ...]]] = []
    for p in validation.pairs:
        curve: LearningCurve | None = p["curve"]
        if curve is None:
            continue
        at = curve.extrapolated[validation.scorer]
        predicted = None if p.ranked is None else p.ranked.predictions.get(DEFAULT_REGRESSION)
        cells = (
            p.face, p.voice, *(number(point.eer[validation.scorer]) for point in curve.points), number(at.eer),
            span(at.interval), number(at.plateau), number(predicted and predicted.eer),
            span(predicted.interval if predicted else None),
        )  # fmt: skip
        curves.append((curve, cells))
    if not curves:
        return []
    first = curves[0][0]
    header = (
        "Face", "Voice", *(str(point.n_train) for point in first.points),
        f"At {first.extrapolated[validation.scorer].n_train}", "Interval 90 %", "Plateau", "Predicted", "Interval",
    )  # fmt: skip
    note = (
        f"EER of the scorer {validation.scorer} by number of training people, extrapolated along d' = d sqrt(N / (N + "
        "k)); beside it the prediction of the calibrated card."
    )
    reasons = {r for curve, _ in curves if (r := curve.extrapolated[validation.scorer].reason) is not None}
    notes = (note, *(f"Not extrapolated: {reason}." for reason in sorted(reasons)))
    return [Section("Learning curve", header, tuple(cells for _, cells in curves), notes, n_names=2)]


STAGE = Stage(
    name="curve",
    meaning="learning curve",
    about="pair",
    version=1,
    order=71,
    fields={"curve": LearningCurve},
    compute=compute,
    sections=sections,
)
