"""Regression cards: a fitted regression of EER on geometry, in a file, and what it predicts."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from encsel.errors import UsageError, nearest
from encsel.regression.association import Association
from encsel.regression.pair_tables import PairFile
from encsel.storage import documents as cardfile

SCHEMA: Final = "encsel.card/1"

CHANCE_EER = 0.5

Transform = Literal["identity", "ln"]

LN_PREFIX = "ln_"

LARGEST = 1e9
"""Of a coefficient: an EER is under 1, and of far larger ones sums are no number."""


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
        return cardfile.checksum(self)

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


def shipped_cards() -> tuple[str, ...]:
    """Names of the shipped regression cards, sorted; other JSON files in the folder are not theirs."""
    return cardfile.shipped("encsel.card")


def load_card(name_or_path: str) -> Card:
    """A shipped card by name, or any card by the path of its JSON file.

    Raises:
        UsageError: no such card (names the nearest), or a file that is damaged, edited or no card.
    """
    text = str(name_or_path)
    if text in (known := shipped_cards()):
        return _card_from(cardfile.cards_folder() / f"{text}.json")
    path = Path(text)
    if path.suffix == ".json" or len(path.parts) > 1 or path.is_file():
        return _card_from(path)
    raise UsageError(f"No regression card is named {text!r}. {nearest(text, known)} A path to a .json card works, too.")


def card_text(card: Card) -> str:
    """The card as JSON, full precision, checksum last, newline at the end."""
    return cardfile.text_of(card)


def save_card(card: Card, path: str | Path) -> None:
    """Write the card; the file is there whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    cardfile.save(card, path)


def _card_from(path: Path) -> Card:
    card = cardfile.read(
        path, Card, schema=SCHEMA, what="regression card", known=shipped_cards(), check=_check_meaning,
        remedy="Restore the file, or make it again with `encsel fit`.",
    )  # fmt: skip
    assert isinstance(card, Card)
    return card


def _check_meaning(card: Card) -> None:
    features = [name for feature in card.features for name in (feature.name, feature.metric)]
    cardfile.check_names(
        (card.name, *features, *card.target, *card.target.values(), *card.associations, *card.excluded), "the name"
    )
    if not card.features:
        raise cardfile.Malformed("it has no features")
    if max(abs(x) for x in (card.intercept, *(feature.coefficient for feature in card.features))) > LARGEST:
        raise cardfile.Malformed(f"it holds a coefficient over {LARGEST:g}")
    if missing := {"name", "scorer", "n_train_identities", "n_test_identities"} - set(card.target):
        raise cardfile.Malformed(f"its target lacks {', '.join(sorted(missing))}")
    for feature in card.features:
        if feature.range[0] > feature.range[1]:
            raise cardfile.Malformed(f"the range of {feature.name} is upside down")
    for left_out in (card.errors.leave_face, card.errors.leave_voice):
        if left_out.rmse is not None and (left_out.rmse < 0 or left_out.n_groups < 2):
            raise cardfile.Malformed("a left-out error is negative or has fewer than 2 groups")
