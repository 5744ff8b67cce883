"""metrics: every registered metric that no other stage contains, computed one by one."""

from __future__ import annotations

from collections.abc import Mapping

from encsel.core import Metric
from encsel.errors import BadCalibration
from encsel.storage.sections import number, significant
from encsel.validation.result import EncoderValidation, PairValidation, Validation
from encsel.validation.stage import Outcome, Outcomes, Stage, metrics_of_their_own
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    outcomes: Outcomes = {}
    of_encoders, of_pairs = (
        {name: metric for name, metric in metrics_of_their_own().items() if (metric.of == "pair") is about_pairs}
        for about_pairs in (False, True)
    )
    for subjects, wanted in (([*work.encoders], of_encoders), (work.pairs, of_pairs)):
        by_metric = {name: _one(work, metric) for name, metric in wanted.items()}
        for subject in subjects:
            found = {name: values[subject]["metrics"] for name, values in by_metric.items()}
            reasons = [f"{name}: {o.reason}" for name, o in found.items() if o.reason is not None]
            values = {name: o.value["value"] if o.value else None for name, o in found.items()}
            outcomes[subject] = {"metrics": Outcome(values, "; ".join(reasons) or None)}
    return outcomes


def _one(work: Work, metric: Metric) -> Outcomes:
    """One metric of every encoder or pair."""
    more = {"metric": metric.name, "metric_version": metric.version}

    def checked(value: float) -> dict[str, float]:
        if not float("-inf") < value < float("inf"):
            raise BadCalibration(f"{metric.name} gave {value}, which is not a finite number")
        return {"value": value}

    if metric.of == "pair":
        return work.of_pairs(
            STAGE, "metrics", lambda pair, _: checked(metric(*(work.centroids(key) for key in pair))), more=more
        )
    by_person = metric.of == "people"
    return work.of_encoders(
        STAGE, "metrics",
        lambda key, _: checked(
            metric(work.encoders[key].vectors, *([work.encoders[key].labels] if by_person else []))
        ),
        more=more,
    )  # fmt: skip


def _cells(values: Mapping[str, float | None]) -> dict[str, str]:
    labels = {name: metric.label or name for name, metric in metrics_of_their_own().items()}
    return {labels[name]: significant(value) for name, value in values.items() if name in labels}


def encoder_cells(e: EncoderValidation, _: Validation) -> Mapping[str, str]:
    return _cells(e["metrics"] or {})


def pair_cells(p: PairValidation) -> Mapping[str, str]:
    combined = {
        metric.label or name: number(p.columns.get(metric.column or name))
        for name, metric in metrics_of_their_own().items()
        if metric.of != "pair" and metric.combine is not None
    }
    return {**_cells(p["metrics"] or {}), **combined}


STAGE = Stage(
    name="metrics",
    about="encoder",
    order=90,
    fields={"metrics": Mapping[str, float | None]},
    pair_fields={"metrics": Mapping[str, float | None]},
    compute=compute,
    always=True,
    encoder_cells=encoder_cells,
    pair_cells=pair_cells,
)
