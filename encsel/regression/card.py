"""Geometric cards: a fitted regression of EER on geometry, its predictions and its file."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from encsel.errors import UsageError, nearest
from encsel.regression.association import Association
from encsel.regression.pair_tables import PairFile
from encsel.storage import documents

SCHEMA: Final = "encsel.card/1"

CHANCE_EER = 0.5
MAX_COEFFICIENT = 1e9
"""Largest coefficient that a card may hold; sums of far larger ones overflow."""
LN_PREFIX = "ln_"
SIZE_FREE = ("cka_matched", "cka_debiased")
"""Columns whose expected value does not depend on the number of people."""

Transform = Literal["identity", "ln"]


@dataclass(frozen=True)
class Feature:
    """One term of a regression: `coefficient` times the column's value, or its natural log.

    Attributes:
        metric, metric_version: the encsel metric that computes the column; None if there is none.
        n_identities, rows_per_identity: sizes of the measurement; None if unknown or not all equal, for a `reason`.
        range: smallest and largest training value, before the transform.
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
        """Name for `encsel fit --features`, such as `cka` or `ln_cka`."""
        return (LN_PREFIX if self.transform == "ln" else "") + self.name


@dataclass(frozen=True)
class LeftOutErrors:
    """Errors with one group of pairs left out at a time, R2 around the mean of all pairs. None if `reason` is set."""

    r2: float | None
    rmse: float | None
    n_groups: int
    reason: str | None = None


@dataclass(frozen=True)
class FitErrors:
    """Errors of one form on the pairs it was fitted on and on held-out pairs. None if `reason` is set."""

    n_parameters: int
    r2: float | None
    adjusted_r2: float | None
    rmse: float | None
    leave_pair: LeftOutErrors
    leave_face: LeftOutErrors
    leave_voice: LeftOutErrors
    reason: str | None = None

    @property
    def held_out(self) -> tuple[LeftOutErrors, LeftOutErrors, LeftOutErrors]:
        return self.leave_pair, self.leave_face, self.leave_voice


@dataclass(frozen=True)
class Prediction:
    """Prediction for one face-voice pair: `eer` is `raw` clipped to [0, 0.5], both None if `reason` is set.

    `interval` is clipped as well, and None if the card has no errors for unseen encoders. `outside` has one sentence
    per feature outside the card's training range.
    """

    eer: float | None
    raw: float | None
    interval: tuple[float, float] | None
    outside: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class GeometricCard:
    """A fitted regression of EER on geometry, with its sources and its errors.

    Attributes:
        form: "log" if any feature enters by its logarithm, else "linear".
        target: predicted quantity: name, scorer, n_train_identities, n_test_identities (None if not all equal).
        residual_sd: standard deviation of the residuals, corrected for degrees of freedom.
        baseline_errors: errors of face effect + voice effect, without geometry.
        associations: rank association of each feature's column with the EER.
        excluded: encoders left out of the tables before fitting.
        seed: random seed of the bootstrap and of a permutation that is not exact.
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
        return documents.checksum(self)

    @property
    def sizes_mixed(self) -> bool:
        """Whether the pairs were measured on different numbers of identities, on which a feature depends."""
        return any(feature.n_identities is None and feature.name not in SIZE_FREE for feature in self.features)

    @property
    def equation(self) -> str:
        terms = (
            f" {'-' if f.coefficient < 0 else '+'} {abs(f.coefficient):.4g} "
            + (f"ln({f.name})" if f.transform == "ln" else f.name)
            for f in self.features
        )
        return f"eer = {self.intercept:.4g}" + "".join(terms)

    def apply(self, values: Mapping[str, float], coverage: float = 0.9) -> Prediction:
        """Predict the EER of a pair from its values (by feature name, untransformed).

        The interval is provisional. Its half-width is the Student t quantile (degrees of freedom = encoders left out
        in turn - 1) times the RMSE of leaving out face encoders or voice encoders, whichever is wider. It covers the
        card's error for an unseen encoder, not the sampling error of the calibration set the values come from.

        Raises:
            UsageError: a feature is missing or not finite, or coverage is not in (0, 1).
        """
        if not 0 < coverage < 1:
            raise UsageError(f"The coverage is {coverage}; it must be between 0 and 1, such as 0.9.")
        raw, outside, reason = self.intercept, [], None
        for feature in self.features:
            if feature.name not in values:
                raise UsageError(
                    f"The card {self.name} needs {feature.name}, which was not given "
                    f"(given: {', '.join(sorted(values)) or 'nothing'}). Compute it or choose another card."
                )
            value, (low, high) = float(values[feature.name]), feature.range
            if not math.isfinite(value):
                raise UsageError(
                    f"{feature.name} is {value}; the card {self.name} needs a finite number. Leave this pair out."
                )
            if not low <= value <= high:
                side = "below" if value < low else "above"
                outside.append(
                    f"{feature.name} {value:.4g} is {side} the card's training range {low:.4g} to {high:.4g}"
                )
            if feature.transform == "ln" and value <= 0:
                reason = reason or f"{feature.name} is {value:.4g}, and the card takes its logarithm"
            else:
                raw += feature.coefficient * (math.log(value) if feature.transform == "ln" else value)
        if reason:
            return Prediction(None, None, None, tuple(dict.fromkeys(outside)), reason)
        eer = min(max(raw, 0.0), CHANCE_EER)
        half = self._half_width(coverage)
        # Around the clipped value, because around a raw value far below 0 the clipped interval would shrink to nothing.
        interval = None if half is None else (max(eer - half, 0.0), min(eer + half, CHANCE_EER))
        return Prediction(eer, raw, interval, tuple(dict.fromkeys(outside)))

    def save(self, path: str | Path) -> None:
        """Write the card as JSON, whole or not at all; UsageError if the file cannot be written."""
        documents.save(self, path)

    def _half_width(self, coverage: float) -> float | None:
        from scipy.special import stdtrit

        widths = [
            float(stdtrit(left_out.n_groups - 1, (1 + coverage) / 2)) * left_out.rmse
            for left_out in (self.errors.leave_face, self.errors.leave_voice)
            if left_out.rmse is not None
        ]
        return max(widths, default=None)


def check_metric_versions(card: GeometricCard, versions: Mapping[str, int]) -> None:
    """Check that encsel's metrics, by name and version, are those the card was fitted on; else UsageError."""
    for feature in card.features:
        if feature.metric is None:
            raise UsageError(
                f"The card {card.name} needs {feature.name}, which no metric of encsel computes. "
                "Choose another card, or refit it on columns that encsel computes."
            )
        version = versions.get(feature.metric)
        if version != feature.metric_version:
            available = f"version {version}" if version is not None else "no such metric"
            raise UsageError(
                f"The card {card.name} was fitted on {feature.name} by {feature.metric} version "
                f"{feature.metric_version}; this encsel has {available}, whose values are not comparable. "
                "Refit the card with this encsel (`encsel fit`), or use the encsel that made it."
            )


def shipped_cards() -> tuple[str, ...]:
    """Names of the shipped geometric cards, sorted."""
    return documents.shipped("encsel.card")


def card_path(name_or_path: str | Path, names: tuple[str, ...], what: str) -> Path:
    """File of a shipped card by name, or of any card by path; UsageError names the nearest name."""
    text = str(name_or_path)
    path = documents.cards_folder() / f"{text}.json" if text in names else Path(text)
    if path.suffix != ".json" and len(path.parts) < 2 and not path.is_file():
        raise UsageError(f"No {what} is named {text!r}. {nearest(text, names)} The path of a .json card works as well.")
    return path


def load_geometric_card(name_or_path: str | Path) -> GeometricCard:
    """Load a shipped geometric card by name, or any card by path; UsageError if it is missing or damaged."""
    names = shipped_cards()
    card: GeometricCard = documents.read(
        card_path(name_or_path, names, "geometric card"), GeometricCard, schema=SCHEMA, what="geometric card",
        names=names, check=_check_meaning, remedy="Restore the file, or make it again with `encsel fit`.",
    )  # fmt: skip
    return card


def _check_meaning(card: GeometricCard) -> None:
    features = [name for feature in card.features for name in (feature.name, feature.metric)]
    documents.check_names(
        (card.name, *features, *card.target, *card.target.values(), *card.associations, *card.excluded), "the name"
    )
    if not card.features:
        raise documents.Malformed("it has no features")
    if max(abs(x) for x in (card.intercept, *(feature.coefficient for feature in card.features))) > MAX_COEFFICIENT:
        raise documents.Malformed(f"it holds a coefficient over {MAX_COEFFICIENT:g}")
    if missing := {"name", "scorer", "n_train_identities", "n_test_identities"} - set(card.target):
        raise documents.Malformed(f"its target lacks {', '.join(sorted(missing))}")
    for feature in card.features:
        if feature.range[0] > feature.range[1]:
            raise documents.Malformed(f"the range of {feature.name} has its ends swapped")
    for left_out in (card.errors.leave_face, card.errors.leave_voice):
        if left_out.rmse is not None and (left_out.rmse < 0 or left_out.n_groups < 2):
            raise documents.Malformed("a left-out error is negative or has fewer than 2 groups")
