"""metrics: every registered metric that no other stage contains, computed one by one."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from encsel.core import Metric
from encsel.errors import BadCalibration
from encsel.storage.sections import number, significant
from encsel.validation.result import EncoderValidation, PairValidation, Validation
from encsel.validation.stage import Outcome, Outcomes, Stage, metrics_of_their_own
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    outcomes: Outcomes = {}
    for subjects, run, about_pairs in (([*work.encoders], work.of_encoders, False), (work.pairs, work.of_pairs, True)):
        by_metric = {}
        for name, metric in metrics_of_their_own().items():
            if (metric.of == "pair") is about_pairs:
                more = {"metric": name, "metric_version": metric.version}
                by_metric[name] = run(STAGE, "metrics", partial(_value, work, metric), more=more)
        for subject in subjects:
            by_name = {name: values[subject]["metrics"] for name, values in by_metric.items()}
            reasons = [f"{name}: {o.reason}" for name, o in by_name.items() if o.reason is not None]
            values = {name: o.value["value"] if o.value else None for name, o in by_name.items()}
            outcomes[subject] = {"metrics": Outcome(values, "; ".join(reasons) or None)}
    return outcomes


def _value(work: Work, metric: Metric, subject: Any, _: object) -> dict[str, float]:
    """A metric of an encoder or a pair."""
    if metric.of == "pair":
        value = metric(*(work.centroids(key) for key in subject))
    else:
        e = work.encoders[subject]
        value = metric(e.vectors, e.labels) if metric.of == "people" else metric(e.vectors)
    if not math.isfinite(value):
        raise BadCalibration(f"{metric.name} gave {value}, which is not a finite number")
    return {"value": value}


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
