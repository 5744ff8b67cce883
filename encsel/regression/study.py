"""The study behind encsel: its published numbers, and their analysis."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from encsel.errors import UsageError
from encsel.regression.analysis import Analysis, analyse
from encsel.regression.pair_tables import PairTable, exclude, read_pairs
from encsel.storage.documents import cards_folder
from encsel.storage.files import read_whole
from encsel.storage.result import Result

STUDY_SCHEMA = "encsel.study/1"
DATA_SETS = {"voxceleb1": "VoxCeleb1", "mavceleb": "MAV-Celeb"}
FEATURES = ("cka", "id_mismatch", "gw_distance", "spectral_gap")
"""The numbers about each pair that the study sets against the EER, in its order."""
SUSPECT = "arcface"
"""Encoder whose rows look broken: centroids of different people nearly coincide."""
_NUMBERS = (
    "ambient_dim", "id_mle", "id_twonn", "mean_curvature_median", "mean_curvature_std", "gaussian_curvature_median",
    "compactness_gap",
)  # fmt: skip


@dataclass(frozen=True)
class StudyEncoder:
    """A row of Table 1: the geometry of an encoder on a data set.

    Attributes:
        mean_curvature_std: standard deviation over points.
        log_gaussian_curvature: natural logarithm of the absolute median; None if the median is 0.
    """

    data_set: str
    encoder: str
    modality: str
    ambient_dim: int
    id_mle: float
    id_twonn: float
    mean_curvature_median: float
    mean_curvature_std: float
    gaussian_curvature_median: float
    log_gaussian_curvature: float | None
    compactness_gap: float


@dataclass(frozen=True)
class StudyPair:
    """A row of Table 2: the geometry of a pair on a data set, and its EER."""

    data_set: str
    face: str
    voice: str
    gw_distance: float
    spectral_gap: float
    cka: float
    id_mismatch: float
    eer: float


@dataclass(frozen=True, eq=False, repr=False)
class Study(Result):
    """The study's tables, and the analysis of each data set, of both pooled, and without the suspect encoder."""

    schema: str
    encoders: tuple[StudyEncoder, ...]
    pairs: tuple[StudyPair, ...]
    analyses: Mapping[str, Analysis]


def study(folder: Path | None = None) -> Study:
    """Rebuild the study from its published numbers.

    Args:
        folder: folder with `encoders_NAME.csv` and `pairs_NAME.csv` for voxceleb1 and mavceleb; None: the shipped one.
    Raises:
        UsageError: a file is missing or malformed.
    """
    folder = folder or cards_folder()
    files = {name: folder / f"pairs_{name}.csv" for name in DATA_SETS}
    tables = {DATA_SETS[name]: read_pairs([path]) for name, path in files.items()}
    encoders = [one for name in DATA_SETS for one in _encoders(folder / f"encoders_{name}.csv", DATA_SETS[name])]
    pairs = [one for title, table in tables.items() for one in _pairs(table, title)]
    sets = {**tables, "both pooled": read_pairs(list(files.values()))}
    sets[f"VoxCeleb1 without {SUSPECT}"] = exclude(tables["VoxCeleb1"], [SUSPECT])
    analyses = {title: analyse(table, scorer="reference", seed=0) for title, table in sets.items()}
    for title, analysis in analyses.items():
        if analysis.reason:
            raise UsageError(f"The pairs of {title} cannot be analysed: {analysis.reason}")
    return Study(STUDY_SCHEMA, tuple(encoders), tuple(pairs), analyses)


def _encoders(path: Path, data_set: str) -> list[StudyEncoder]:
    try:
        rows = list(csv.DictReader(io.StringIO(read_whole(path).decode("utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"Cannot read the table of encoders {path}: {error}. Check the folder.") from error
    if not rows or (missing := [c for c in ("encoder", "modality", *_NUMBERS) if c not in rows[0]]):
        lacking = ", ".join(missing) if rows else "rows"
        raise UsageError(f"{path} has no {lacking}. Give the study's table of encoders.")
    encoders = []
    for row in rows:
        try:
            numbers = {column: _finite(row[column]) for column in _NUMBERS}
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path} holds a value that is not a number ({error}). Correct it.") from error
        curvature = abs(numbers["gaussian_curvature_median"])
        encoders.append(
            StudyEncoder(
                data_set, row["encoder"], row["modality"], int(numbers.pop("ambient_dim")), **numbers,
                log_gaussian_curvature=math.log(curvature) if curvature else None,
            )
        )  # fmt: skip
    return encoders


def _finite(cell: str) -> float:
    number = float(cell)
    if not math.isfinite(number):
        raise ValueError(f"{cell!r} is not finite")
    return number


def _pairs(table: PairTable, data_set: str) -> list[StudyPair]:
    columns = {name: table.column(name).tolist() for name in FEATURES}
    pairs = zip(table.face_encoder.tolist(), table.voice_encoder.tolist(), table.eer.tolist(), strict=True)
    return sorted(
        (
            StudyPair(data_set, face, voice, eer=eer, **{name: values[i] for name, values in columns.items()})
            for i, (face, voice, eer) in enumerate(pairs)
        ),
        key=lambda p: (p.face, p.voice),
    )
