"""The study's tables and analysis rebuilt from its published figures."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from encsel.errors import UsageError
from encsel.regression.analysis import analyse
from encsel.regression.pair_tables import PairTable, exclude, read_pairs
from encsel.reports.validation import Section, correlation_row, form_row
from encsel.storage.documents import cards_folder
from encsel.storage.reading import read_whole

DATA_SETS = {"voxceleb1": "VoxCeleb1", "mavceleb": "MAV-Celeb"}
FORMS = ("cka", "ln_cka", "cka + id_mismatch", "cka + id_mismatch + gw_distance + spectral_gap")
SUSPECT = "arcface"
"""Its rows look broken: different people's centroids nearly coincide."""
_ENCODER_COLUMNS = (
    "encoder",
    "modality",
    "ambient_dim",
    "id_mle",
    "id_twonn",
    "mean_curvature_median",
    "compactness_gap",
)


def study(folder: Path | None = None) -> list[Section]:
    """Tables 2 and 3 for both data sets, the analysis of each, of both pooled, and without the suspect encoder.

    Args:
        folder: with `encoders_NAME.csv` and `pairs_NAME.csv` for voxceleb1 and mavceleb; None: the copies that encsel
            ships.
    Raises:
        UsageError: a file is missing or unlike that.
    """
    where = folder or cards_folder()
    tables = {name: read_pairs([where / f"pairs_{name}.csv"]) for name in DATA_SETS}
    found = []
    for name, title in DATA_SETS.items():
        found += [_encoders(where / f"encoders_{name}.csv", title), _pairs(tables[name], title)]
    pooled = read_pairs([where / f"pairs_{name}.csv" for name in DATA_SETS])
    sets = {**{DATA_SETS[name]: table for name, table in tables.items()}, "both pooled": pooled}
    sets[f"VoxCeleb1 without {SUSPECT}"] = exclude(tables["voxceleb1"], [SUSPECT])
    for title, table in sets.items():
        found += _analysis(table, title)
    return found


def _encoders(path: Path, title: str) -> Section:
    try:
        rows = list(csv.DictReader(io.StringIO(read_whole(path).decode("utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"Cannot read the table of encoders {path}: {error}. Check the folder.") from error
    if not rows or (missing := [c for c in _ENCODER_COLUMNS if c not in rows[0]]):
        lacking = ", ".join(missing) if rows else "rows"
        raise UsageError(f"{path} has no {lacking}; the study's table of encoders is needed.")
    try:
        cells = tuple(
            (
                row["encoder"], row["modality"], row["ambient_dim"], f"{float(row['id_mle']):.1f}",
                f"{float(row['id_twonn']):.1f}", f"{float(row['mean_curvature_median']):.4f}",
                f"{float(row['compactness_gap']):.3f}",
            )
            for row in rows
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} holds a value that is no number ({error}). Correct it.") from error
    header = ("Encoder", "Modality", "Ambient dim", "ID (MLE)", "ID (TwoNN)", "Mean curvature", "Compactness gap")
    note = "Mean curvature keeps the arbitrary sign of a normal, so its median is near 0 whatever the curvature is."
    return Section(f"Table 2, {title}: geometry of the encoders", header, cells, (note,))


def _pairs(table: PairTable, title: str) -> Section:
    columns = ("gw_distance", "spectral_gap", "cka", "id_mismatch")
    order = sorted(range(len(table)), key=lambda i: (table.face_encoder[i], table.voice_encoder[i]))
    rows = tuple(
        (
            str(table.face_encoder[i]), str(table.voice_encoder[i]), *(f"{table.column(c)[i]:.3f}" for c in columns),
            f"{table.eer[i]:.3f}",
        )
        for i in order
    )  # fmt: skip
    header = ("Face", "Voice", "GW dist.", "Spectral gap", "CKA", "ID mismatch", "EER")
    return Section(f"Table 3, {title}: pairs and their EER", header, rows, n_names=2)


def _analysis(table: PairTable, title: str) -> list[Section]:
    found = analyse(table, scorer="reference", seed=0)
    if found.baseline is None:
        raise UsageError(f"The pairs of {title} cannot be analysed: {found.reason}")
    rows = tuple(correlation_row(name, one) for name, one in found.columns.items())
    header = ("Number", "Spearman", "Bootstrap 95 %", "Crossed p", "Pearson", "Naive p")
    note = (
        "Crossed p: labels of encoders shuffled, as pairs share encoders. The study's p is the naive one of Spearman."
    )
    spearmen = ", ".join(f"{name} {one.rank.p:.4f}" for name, one in found.columns.items() if one.rank.p is not None)
    correlations = Section(
        f"Correlations with the EER, {title} ({len(table)} pairs)", header, rows,
        (note, f"Naive p of Spearman: {spearmen}."),
    )  # fmt: skip
    forms = {"no geometry: face effect + voice effect": found.baseline}
    forms |= {label: found.forms[label] for label in FORMS if label in found.forms}
    form_header = ("Form", "R2", "Adjusted", "Pair R2", "RMSE", "Face R2", "RMSE", "Voice R2", "RMSE")
    regressions = Section(
        f"Regressions, {title}", form_header, tuple(form_row(label, errors) for label, errors in forms.items()),
        ("Pair, Face, Voice: one pair, one face encoder, one voice encoder left out at a time.",),
    )  # fmt: skip
    return [correlations, regressions]
