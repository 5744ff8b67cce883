"""Tables and analysis of the study behind encsel, rebuilt from its published figures."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping
from pathlib import Path

from encsel.errors import UsageError
from encsel.regression.analysis import analyse
from encsel.regression.pair_tables import PairTable, exclude, read_pairs
from encsel.reports.regression import BASELINE, correlations, regressions
from encsel.storage.documents import cards_folder
from encsel.storage.files import read_whole
from encsel.storage.sections import Section, number

DATA_SETS = {"voxceleb1": "VoxCeleb1", "mavceleb": "MAV-Celeb"}
FORMS = ("cka", "ln_cka", "cka + id_mismatch", "cka + id_mismatch + gw_distance + spectral_gap")
SUSPECT = "arcface"
"""Encoder whose rows look broken: centroids of different people nearly coincide."""
_SPREAD, _GAUSSIAN = "mean_curvature_std", "gaussian_curvature_median"
_ENCODER_COLUMNS = {
    "encoder": "Encoder", "modality": "Modality", "ambient_dim": "Ambient dim", "id_mle": "ID (MLE)",
    "id_twonn": "ID (TwoNN)", "mean_curvature_median": "Mean curvature", _SPREAD: "Curvature spread",
    _GAUSSIAN: "log|K|", "compactness_gap": "Compactness gap",
}  # fmt: skip
_DIGITS = {
    "id_mle": 1, "id_twonn": 1, "mean_curvature_median": 4, _SPREAD: 4, _GAUSSIAN: 2, "compactness_gap": 3
}  # fmt: skip


def study(folder: Path | None = None) -> list[Section]:
    """Tables 1 and 2 for both data sets, the analysis of each, of both pooled, and without the suspect encoder.

    Args:
        folder: folder with `encoders_NAME.csv` and `pairs_NAME.csv` for voxceleb1 and mavceleb; None: the shipped one.
    Raises:
        UsageError: a file is missing or malformed.
    """
    folder = folder or cards_folder()
    tables = {name: read_pairs([folder / f"pairs_{name}.csv"]) for name in DATA_SETS}
    sections = []
    for name, title in DATA_SETS.items():
        sections += [_encoders(folder / f"encoders_{name}.csv", title), _pairs(tables[name], title)]
    pooled = read_pairs([folder / f"pairs_{name}.csv" for name in DATA_SETS])
    sets = {**{DATA_SETS[name]: table for name, table in tables.items()}, "both pooled": pooled}
    sets[f"VoxCeleb1 without {SUSPECT}"] = exclude(tables["voxceleb1"], [SUSPECT])
    for title, table in sets.items():
        sections += _analysis(table, title)
    return sections


def _encoders(path: Path, title: str) -> Section:
    try:
        rows = list(csv.DictReader(io.StringIO(read_whole(path).decode("utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"Cannot read the table of encoders {path}: {error}. Check the folder.") from error
    if not rows or (missing := [c for c in _ENCODER_COLUMNS if c not in rows[0]]):
        lacking = ", ".join(missing) if rows else "rows"
        raise UsageError(f"{path} has no {lacking}. Give the study's table of encoders.")
    try:
        numbers = [{c: float(row[c]) for c in _DIGITS} for row in rows]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} holds a value that is not a number ({error}). Correct it.") from error
    spreads = {row["encoder"]: of[_SPREAD] for row, of in zip(rows, numbers, strict=True)}
    shown = [{**of, _GAUSSIAN: math.log(abs(of[_GAUSSIAN])) if of[_GAUSSIAN] else None} for of in numbers]
    cells = tuple(
        tuple(number(of[c], _DIGITS[c]) if c in of else row[c] for c in _ENCODER_COLUMNS)
        for row, of in zip(rows, shown, strict=True)
    )
    notes = (
        "Mean curvature has the arbitrary sign of a normal, so its median is near 0 for any curvature. Curvature "
        "spread: its standard deviation over points. log|K|: natural logarithm of the median Gaussian curvature.",
        *_concentration(spreads),
    )
    return Section(f"Table 1, {title}: geometry of the encoders", tuple(_ENCODER_COLUMNS.values()), cells, notes)


def _concentration(spreads: Mapping[str, float]) -> tuple[str, ...]:
    """What the spreads of curvature, by encoder, say of the study's claim about the suspect encoder."""
    if SUSPECT not in spreads:
        return ()
    least = min(spreads, key=lambda name: spreads[name])
    own, place = spreads[SUSPECT], sorted(spreads.values()).index(spreads[SUSPECT]) + 1
    verdict = "bear that out" if least == SUSPECT else "contradict that"
    return (
        f"The study says that {SUSPECT} has the most concentrated curvature. These figures {verdict}: its spread is "
        f"{own:.4f}, number {place} of {len(spreads)} from the smallest, which is {spreads[least]:.4f} ({least}).",
    )


def _pairs(table: PairTable, title: str) -> Section:
    columns = [table.column(name) for name in ("gw_distance", "spectral_gap", "cka", "id_mismatch")] + [table.eer]
    rows = sorted(
        (str(face), str(voice), *(f"{column[i]:.3f}" for column in columns))
        for i, (face, voice) in enumerate(zip(table.face_encoder, table.voice_encoder, strict=True))
    )
    header = ("Face", "Voice", "GW dist.", "Spectral gap", "CKA", "ID mismatch", "EER")
    return Section(f"Table 2, {title}: pairs and their EER", header, tuple(rows), n_names=2)


def _analysis(table: PairTable, title: str) -> list[Section]:
    analysis = analyse(table, scorer="reference", seed=0)
    if analysis.baseline is None:
        raise UsageError(f"The pairs of {title} cannot be analysed: {analysis.reason}")
    ranks = {name: one.rank.p for name, one in analysis.columns.items() if one.rank.p is not None}
    published = ", ".join(f"{name} {p:.4f}" for name, p in ranks.items())
    table_of_columns = correlations(analysis, f"Correlations with the EER, {title} ({len(table)} pairs)")
    note = f"The study reports the naive p of Spearman: {published}."
    forms = {BASELINE: analysis.baseline}
    forms |= {label: analysis.forms[label] for label in FORMS if label in analysis.forms}
    return [
        dataclasses.replace(table_of_columns, notes=(*table_of_columns.notes, note)),
        regressions(forms, f"Regressions, {title}"),
    ]
