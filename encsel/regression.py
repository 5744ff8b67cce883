"""Regression cards: read measured pairs, fit EER to geometry, keep the fit in a file, apply it."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import hashlib
import io
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from encsel import association, files
from encsel.association import Association, Values
from encsel.errors import UsageError, nearest

SCHEMA: Final = "encsel.card/1"
CHANCE_EER = 0.5

METRIC_OF_COLUMN: Mapping[str, str] = {"cka": "cka_biased", "id_mismatch": "mle_median"}
"""Pair-table column -> the encsel metric that makes it. Other columns go by the metric of their own name, if any."""

REQUIRED_COLUMNS = ("face_encoder", "voice_encoder", "n_identities", "eer")

Transform = Literal["identity", "ln"]
LN_PREFIX = "ln_"


@dataclass(frozen=True)
class Feature:
    """One term of a regression: `coefficient` times the column's value, or its natural log.

    Attributes:
        metric, metric_version: the encsel metric behind the column; None when none makes it.
        n_identities, rows_per_identity: sizes the column was measured at; None when unknown or not all the same.
        range: smallest and largest training value, before the transform.
        reason: why any of the four above is None.
    """

    name: str
    transform: Transform
    metric: str | None
    metric_version: int | None
    n_identities: int | None
    rows_per_identity: int | None
    coefficient: float
    range: tuple[float, float]
    reason: str | None = None

    @property
    def label(self) -> str:
        """As `encsel fit --features` takes it: `cka`, `ln_cka`."""
        return (LN_PREFIX if self.transform == "ln" else "") + self.name


@dataclass(frozen=True)
class LeftOutErrors:
    """Errors on pairs that the fit did not see, one group left out at a time.

    `r2` is 1 - SSE/SST with SST around the mean of all pairs: 0 is no better than that mean, negative is worse.
    """

    r2: float | None
    rmse: float | None
    n_groups: int
    reason: str | None = None


@dataclass(frozen=True)
class FitErrors:
    """How well one form holds on its own pairs and on pairs left out. None where `reason` says why."""

    n_parameters: int
    r2: float | None
    adjusted_r2: float | None
    rmse: float | None
    leave_pair: LeftOutErrors
    leave_face: LeftOutErrors
    leave_voice: LeftOutErrors
    reason: str | None = None


@dataclass(frozen=True)
class PairFile:
    """A pair table's file name (no folder) and the SHA-256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Prediction:
    """What a card says about one face-voice pair.

    Attributes:
        eer: predicted EER clipped to [0, 0.5]; None when `reason` says why.
        raw: the same before clipping.
        interval: about `eer`, clipped to [0, 0.5]; None when the card has no grouped error.
        outside: one sentence per feature outside the card's training range.
    """

    eer: float | None
    raw: float | None
    interval: tuple[float, float] | None
    outside: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Card:
    """A fitted regression of EER on geometry, with what it was made from and how well it holds.

    Attributes:
        form: "log" when any feature enters by its logarithm, else "linear".
        target: what is predicted: name, scorer, n_train_identities, n_test_identities (None when not all the same).
        residual_sd: spread of the residuals, standard deviation with degrees of freedom taken off.
        baseline_errors: the same errors for face effect + voice effect, no geometry at all.
        associations: rank association with the EER of each feature's column.
        excluded: encoders left out of the tables before fitting.
        seed: of the bootstrap and of a permutation that is not exact.
    """

    schema: Literal["encsel.card/1"] = SCHEMA
    name: str
    form: Literal["linear", "log"]
    features: tuple[Feature, ...]
    intercept: float
    target: Mapping[str, str | int | None]
    residual_sd: float
    n_pairs: int
    errors: FitErrors
    baseline_errors: FitErrors
    associations: Mapping[str, Association]
    source: str
    pair_tables: tuple[PairFile, ...]
    excluded: tuple[str, ...]
    seed: int

    @functools.cached_property
    def sha256(self) -> str:
        """Checksum of the card's canonical JSON without this key."""
        return _checksum(dataclasses.asdict(self))

    @property
    def sizes_mixed(self) -> bool:
        """The card pools pairs measured on different numbers of identities.

        Biased CKA and ID mismatch mean something else at each n, so no single n fits such a card and `rank` refuses it.
        """
        return any(feature.n_identities is None for feature in self.features)

    @property
    def equation(self) -> str:
        terms = (
            f" {'-' if f.coefficient < 0 else '+'} {abs(f.coefficient):.4g} "
            + (f"ln({f.name})" if f.transform == "ln" else f.name)
            for f in self.features
        )
        return f"eer = {self.intercept:.4g}" + "".join(terms)

    def apply(self, values: Mapping[str, float], coverage: float = 0.9) -> Prediction:
        """EER predicted from a pair's values, by feature name and untransformed.

        The interval is provisional. Its half-width is the Student t quantile (degrees of freedom = encoders left out
        in turn - 1) times the RMSE of leaving out face encoders or voice encoders, whichever is wider. It covers the
        card's error for an unseen encoder, not the sampling error of the calibration set the values come from.

        Raises:
            UsageError: a feature is missing or not finite, or coverage is not in (0, 1).
        """
        if not 0 < coverage < 1:
            raise UsageError(f"The coverage is {coverage}; a share between 0 and 1 is needed, such as 0.9.")
        for feature in self.features:
            if feature.name not in values:
                raise UsageError(
                    f"The card {self.name} needs {feature.name}, which was not given "
                    f"(given: {', '.join(sorted(values)) or 'nothing'}). Compute it or choose another card."
                )
            if not math.isfinite(values[feature.name]):
                raise UsageError(
                    f"{feature.name} is {values[feature.name]}; the card {self.name} needs a finite number. "
                    "Leave this pair out."
                )
        outside = tuple(
            f"{name} {values[name]:.4g} is {side} the card's training range {low:.4g} to {high:.4g}"
            for name, (low, high) in {f.name: f.range for f in self.features}.items()
            for side in (("below",) if values[name] < low else ("above",) if values[name] > high else ())
        )
        raw = self.intercept
        for feature in self.features:
            value = float(values[feature.name])
            if feature.transform == "ln":
                if value <= 0:
                    reason = f"{feature.name} is {value:.4g}, and the card takes its logarithm"
                    return Prediction(None, None, None, outside, reason)
                value = math.log(value)
            raw += feature.coefficient * value
        eer = min(max(raw, 0.0), CHANCE_EER)
        half = self._half_width(coverage)
        # About the clipped value: about a raw value far below 0 the clipped interval would shrink to nothing.
        interval = None if half is None else (max(eer - half, 0.0), min(eer + half, CHANCE_EER))
        return Prediction(eer, raw, interval, outside)

    def _half_width(self, coverage: float) -> float | None:
        from scipy.special import stdtrit

        widths = [
            float(stdtrit(left_out.n_groups - 1, (1 + coverage) / 2)) * left_out.rmse
            for left_out in (self.errors.leave_face, self.errors.leave_voice)
            if left_out.rmse is not None
        ]
        return max(widths, default=None)


@dataclass(frozen=True)
class PairTable:
    """Measured face-voice pairs of one file or several, one row each.

    Attributes:
        data_set, face_encoder, voice_encoder: (pairs,) text; no combination twice.
        eer: (pairs,) share in [0, 1].
        columns: every other column that holds a finite number for each pair, (pairs,) each.
        unusable: the columns that do not, each with a sentence that says why.
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
        """That column's numbers.

        Raises:
            UsageError: no such column, or one that is not numeric throughout.
        """
        if name in self.unusable:
            raise UsageError(self.unusable[name])
        if name not in self.columns:
            raise UsageError(f"No column {name!r} in {self.file_names}. {nearest(name, self.columns)}")
        return self.columns[name]

    @property
    def file_names(self) -> str:
        return " + ".join(file.name for file in self.files)


def read_pairs(paths: Sequence[str | Path], *, rows_per_identity: int | None = None) -> PairTable:
    """Pair tables (CSV with a header), pooled.

    Args:
        paths: each with REQUIRED_COLUMNS; without a `data_set` column the file's stem names its data set.
        rows_per_identity: samples per person behind the numbers, for tables that have no such column.
    Raises:
        UsageError: a file cannot be read, lacks a column, holds a value that is no number, or repeats a pair.
    """
    if not paths:
        raise UsageError("No pair table was given; name at least one CSV file.")
    if rows_per_identity is not None and rows_per_identity < 1:
        raise UsageError(f"rows_per_identity is {rows_per_identity}; 1 or more are needed.")
    read, rows, headers = [], [], []
    for path in map(Path, paths):
        file, header, of_file = _read_file(path, rows_per_identity)
        read.append(file)
        headers.append((path.name, header))
        rows += of_file

    seen: dict[tuple[str, ...], str] = {}
    for row in rows:
        key = tuple(row.cells[column] for column in ("data_set", "face_encoder", "voice_encoder"))
        if not all(key):
            raise UsageError(f"{row.where} names no face_encoder, voice_encoder or data_set. Fill it in.")
        if key in seen:
            raise UsageError(
                f"{row.where} repeats the pair {key[1]} x {key[2]} of data set {key[0]}, first seen in {seen[key]}. "
                "Remove one of them, or tell the data sets apart in a data_set column."
            )
        seen[key] = row.where

    text = {"data_set", "face_encoder", "voice_encoder"}
    columns: dict[str, Values] = {}
    unusable: dict[str, str] = {}
    for column in dict.fromkeys(column for _, header in headers for column in header if column not in text):
        numbers = _numbers(column, rows, headers)
        if isinstance(numbers, str):
            if column in REQUIRED_COLUMNS or column == "rows_per_identity":
                raise UsageError(numbers)
            unusable[column] = numbers
        else:
            columns[column] = numbers
    if rows_per_identity is not None and np.any((stated := columns["rows_per_identity"]) != rows_per_identity):
        raise UsageError(
            f"A pair table says rows_per_identity {stated[stated != rows_per_identity][0]:g}, the call says "
            f"{rows_per_identity}. Leave it out of the call, or correct the table."
        )
    data_set, face, voice = (np.array([key[position] for key in seen]) for position in range(3))
    return PairTable(data_set, face, voice, columns.pop("eer"), columns, unusable, tuple(read))


def exclude(table: PairTable, encoders: Iterable[str]) -> PairTable:
    """The table without every pair that has one of those encoders on either side.

    Raises:
        UsageError: an encoder is in no pair; names the nearest.
    """
    names = tuple(dict.fromkeys(encoders))
    known = {*table.face_encoder.tolist(), *table.voice_encoder.tolist()}
    for name in names:
        if name not in known:
            raise UsageError(f"No pair in {table.file_names} has the encoder {name!r}. {nearest(name, known)}")
    keep = ~(np.isin(table.face_encoder, names) | np.isin(table.voice_encoder, names))
    return PairTable(
        table.data_set[keep], table.face_encoder[keep], table.voice_encoder[keep], table.eer[keep],
        {name: column[keep] for name, column in table.columns.items()}, table.unusable, table.files,
        (*table.excluded, *names),
    )  # fmt: skip


def fit(
    table: PairTable,
    features: Sequence[str],
    *,
    name: str,
    metric_versions: Mapping[str, int],
    scorer: str = "reference",
    source: str = "",
    seed: int = 0,
) -> Card:
    """Least-squares card of the EER on `features`, with its errors.

    Args:
        features: column names; the prefix `ln_` takes the natural log.
        metric_versions: encsel's metrics and their versions, to be written into the card.
        scorer: what measured the EERs of the table.
    Raises:
        UsageError: an unusable column, too few pairs or encoders, or features that carry the same information.
    """
    specs, design = _checked_design(table, features)
    coefficients = _solve(design, table.eer)
    residuals = table.eer - design @ coefficients
    n_identities, sizes_reason = _one_count(table, "n_identities")
    rows_per_identity, rows_reason = _one_count(table, "rows_per_identity")

    def feature(spec: tuple[str, Transform], coefficient: float) -> Feature:
        column, transform = spec
        metric = METRIC_OF_COLUMN.get(column, column)
        version = metric_versions.get(metric)
        metric_reason = None if version is not None else f"no metric of this encsel makes {column}"
        reasons = [reason for reason in (metric_reason, sizes_reason, rows_reason) if reason]
        values = table.columns[column]
        return Feature(
            column, transform, None if version is None else metric, version, n_identities, rows_per_identity,
            float(coefficient), (float(values.min()), float(values.max())), "; ".join(reasons) or None,
        )  # fmt: skip

    train, train_reason = _one_count(table, "n_train_identities")
    test, test_reason = _one_count(table, "n_test_identities")
    target: dict[str, str | int | None] = {
        "name": "eer",
        "scorer": scorer,
        "n_train_identities": train,
        "n_test_identities": test,
    }
    if reasons := [reason for reason in (train_reason, test_reason) if reason]:
        target["reason"] = "; ".join(reasons)
    return Card(
        name=name,
        form="log" if any(transform == "ln" for _, transform in specs) else "linear",
        features=tuple(feature(spec, coefficient) for spec, coefficient in zip(specs, coefficients[1:], strict=True)),
        intercept=float(coefficients[0]),
        target=target,
        residual_sd=math.sqrt(float(residuals @ residuals) / (len(table) - design.shape[1])),
        n_pairs=len(table),
        errors=_errors(table, functools.partial(_predict_linear, design, table.eer), design.shape[1]),
        baseline_errors=baseline_errors(table),
        associations=associations(table, [column for column, _ in specs], seed=seed),
        source=source,
        pair_tables=table.files,
        excluded=table.excluded,
        seed=seed,
    )


def form_errors(table: PairTable, features: Sequence[str]) -> FitErrors:
    """How well EER ~ features holds on the table; the errors that `fit` puts into its card.

    Raises:
        UsageError: as `fit`.
    """
    _, design = _checked_design(table, features)
    return _errors(table, functools.partial(_predict_linear, design, table.eer), design.shape[1])


def baseline_errors(table: PairTable) -> FitErrors:
    """The same errors for face effect + voice effect within each data set: encoder names only, no geometry.

    Effects sum to zero, so an encoder that was left out gets the mean effect of the others.
    """
    everything = np.ones(len(table), dtype=bool)
    n_parameters = _additive_design(table, everything, everything).shape[1]
    return _errors(table, functools.partial(_predict_additive, table), n_parameters)


def associations(table: PairTable, columns: Iterable[str], *, seed: int) -> dict[str, Association]:
    """Rank association with the EER of each column, by name."""
    return {
        column: association.associate(
            table.column(column), table.eer, table.face_encoder, table.voice_encoder, table.data_set, seed=seed
        )
        for column in dict.fromkeys(columns)
    }


def check_metric_versions(card: Card, versions: Mapping[str, int]) -> None:
    """Nothing, when encsel's metrics are those the card was fitted on.

    Raises:
        UsageError: a feature has no metric here, or one of another version; says how to refit.
    """
    for feature in card.features:
        if feature.metric is None:
            raise UsageError(
                f"The card {card.name} needs {feature.name}, which no metric of encsel makes. "
                "Choose another card, or refit it on columns that encsel computes."
            )
        here = versions.get(feature.metric)
        if here != feature.metric_version:
            found = f"version {here}" if here is not None else "no such metric"
            raise UsageError(
                f"The card {card.name} was fitted on {feature.name} by {feature.metric} version "
                f"{feature.metric_version}; this encsel has {found}, whose values are not comparable. "
                "Refit the card with this encsel (`encsel fit`), or use the encsel that made it."
            )


def cards_folder() -> Path:
    """The folder of shipped cards: inside the installed package, else beside it in a checkout.

    Raises:
        UsageError: neither is there.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "pretrained_regression", package.parent / "pretrained_regression"):
        if folder.is_dir():
            return folder
    raise UsageError(
        f"No folder pretrained_regression in or beside {package}. Reinstall encsel, or give a card's path."
    )


def shipped_cards() -> tuple[str, ...]:
    """Names of the shipped regression cards, sorted; other JSON files in the folder are not theirs."""
    return tuple(sorted(path.stem for path in cards_folder().glob("*.json") if not _is_foreign(path)))


def load_card(name_or_path: str) -> Card:
    """A shipped card by name, or any card by the path of its JSON file.

    Raises:
        UsageError: no such card (names the nearest), or a file that is damaged, edited or no card.
    """
    text = str(name_or_path)
    if text in (known := shipped_cards()):
        return _card_from(cards_folder() / f"{text}.json")
    path = Path(text)
    if path.suffix == ".json" or len(path.parts) > 1 or path.is_file():
        return _card_from(path)
    raise UsageError(f"No regression card is named {text!r}. {nearest(text, known)} A path to a .json card works, too.")


def card_text(card: Card) -> str:
    """The card as JSON, full precision, checksum last, newline at the end."""
    content = {**dataclasses.asdict(card), "sha256": card.sha256}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def save_card(card: Card, path: str | Path) -> None:
    """Write the card; the file is there whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        files.write_public(Path(path), card_text(card).encode())
    except OSError as error:
        raise UsageError(f"Cannot write the card to {path}: {error.strerror}. Choose another --output.") from error


# Reading pair tables


@dataclass(frozen=True)
class _Row:
    where: str
    cells: Mapping[str, str]


def _read_file(path: Path, rows_per_identity: int | None) -> tuple[PairFile, list[str], list[_Row]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read the pair table {path}: {error.strerror}. Check the path.") from error
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        content = [(lines.line_num, [cell.strip() for cell in line]) for line in lines if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no CSV text ({error}); a pair table in UTF-8 is needed.") from error
    header = content[0][1] if content else []
    if missing := [column for column in REQUIRED_COLUMNS if column not in header]:
        raise UsageError(
            f"{path} has no column {', '.join(missing)} (found: {_shortened(header)}). "
            f"A pair table needs {', '.join(REQUIRED_COLUMNS)} and a column per feature, separated by commas."
        )
    if doubled := sorted({column for column in header if header.count(column) > 1}):
        raise UsageError(f"{path} has the column {', '.join(doubled)} twice. Rename or remove one.")
    if len(content) < 2:
        raise UsageError(f"{path} has a header and no pairs. Add a row per face-voice pair.")
    rows = []
    for line, cells in content[1:]:
        if len(cells) != len(header):
            raise UsageError(f"{path.name} line {line} has {len(cells)} fields; its header has {len(header)}. Fix it.")
        named = {"data_set": path.stem, **dict(zip(header, cells, strict=True))}
        if rows_per_identity is not None:
            named.setdefault("rows_per_identity", str(rows_per_identity))
        rows.append(_Row(f"{path.name} line {line}", named))
    return PairFile(path.name, hashlib.sha256(data).hexdigest()), list(rows[0].cells), rows


def _shortened(names: Sequence[str], limit: int = 200) -> str:
    text = ascii(", ".join(names))[1:-1] or "nothing"
    return text if len(text) <= limit else f"{text[:limit]}..."


def _numbers(column: str, rows: Sequence[_Row], headers: Sequence[tuple[str, list[str]]]) -> Values | str:
    """(pairs,) float64, or the sentence that says why not."""
    for file, header in headers:
        if column not in header:
            return f"{file} has no column {column!r}, which another pair table has. Add it, or leave the feature out."
    numbers = []
    for row in rows:
        cell = row.cells[column]
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            return f"{column} in {row.where} is {cell!r}; a finite number is needed. Correct it or remove the pair."
        if column == "eer" and not 0 <= number <= 1:
            return f"eer in {row.where} is {cell}; a share from 0 to 1 is needed. Divide percentages by 100."
        if column in ("n_identities", "rows_per_identity") and (number < 1 or not number.is_integer()):
            return f"{column} in {row.where} is {cell}; a whole number of at least 1 is needed. Correct it."
        numbers.append(number)
    return np.array(numbers, dtype=np.float64)


def _one_count(table: PairTable, column: str) -> tuple[int | None, str | None]:
    """The column's value when all pairs agree, else None and why."""
    if column not in table.columns:
        return None, f"{column} is not known"
    counts = np.unique(table.columns[column])
    if len(counts) == 1:
        return int(counts[0]), None
    return None, f"{column} is not the same for all pairs: {', '.join(f'{count:g}' for count in counts)}"


# Fitting

Predict = Callable[[NDArray[np.bool_], NDArray[np.bool_]], Values]
"""(pairs,) masks of the pairs to fit on and to predict -> the predictions. Raises _CannotFit."""


class _CannotFit(Exception):
    """The pairs that are left do not determine the coefficients."""


def _parse_feature(text: str) -> tuple[str, Transform]:
    if text.startswith(LN_PREFIX):
        return text.removeprefix(LN_PREFIX), "ln"
    return text, "identity"


def _checked_design(table: PairTable, features: Sequence[str]) -> tuple[list[tuple[str, Transform]], Values]:
    """Features as (column, transform), and the (pairs, 1 + features) matrix with a column of ones first."""
    if not features or not all(features):
        raise UsageError("A feature has no name; give column names separated by commas, such as cka,id_mismatch.")
    if len(set(features)) < len(features):
        raise UsageError(f"A feature is named twice in {', '.join(features)}. Name each once.")
    specs = [_parse_feature(text) for text in features]
    columns = [np.ones(len(table))]
    for column, transform in specs:
        values = table.column(column)
        if transform == "ln":
            if (bad := values <= 0).any():
                at = int(bad.argmax())
                pair = f"{table.face_encoder[at]} x {table.voice_encoder[at]}"
                raise UsageError(
                    f"{column} is {values[at]:g} for {pair}, which has no logarithm. "
                    f"Use {column} without {LN_PREFIX}, or exclude an encoder."
                )
            values = np.log(values)
        columns.append(values)
    design = np.column_stack(columns)

    where = table.file_names + (f" without {', '.join(table.excluded)}" if table.excluded else "")
    for modality, labels in (("face", table.face_encoder), ("voice", table.voice_encoder)):
        if (n_found := len(np.unique(labels))) < 2:
            raise UsageError(
                f"{n_found} {modality} encoder{'' if n_found == 1 else 's'} in {where}; at least 2 are needed to tell "
                f"how a card holds for an unseen one. Add pairs with another {modality} encoder."
            )
    if len(table) < design.shape[1] + 1:
        raise UsageError(
            f"{len(table)} pairs in {where}; {len(features)} features need at least {design.shape[1] + 1}. "
            "Add pairs or take fewer features."
        )
    if np.ptp(table.eer) == 0:
        raise UsageError(f"Every eer in {where} is {table.eer[0]:g}; there is nothing to fit. Add pairs that differ.")
    for text, values in zip(features, design.T[1:], strict=True):
        if np.ptp(values) == 0:
            raise UsageError(f"{text} is the same for every pair in {where}; it explains nothing. Leave it out.")
    if _rank(design) < design.shape[1]:
        raise UsageError(
            f"The features {', '.join(features)} determine one another in {where}, so their coefficients are not "
            "unique. Leave one out."
        )
    return specs, design


def _rank(design: Values) -> int:
    """Rank with every column at the same scale, so that units do not decide it."""
    scale = np.linalg.norm(design, axis=0)
    return int(np.linalg.matrix_rank(design / np.where(scale > 0, scale, 1)))


def _solve(design: Values, eer: Values) -> Values:
    if len(eer) == 0 or _rank(design) < design.shape[1]:
        raise _CannotFit(f"the {len(eer)} pairs left do not determine {design.shape[1]} coefficients")
    return np.asarray(np.linalg.lstsq(design, eer, rcond=None)[0])


def _predict_linear(design: Values, eer: Values, train: NDArray[np.bool_], test: NDArray[np.bool_]) -> Values:
    return np.asarray(design[test] @ _solve(design[train], eer[train]))


def _predict_additive(table: PairTable, train: NDArray[np.bool_], test: NDArray[np.bool_]) -> Values:
    for data_set in np.unique(table.data_set[test]):
        if data_set not in table.data_set[train]:
            raise _CannotFit(f"no pair of {data_set} is left")
    coefficients = _solve(_additive_design(table, train, train), table.eer[train])
    return np.asarray(_additive_design(table, train, test) @ coefficients)


def _additive_design(table: PairTable, train: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Values:
    """Rows of the design whose effects are those of the encoders in `train`: mean, faces, voices, per data set."""
    blocks = []
    for data_set in np.unique(table.data_set[train]):
        inside = table.data_set == data_set
        block = [np.ones((int(rows.sum()), 1))]
        for labels in (table.face_encoder, table.voice_encoder):
            known = np.unique(labels[train & inside])
            # Sum-to-zero coding: the last encoder's effect is minus the sum of the others', an unknown one's is zero.
            coding = np.vstack([np.eye(len(known) - 1), -np.ones(len(known) - 1)])
            match = (labels[rows][:, None] == known).astype(np.float64)
            block.append(match @ coding)
        blocks.append(np.hstack(block) * inside[rows][:, None])
    return np.hstack(blocks)


def _errors(table: PairTable, predict: Predict, n_parameters: int) -> FitErrors:
    def left_out(groups: NDArray[Any]) -> LeftOutErrors:
        predicted = np.empty(len(table))
        names = np.unique(groups)
        for name in names:
            inside = groups == name
            try:
                predicted[inside] = predict(~inside, inside)
            except _CannotFit as error:
                return LeftOutErrors(None, None, len(names), f"without {name}, {error}")
        r2, rmse = _r2_rmse(table.eer, predicted)
        return LeftOutErrors(r2, rmse, len(names))

    numbers = np.array([f"pair {number}" for number in range(1, len(table) + 1)])
    grouped = (left_out(numbers), left_out(table.face_encoder), left_out(table.voice_encoder))
    everything = np.ones(len(table), dtype=bool)
    try:
        r2, rmse = _r2_rmse(table.eer, predict(everything, everything))
    except _CannotFit as error:
        return FitErrors(n_parameters, None, None, None, *grouped, str(error))
    spare = len(table) - n_parameters
    if spare < 1:
        return FitErrors(n_parameters, r2, None, rmse, *grouped, f"{n_parameters} parameters for {len(table)} pairs")
    return FitErrors(n_parameters, r2, 1 - (1 - r2) * (len(table) - 1) / spare, rmse, *grouped)


def _r2_rmse(eer: Values, predicted: Values) -> tuple[float, float]:
    """R2 around the mean of `eer`, and the root mean squared error."""
    squared = float(np.sum((eer - predicted) ** 2))
    return 1 - squared / float(np.sum((eer - eer.mean()) ** 2)), math.sqrt(squared / len(eer))


# Card files


def _checksum(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _json(path: Path) -> Any:
    """What the file holds; ValueError or RecursionError when that is not JSON."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(path.read_bytes().decode("utf-8"), parse_constant=refuse)


def _is_foreign(path: Path) -> bool:
    """A JSON file with another schema than a regression card's. A damaged file is not foreign: loading reports it."""
    try:
        content = _json(path)
    except (OSError, ValueError, RecursionError):
        return False
    schema = content.get("schema") if isinstance(content, dict) else None
    return isinstance(schema, str) and not schema.startswith("encsel.card/")


def _card_from(path: Path) -> Card:
    remedy = "Restore the file, or make it again with `encsel fit`."
    try:
        content = _json(path)
    except OSError as error:
        raise UsageError(
            f"Cannot read the card {path}: {error.strerror}. Give a .json file or one of: {', '.join(shipped_cards())}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The card {path} is not valid JSON ({error}). {remedy}") from error
    if not isinstance(content, dict) or "schema" not in content:
        raise UsageError(f"{path} is no regression card: it states no schema, {SCHEMA} is needed. {remedy}")
    if content["schema"] != SCHEMA:
        raise UsageError(
            f"{path} is a {content['schema']!r}; this command needs a regression card, {SCHEMA}. "
            "Give another file, or use the encsel that made it."
        )
    stated = content.pop("sha256", None)
    try:
        found = _checksum(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The card {path} holds a number out of range ({error}). {remedy}") from error
    if stated != found:
        raise UsageError(f"The card {path} was damaged or edited: its checksum does not fit its content. {remedy}")
    try:
        card = _decoded(Card, content, "card")
        assert isinstance(card, Card)
        _check_meaning(card)
    except _Malformed as error:
        raise UsageError(f"The card {path} is malformed: {error}. {remedy}") from error
    return card


class _Malformed(Exception):
    """A card's JSON that does not have the shape of Card."""


def _check_meaning(card: Card) -> None:
    if not card.features:
        raise _Malformed("it has no features")
    if missing := {"name", "scorer", "n_train_identities", "n_test_identities"} - set(card.target):
        raise _Malformed(f"its target lacks {', '.join(sorted(missing))}")
    for feature in card.features:
        if feature.range[0] > feature.range[1]:
            raise _Malformed(f"the range of {feature.name} is upside down")
    for left_out in (card.errors.leave_face, card.errors.leave_voice):
        if left_out.rmse is not None and (left_out.rmse < 0 or left_out.n_groups < 2):
            raise _Malformed("a left-out error is negative or has fewer than 2 groups")


def _decoded(kind: Any, value: Any, where: str) -> Any:
    """`value`, as JSON has it, as the type `kind`: dataclasses, tuples, mappings, literals, unions and plain values."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decoded_fields(kind, value, where)
    if origin in (types.UnionType, typing.Union):
        for option in inner:
            with contextlib.suppress(_Malformed):
                return _decoded(option, value, where)
    if origin is Literal and isinstance(value, str) and value in inner:
        return value
    if origin is tuple and isinstance(value, list):
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else list(inner)
        if len(kinds) == len(value):
            return tuple(_decoded(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, dict):
        return {key: _decoded(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise _Malformed(f"{where} is out of range") from error
    # 2**53: beyond it a count is no longer exact as a float, and no count of anything here.
    if kind in (int, str, types.NoneType) and type(value) is kind and not (kind is int and abs(value) > 2**53):
        return value
    raise _Malformed(f"{where} is {value!r}")


def _decoded_fields(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _Malformed(f"{where} is {value!r}")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    if set(value) != set(names):
        unlike = sorted(set(value) ^ set(names))
        raise _Malformed(f"{where} lacks or should not have {', '.join(unlike)}")
    return kind(**{name: _decoded(hints[name], value[name], f"{where}.{name}") for name in names})
