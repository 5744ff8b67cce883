"""The numbers of every pair, by name: possible predictors of its EER, and what `encsel fit` reads."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encsel.metrics.registry import metrics
from encsel.regression.pair_tables import PairFile, PairTable
from encsel.validation.result import EncoderValidation, PairValidation
from encsel.validation.stage import stages, value_at


def metric_values(results: EncoderValidation | PairValidation, of: tuple[str, ...]) -> dict[str, float | None]:
    """Registered metrics of an encoder ("rows", "people") or a pair ("pair"), read from its results."""
    values: dict[str, float | None] = {}
    for stage in stages().values():
        values |= {name: value_at(results, path) for name, path in stage.metrics.items() if metrics()[name].of in of}
    return values | (results["metrics"] or {})


def pair_columns(pair: PairValidation, face: EncoderValidation, voice: EncoderValidation) -> dict[str, float | None]:
    """Every number of one pair: its metrics, those of its encoders combined, and further columns of stages."""
    of_pair = metric_values(pair, ("pair",))
    columns: dict[str, float | None] = {}
    in_stages = dict.fromkeys(name for stage in stages().values() for name in stage.metrics)
    for name in in_stages | dict.fromkeys(metrics()):
        metric = metrics()[name]
        sides = [value for e in (face, voice) if (value := e.metrics.get(name)) is not None]
        if metric.of == "pair":
            columns[metric.column or name] = of_pair.get(name)
        elif metric.combine is not None:
            combine = np.ptp if metric.combine == "difference" else np.mean
            columns[metric.column or name] = float(combine(sides)) if len(sides) == 2 else None
    for stage in stages().values():
        columns |= stage.columns(pair, face, voice)
    return columns


def column_label(column: str) -> tuple[str, str]:
    """Heading and unit of a column."""
    for name, metric in metrics().items():
        if column == (metric.column or name):
            return metric.label or name, metric.unit
    for stage in stages().values():
        for label, (heading, unit) in stage.labels.items():
            if label == column:
                return heading, unit
            if label.endswith("*") and column.startswith(label[:-1]):
                return heading.format(column.removeprefix(label[:-1])), unit
    return column, ""


def pair_table(pairs: Sequence[PairValidation], scorer: str) -> PairTable:
    """Pairs with a measured EER, and the columns that all of them have."""
    kept = [(p, m.eer) for p in pairs if (m := p.matching(scorer)) is not None]
    columns: dict[str, NDArray[np.float64]] = {}
    unusable = {}
    for name in dict.fromkeys(name for p, _ in kept for name in p.columns):
        values = [p.columns.get(name) for p, _ in kept]
        if n_lacking := sum(value is None for value in values):
            unusable[name] = f"{name} is missing for {n_lacking} of {len(kept)} pairs"
        else:
            columns[name] = np.array(values, dtype=np.float64)
    return PairTable(
        np.array(["this set"] * len(kept), dtype=np.str_),
        np.array([p.face for p, _ in kept], dtype=np.str_),
        np.array([p.voice for p, _ in kept], dtype=np.str_),
        np.array([eer for _, eer in kept], dtype=np.float64),
        columns,
        unusable,
        (PairFile("this set", ""),),
    )
