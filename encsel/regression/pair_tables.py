"""Pair tables: measured face-voice pairs, from CSV tables and results of `encsel validate`."""

import csv
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encsel.errors import UsageError, nearest, printable
from encsel.regression.association import Values
from encsel.storage.files import read_whole
from encsel.storage.result import Edited, check_intact

VALIDATION_SCHEMAS = ("encsel.validate/1", "encsel.validate/2")
"""Schemas of results that can be read as a pair table."""
REPORT_FILE = "validation.json"
"""Name of the result in every folder of `encsel validate --report`."""
TEXT_COLUMNS = ("data_set", "face_encoder", "voice_encoder")
REQUIRED_COLUMNS = ("face_encoder", "voice_encoder", "n_identities", "eer")


@dataclass(frozen=True)
class PairFile:
    """File name of a pair table, without folder, and the SHA-256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class PairTable:
    """Measured face-voice pairs of one or several files.

    Attributes:
        data_set, face_encoder, voice_encoder: (pairs,) text; no combination twice.
        eer: (pairs,) fraction in [0, 1].
        columns: other columns with a finite number for each pair, (pairs,) each.
        unusable: the remaining columns, with the reason.
    """

    data_set: NDArray[np.str_]
    face_encoder: NDArray[np.str_]
    voice_encoder: NDArray[np.str_]
    eer: Values
    columns: Mapping[str, Values]
    unusable: Mapping[str, str]
    files: tuple[PairFile, ...]
    excluded: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.eer)

    def column(self, name: str) -> Values:
        """Numbers of a column; UsageError if it does not exist or is not numeric throughout."""
        if name in self.unusable:
            raise UsageError(self.unusable[name])
        if name not in self.columns:
            raise UsageError(f"No column {name!r} in {self.file_names}. {nearest(name, self.columns)}")
        return self.columns[name]

    @property
    def file_names(self) -> str:
        return " + ".join(file.name for file in self.files)


def read_pairs(
    paths: Sequence[str | Path], *, rows_per_identity: int | None = None, scorer: str = "reference"
) -> PairTable:
    """Read and pool pair tables (CSV with a header) and results of `encsel validate` (JSON).

    Args:
        paths: files. Tables need REQUIRED_COLUMNS; without a column `data_set` the file's stem names the data set.
        rows_per_identity: samples per identity, for tables without that column.
        scorer: scorer whose EERs (of centroids) are taken from results.
    Raises:
        UsageError: a file cannot be read, lacks a column, holds a value that is not a number, or repeats a pair.
    """
    if not paths:
        raise UsageError("No pair table was given; give at least one CSV file.")
    if rows_per_identity is not None and rows_per_identity < 1:
        raise UsageError(f"rows_per_identity is {rows_per_identity}; it must be at least 1.")
    files, rows, headers, is_needed = [], [], [], False
    for path in map(Path, paths):
        is_result = path.suffix.lower() == ".json"
        try:
            data = read_whole(path)
        except OSError as error:
            what = "result" if is_result else "pair table"
            raise UsageError(f"Cannot read the {what} {path}: {error.strerror}. Check the path.") from error
        header, file_rows = _rows_of_result(path, data, scorer) if is_result else _rows_of_table(path, data)
        if rows_per_identity is not None and "rows_per_identity" not in header:
            is_needed = True
            header = [*header, "rows_per_identity"]
            file_rows = [_Row(r.where, {**r.cells, "rows_per_identity": str(rows_per_identity)}) for r in file_rows]
        files.append(PairFile(path.name, hashlib.sha256(data).hexdigest()))
        headers.append((path.name, header))
        rows += file_rows

    seen: dict[tuple[str, ...], str] = {}
    for row in rows:
        key = tuple(row.cells[column] for column in TEXT_COLUMNS)
        if not all(key):
            raise UsageError(f"{row.where} has an empty face_encoder, voice_encoder or data_set. Fill it in.")
        if key in seen:
            raise UsageError(
                f"{row.where} repeats the pair {key[1]} x {key[2]} of data set {key[0]}, first seen in {seen[key]}. "
                "Remove one of them, or add a column data_set that separates the data sets."
            )
        seen[key] = row.where

    columns: dict[str, Values] = {}
    unusable: dict[str, str] = {}
    for column in dict.fromkeys(column for _, header in headers for column in header if column not in TEXT_COLUMNS):
        try:
            columns[column] = _numbers(column, rows, headers)
        except UsageError as error:
            if column in REQUIRED_COLUMNS or column == "rows_per_identity":
                raise
            unusable[column] = str(error)
    if rows_per_identity is not None and not is_needed:
        other = columns["rows_per_identity"][columns["rows_per_identity"] != rows_per_identity]
        if len(other):
            raise UsageError(
                f"A pair table states rows_per_identity {other[0]:g}, but {rows_per_identity} was given. "
                "Leave it out, or correct the table."
            )
    data_set, face, voice = (np.array([key[position] for key in seen]) for position in range(3))
    return PairTable(data_set, face, voice, columns.pop("eer"), columns, unusable, tuple(files))


def exclude(table: PairTable, encoders: Iterable[str]) -> PairTable:
    """The table without the pairs of these encoders; UsageError if one is in no pair."""
    names = tuple(dict.fromkeys(encoders))
    present = {*table.face_encoder.tolist(), *table.voice_encoder.tolist()}
    for name in names:
        if name not in present:
            raise UsageError(f"No pair in {table.file_names} has the encoder {name!r}. {nearest(name, present)}")
    keep = ~(np.isin(table.face_encoder, names) | np.isin(table.voice_encoder, names))
    arrays = {name: getattr(table, name)[keep] for name in (*TEXT_COLUMNS, "eer")}
    columns = {name: column[keep] for name, column in table.columns.items()}
    return replace(table, **arrays, columns=columns, excluded=(*table.excluded, *names))


@dataclass(frozen=True)
class _Row:
    where: str
    cells: Mapping[str, str]


def _rows_of_table(path: Path, data: bytes) -> tuple[list[str], list[_Row]]:
    """Header and rows of a CSV table."""
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        content = [(lines.line_num, [printable(cell.strip()) for cell in line]) for line in lines if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not CSV text in UTF-8 ({error}). Give a pair table.") from error
    header = content[0][1] if content else []
    if missing := [column for column in REQUIRED_COLUMNS if column not in header]:
        raise UsageError(
            f"{path} has no column {', '.join(missing)} (found: {ascii(', '.join(header))[1:-1][:200] or 'nothing'}). "
            f"A pair table needs {', '.join(REQUIRED_COLUMNS)} and a column per feature, separated by commas."
        )
    if repeated := sorted(column for column, n in Counter(header).items() if n > 1):
        raise UsageError(f"{path} has the column {', '.join(repeated)} twice. Rename or remove one.")
    if len(content) < 2:
        raise UsageError(f"{path} has a header and no pairs. Add a row per face-voice pair.")
    rows = []
    for line, cells in content[1:]:
        if len(cells) != len(header):
            raise UsageError(f"{path.name} line {line} has {len(cells)} fields; its header has {len(header)}. Fix it.")
        named = {"data_set": path.stem, **dict(zip(header, cells, strict=True))}
        rows.append(_Row(f"{path.name} line {line}", named))
    return list(rows[0].cells), rows


def _rows_of_result(path: Path, data: bytes, scorer: str) -> tuple[list[str], list[_Row]]:
    """Header and rows of the pairs with an EER in a result of `encsel validate`."""
    try:
        content = json.loads(data)
        if content["schema"] not in VALIDATION_SCHEMAS:
            raise UsageError(
                f"{path} has the schema {content['schema']!r}; give a result of `encsel validate` "
                f"({' or '.join(VALIDATION_SCHEMAS)})."
            )
        check_intact(content)
        rows = []
        for number, pair in enumerate(content["pairs"], start=1):
            if (measured := pair["measured"]) is None:
                continue
            by_scorer = measured["levels"]["identity"]
            if scorer not in by_scorer:
                raise UsageError(f"{path} has no EERs of the scorer {scorer!r}. {nearest(scorer, by_scorer)}")
            cells = {
                "data_set": path.absolute().parent.name if path.name == REPORT_FILE else path.stem,
                "face_encoder": str(pair["face"]),
                "voice_encoder": str(pair["voice"]),
                "n_identities": content["calibration"]["n_identities"],
                "n_train_identities": measured["n_train"],
                "n_test_identities": measured["n_test"],
                "rows_per_identity": pair["rows_per_identity"],
                "eer": by_scorer[scorer]["eer"],
                **pair["columns"],
            }
            named = {printable(name): "" if value is None else printable(str(value)) for name, value in cells.items()}
            rows.append(_Row(f"{path.name} pair {number}", named))
    except Edited as error:
        raise UsageError(f"{path} was damaged or edited: {error}. Give the JSON as encsel wrote it.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{path} is not a result of `encsel validate` ({error!r}). Give its JSON, or a CSV table."
        ) from error
    if not rows:
        raise UsageError(f"{path} has no pair with an EER. Run `encsel validate` without skipping the stage matching.")
    return list(dict.fromkeys(name for row in rows for name in row.cells)), rows


def _numbers(column: str, rows: Sequence[_Row], headers: Sequence[tuple[str, list[str]]]) -> Values:
    """(pairs,) float64; UsageError if the column is missing or lacks a valid number for a pair."""
    for file, header in headers:
        if column not in header:
            remedy = "pass --rows-per-identity" if column == "rows_per_identity" else "leave the feature out"
            raise UsageError(f"{file} has no column {column!r}, which another pair table has. Add it, or {remedy}.")
    numbers = []
    for row in rows:
        cell = row.cells.get(column, "")
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        needed = None
        if not math.isfinite(number):
            needed = "a finite number. Correct it or remove the pair"
        elif column == "eer" and not 0 <= number <= 1:
            needed = "a fraction from 0 to 1. Divide percentages by 100"
        elif column in ("n_identities", "rows_per_identity") and (number < 1 or not number.is_integer()):
            needed = "a whole number of at least 1. Correct it"
        if needed:
            shown = cell if math.isfinite(number) else repr(cell)
            raise UsageError(f"{column} in {row.where} is {shown}; it must be {needed}.")
        numbers.append(number)
    return np.array(numbers, dtype=np.float64)
