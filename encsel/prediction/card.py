"""Calibrated cards: from evidence of n people with m samples each to the EER at the reference size, with its error.

A card is a regression of d' at the reference size on `encsel.evidence`, its coefficients smooth in n and m, made by
`encsel calibrate` on simulated populations. What it says of its own error was measured on kinds of population that were
kept out of the fit.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from encsel.errors import UsageError, nearest
from encsel.matching.crossval import MEASURED
from encsel.matching.sensitivity import distance_of_eer, eer_of_distance
from encsel.prediction.evidence import EVIDENCE_VERSION, FEATURES, Evidence
from encsel.storage import documents as cardfile

SCHEMA: Final = "encsel.calibrated/1"

SIZE_TERMS = ("1", "u", "u^2", "v", "u v", "u^2 v")
"""u = ln(n / 100), v = 1 / m - 1 / 20: what each coefficient is a sum over."""
SPREAD_TERMS = ("1", "u", "u^2", "v", "d")
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99)
"""Of intervals whose reach a card tells; between them it is interpolated."""
LARGEST = 1e6
"""Of any number in a card: those of cards that were made are under 2000, and of far larger ones sums overflow."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Shares:
    """Of a prediction's squared error, what pairs of one set have in common: all of them, those of one face encoder,
    those of one voice encoder, and none. Sum 1."""

    everyone: float
    face: float
    voice: float
    pair: float


@dataclass(frozen=True)
class HeldOut:
    """How the recipe did on one kind of population at one number of people, with that kind kept out of the fit.

    Attributes:
        rmse, bias: of the predicted EER; `bias_at` by samples a person.
        spearman: rank correlation over the pairs of one set, mean over sets.
        regret: EER of the pair put first minus that of the best, mean over sets.
        coverage: share of intervals of 90 % that hold the true EER.
    """

    kind: str
    n_identities: int
    n_sets: int
    n_pairs: int
    rmse: float
    bias: float
    bias_at: Mapping[str, float]
    spearman: float
    regret: float
    coverage: float
    rivals: Mapping[str, float]
    """RMSE of other ways, among them always saying the training mean and always saying this row's own mean."""


@dataclass(frozen=True)
class GapBin:
    """Pairs declared better than another, by the predicted gap in EER; `right`: share of them that truly were."""

    low: float
    high: float
    n: int
    right: float


@dataclass(frozen=True, kw_only=True)
class CalibratedCard:
    """One scorer's regression, its error, and the evidence for both.

    Attributes:
        scorer: of the EER that is predicted.
        target: sizes behind that EER: n_train_identities, n_test_identities, samples_per_identity.
        evidence_version: of `encsel.evidence` behind the features.
        people, samples: smallest and largest n and m the card was made for; beyond, the nearest is taken.
        coefficients: (1 + features, SIZE_TERMS); the first row is the intercept.
        spread: (SPREAD_TERMS,) of the log of the part of the variance of d' that the set's own error does not show.
        own_error: factor on the set's own standard error, whose square is the other part.
        typical_error: (SIZE_TERMS,) of the log of that standard error in simulated sets, for planning.
        tails: by number of people, |error| / sd that the shares COVERAGES of the held-out errors stay within: rows of
            n and those values.
        shares: for differences between pairs.
        order_scale, best_scale: factors on the sd of differences that make chances of order, and of being best, hold on
            kinds kept out.
        from_cka: (2, SIZE_TERMS) predicted d' as a line in root CKA, and `from_cka_sd` (SIZE_TERMS,) the log of the
            spread about it: what CKA alone would lead one to expect.
        ranges: by feature, (n, quantiles) table rows of simulated values at FEATURE_QUANTILES by number of people.
        training_mean: mean true EER of the simulated pairs, toward which little evidence is drawn.
        replicate: standard errors that 90 % of the cross-validated d' of other people at the same n stay within, in
            every kind of population.
        held_out, gaps: see there. `p_best`: by decile of p_best, (mean p_best, share that were best, count).
    """

    schema: Literal["encsel.calibrated/1"] = SCHEMA
    name: str
    scorer: str
    target: Mapping[str, int]
    features: tuple[str, ...]
    evidence_version: int
    people: tuple[int, int]
    samples: tuple[int, int]
    coefficients: tuple[tuple[float, ...], ...]
    shrinkage: float
    spread: tuple[float, ...]
    own_error: float
    typical_error: tuple[float, ...]
    tails: tuple[tuple[float, ...], ...]
    shares: Shares
    order_scale: float
    best_scale: float
    from_cka: tuple[tuple[float, ...], ...]
    from_cka_sd: tuple[float, ...]
    ranges: Mapping[str, tuple[tuple[float, ...], ...]]
    training_mean: float
    held_out: tuple[HeldOut, ...]
    replicate: float
    gaps: tuple[GapBin, ...]
    p_best: tuple[tuple[float, float, int], ...]
    recipe: Mapping[str, str | int | float]

    @functools.cached_property
    def sha256(self) -> str:
        """Checksum of the card's canonical JSON without this key."""
        return cardfile.checksum(self)

    @property
    def n_train_identities(self) -> int:
        return self.target["n_train_identities"]


FEATURE_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Estimate:
    """What a card says of one pair: EER in [0, 0.5] with its interval, and the d' with its standard deviation."""

    eer: float
    interval: tuple[float, float]
    distance: float
    sd: float
    outside: tuple[str, ...] = ()
    """One sentence per feature beyond all simulated ones."""


def size_terms(n: float | Values, m: float | Values, card: CalibratedCard | None = None) -> Values:
    """(..., SIZE_TERMS) at n people and m samples each, within the card's range where one is given."""
    n, m = np.asarray(n, dtype=np.float64), np.asarray(m, dtype=np.float64)
    if card is not None:
        n, m = np.clip(n, *card.people), np.clip(m, *card.samples)
    u, v = np.log(n / 100), 1 / m - 1 / 20
    return np.stack([np.ones_like(u), u, u * u, v, u * v, u * u * v], axis=-1)


def spread_terms(
    n: float | Values, m: float | Values, distance: float | Values, card: CalibratedCard | None = None
) -> Values:
    """(..., SPREAD_TERMS)."""
    terms = size_terms(n, m, card)
    return np.concatenate([terms[..., :4], np.clip(distance, 0, 2.5)[..., None]], axis=-1)


def distances(card: CalibratedCard, values: Values, n: int, m: float) -> Values:
    """Predicted d' of each row of feature values.

    Args:
        values: (..., len(FEATURES)) in the order of FEATURES.
        n, m: people, and samples of each.
    """
    columns = [list(FEATURES).index(name) for name in card.features]
    by_feature = np.asarray(card.coefficients) @ size_terms(float(n), m, card)
    return np.asarray(by_feature[0] + values[..., columns] @ by_feature[1:])


def predicted_eer(distance: float | Values) -> Values:
    """EER of a predicted d', never worse than chance."""
    return np.minimum(eer_of_distance(distance), 0.5)


def estimate(card: CalibratedCard, evidence: Evidence, n: int, m: float, *, coverage: float = 0.9) -> Estimate:
    """The card's prediction for one pair.

    Args:
        n, m: people, and samples a person (median of each side, harmonic mean of the two).
        coverage: of the interval, in [0.5, 0.99].
    Raises:
        UsageError: a coverage the card has no tail for.
    """
    values = np.array([evidence.values[name] for name in FEATURES])
    d = float(distances(card, values, n, m))
    sd = spread(card, n, m, d, evidence.standard_error[card.scorer])
    half = tail(card, coverage, n) * sd
    low, high = predicted_eer(d + half), predicted_eer(d - half)
    return Estimate(float(predicted_eer(d)), (float(low), float(high)), d, sd, _outside(card, evidence, n))


def spread(card: CalibratedCard, n: float, m: float, distance: float, own_error: float | None = None) -> float:
    """Standard deviation of a predicted d'; without the set's own error, at that of a typical simulated set."""
    if own_error is None:
        own_error = _exp(float(np.asarray(card.typical_error) @ size_terms(float(n), m, card)))
    rest = _exp(float(np.asarray(card.spread) @ spread_terms(float(n), m, np.asarray(distance), card)))
    return math.sqrt(rest + (card.own_error * own_error) ** 2)


def _exp(log: float) -> float:
    # A card's own numbers may say anything; the spread of a d' is far within.
    return math.exp(min(max(log, -100.0), 100.0))


def tail(card: CalibratedCard, coverage: float, n: int) -> float:
    """How many sd an interval reaches, from the held-out errors at about n people.

    Raises:
        UsageError: coverage outside what they tell.
    """
    if not COVERAGES[0] <= coverage <= COVERAGES[-1]:
        raise UsageError(
            f"The coverage is {coverage}; calibrated cards have errors for {COVERAGES[0]:g} to {COVERAGES[-1]:g}. "
            "Give one in between, such as 0.9."
        )
    rows = np.array(card.tails)
    at = [np.interp(math.log(n), np.log(rows[:, 0]), column) for column in rows[:, 1:].T]
    return float(np.interp(coverage, COVERAGES, at))


def expected_from_cka(card: CalibratedCard, root_cka: float, n: int, m: float) -> tuple[float, float]:
    """The d' that CKA alone leads to expect of the prediction, and the spread about it among simulated pairs."""
    terms = size_terms(float(n), m, card)
    intercept, slope = np.asarray(card.from_cka) @ terms
    return float(intercept + slope * root_cka), _exp(float(np.asarray(card.from_cka_sd) @ terms))


def place(card: CalibratedCard, feature: str, value: float, n: int) -> float:
    """Share of simulated pairs at about n people whose feature is below `value`, in [0, 1]."""
    quantiles = feature_quantiles(card, feature, n)
    return float(np.interp(value, quantiles, FEATURE_QUANTILES))


def feature_quantiles(card: CalibratedCard, feature: str, n: int) -> Values:
    """FEATURE_QUANTILES of a feature among simulated pairs at about n people."""
    rows = np.array(card.ranges[feature])
    at = np.clip(math.log(n), np.log(rows[0, 0]), np.log(rows[-1, 0]))
    return np.array([np.interp(at, np.log(rows[:, 0]), rows[:, 1 + i]) for i in range(len(FEATURE_QUANTILES))])


def _outside(card: CalibratedCard, evidence: Evidence, n: int) -> tuple[str, ...]:
    found = []
    for name in card.features:
        quantiles, value = feature_quantiles(card, name, n), evidence.values[name]
        # A tenth of the range of slack: the extremes of a finite simulation are no wall.
        slack = 0.1 * (quantiles[-1] - quantiles[0])
        if value < quantiles[0] - slack:
            found.append(f"{name} {value:.3g} is below all simulated pairs ({quantiles[0]:.3g})")
        elif value > quantiles[-1] + slack:
            found.append(f"{name} {value:.3g} is above all simulated pairs ({quantiles[-1]:.3g})")
    return tuple(found)


def shipped_calibrated() -> tuple[str, ...]:
    """Names of the shipped calibrated cards, sorted."""
    return cardfile.shipped("encsel.calibrated")


def load_calibrated(name_or_path: str | Path) -> CalibratedCard:
    """A shipped calibrated card by name, or any by the path of its file.

    Raises:
        UsageError: no such card (names the nearest), or a file that is damaged, edited or no calibrated card.
    """
    text, known = str(name_or_path), shipped_calibrated()
    path = cardfile.cards_folder() / f"{text}.json" if text in known else Path(text)
    if text not in known and path.suffix != ".json" and not path.is_file():
        raise UsageError(f"No calibrated card is named {text!r}. {nearest(text, known)}")
    card = cardfile.read(
        path, CalibratedCard, schema=SCHEMA, what="calibrated card", names=known, check=_check_meaning,
        remedy="Restore the file, or make it again with `encsel calibrate`.",
    )  # fmt: skip
    assert isinstance(card, CalibratedCard)
    return card


def _check_meaning(card: CalibratedCard) -> None:
    cardfile.check_names((card.name, *card.target, *(held.kind for held in card.held_out)), "the name")
    if card.scorer not in MEASURED:
        raise cardfile.Malformed(f"its scorer is {card.scorer!r}; one of {', '.join(MEASURED)} is needed")
    if card.evidence_version != EVIDENCE_VERSION:
        raise cardfile.Malformed(
            f"it was made on evidence version {card.evidence_version}, this encsel measures version {EVIDENCE_VERSION}"
        )
    if unknown := set(card.features) - set(FEATURES):
        raise cardfile.Malformed(f"it needs {', '.join(sorted(unknown))}, which this encsel does not measure")
    if len(card.coefficients) != 1 + len(card.features) or any(len(r) != len(SIZE_TERMS) for r in card.coefficients):
        raise cardfile.Malformed("its coefficients do not fit its features")
    if len(card.spread) != len(SPREAD_TERMS) or len(card.typical_error) != len(SIZE_TERMS):
        raise cardfile.Malformed("its errors do not fit its sizes")
    if len(card.from_cka) != 2 or len(card.from_cka_sd) != len(SIZE_TERMS) or not card.tails:
        raise cardfile.Malformed("its lines and tails are incomplete")
    if any(len(row) != 1 + len(COVERAGES) for row in card.tails):
        raise cardfile.Malformed("its tails do not fit the coverages")
    if set(card.features) - set(card.ranges) or "n_train_identities" not in card.target:
        raise cardfile.Malformed("it lacks the ranges of its features or the size of its target")
    if distance_of_eer(card.training_mean) <= 0:
        raise cardfile.Malformed("its training mean is no better than chance")
    for what, (low, high) in (("people", card.people), ("samples", card.samples)):
        if not 1 <= low <= high <= LARGEST:
            raise cardfile.Malformed(f"its range of {what} is {low} to {high}")
    if min(dataclasses.astuple(card.shares)) < 0:
        raise cardfile.Malformed("a share of its error is negative")
    for row in (table := [*card.tails, *(row for rows in card.ranges.values() for row in rows)]):
        if len(row) < 2 or row[0] < 1:
            raise cardfile.Malformed("a row of its tails or ranges has no number of people")
    if any(not rows or any(len(r) != 1 + len(FEATURE_QUANTILES) for r in rows) for rows in card.ranges.values()):
        raise cardfile.Malformed("its ranges do not fit the quantiles")
    numbers = [*card.spread, *card.typical_error, *card.from_cka_sd, card.own_error, card.order_scale, card.best_scale]
    for row in (tuple(numbers), *card.coefficients, *card.from_cka, *table):
        if any(abs(x) > LARGEST for x in row):
            raise cardfile.Malformed(f"it holds a number over {LARGEST:g}")
    if any(len(row) != len(SIZE_TERMS) for row in card.from_cka):
        raise cardfile.Malformed("its line of CKA does not fit its sizes")
