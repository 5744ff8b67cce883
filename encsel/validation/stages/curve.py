"""curve: learning curve of every pair, extrapolated to the reference size."""

from collections.abc import Sequence

from encsel.matching.folds import some_folds
from encsel.matching.learning_curve import LearningCurve, curve_projections, learning_curve
from encsel.prediction.shipped import CALIBRATED
from encsel.storage.sections import Section, number, span, table
from encsel.validation.result import Validation
from encsel.validation.stage import Outcomes, Stage
from encsel.validation.work import Work

MAX_REPEATS = 3


def compute(work: Work) -> Outcomes:
    folds = some_folds(work.folds[:MAX_REPEATS], len(work.people))
    return work.of_pairs(
        STAGE, "curve",
        lambda pair, sides: learning_curve(sides[pair[0]], sides[pair[1]], folds, eer_rule=work.eer_rule),
        shared=work.for_pairs(
            "smaller training sets", lambda key: curve_projections(work.centroids(key), folds, seed=work.seed)
        ),
        more={"protocol": work.protocol},
    )  # fmt: skip


def sections(validation: Validation) -> Sequence[Section]:
    rows, reasons, scorer = [], set(), validation.scorer
    for p in validation.pairs:
        curve: LearningCurve | None = p["curve"]
        if curve is None:
            continue
        end = curve.extrapolated[scorer]
        single = validation.prediction is not None and validation.prediction.n_probe_samples == 1
        predicted = None if single else p.ranked and p.ranked.predictions.get(CALIBRATED.get(scorer, ""))
        row = {
            "Face": p.face, "Voice": p.voice, **{str(x.n_train): number(x.eer[scorer]) for x in curve.points},
            f"At {end.n_train}": number(end.eer), "Interval 90 %": span(end.interval), "Plateau": number(end.plateau),
            "Predicted": number(predicted and predicted.eer),
            "Interval": span(predicted.interval if predicted else None),
        }  # fmt: skip
        rows.append(row)
        if end.reason is not None:
            reasons.add(end.reason)
    return table(
        "Learning curve", rows,
        f"EER of the scorer {scorer} by number of training people, extrapolated with d' = d sqrt(N / (N + k)), and "
        "the prediction of the calibrated card.",
        *(f"Not extrapolated: {reason}." for reason in sorted(reasons)), n_names=2,
    )  # fmt: skip


STAGE = Stage(
    name="curve",
    about="pair",
    order=71,
    fields={"curve": LearningCurve},
    compute=compute,
    version=3,
    sections=sections,
)
