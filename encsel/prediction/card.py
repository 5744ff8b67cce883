"""Calibrated cards: from evidence of n people with m samples each to the EER of a matcher trained on many people.

A card is a regression of d' on `encsel.prediction.evidence`, its coefficients smooth in n and m, fitted by `encsel
calibrate` to simulated populations. Its errors were measured on kinds of population not in the fit.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from encsel.errors import UsageError
from encsel.matching.crossval import MEASURED
from encsel.matching.sensitivity import distance_of_eer, eer_of_distance
from encsel.prediction.evidence import EVIDENCE_VERSION, FEATURES, Evidence
from encsel.regression.card import card_path
from encsel.storage import documents

SCHEMA: Final = "encsel.calibrated/2"

SIZE_TERMS = ("1", "u", "u^2", "v", "u v", "u^2 v")
"""Terms of each coefficient: u = ln(n / 100), v = 1 / m - 1 / 20."""
SPREAD_TERMS = ("1", "u", "u^2", "v", "d")
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99)
"""Coverages of intervals whose width a card holds; others are interpolated."""
FEATURE_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
TRAIN_PEOPLE, PROBE_SAMPLES = 999, 20
"""Level predicted unless another is asked for: training people, and samples of each person at test."""
LARGEST = 1e6
"""Largest number in a card: real cards stay under 2000, and sums of far larger ones overflow."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Shares:
    """Fractions of a prediction's squared error common to all pairs, to one face or voice, or to none; sum 1."""

    everyone: float
    face: float
    voice: float
    pair: float


ALL_KINDS = "all"
"""Kind of a HeldOut of all kinds together."""


@dataclass(frozen=True)
class HeldOut:
    """Errors on one kind of population at one number of people, with that kind not in the fit.

    Attributes:
        rmse, bias: of the predicted EER; `bias_at` by samples per person.
        regret: EER of the pair predicted best minus that of the best, mean over sets; `regret_likeliest` that of the
            likeliest pair of the shortlist.
        shortlist_holds, shortlist_size: fraction of sets whose shortlist holds the best pair, and its mean size.
        between_sets: standard deviation of predictions for one pair of encoders from other people of its population;
            0 where no population has two sets.
        coverage: fraction of 90 % intervals that contain the true EER; `coverage_se` its standard error, rows of one
            population taken together.
        rivals: RMSE of other predictors, such as the training mean or this row's own mean for every pair.
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
    regret_likeliest: float
    shortlist_holds: float
    shortlist_size: float
    between_sets: float
    coverage: float
    coverage_se: float
    rivals: Mapping[str, float]


@dataclass(frozen=True)
class GapBin:
    """Pairs predicted to be better than another, by predicted gap in EER; `right`: fraction that truly were."""

    low: float
    high: float
    n: int
    right: float


@dataclass(frozen=True, kw_only=True)
class LevelFit:
    """One level of a card: a number of training people, and of samples per person at test.

    Attributes:
        coefficients: (1 + features, SIZE_TERMS); the first row is the intercept.
        spread: (SPREAD_TERMS,) of the log of the variance of d' beyond the set's own error.
        own_error: factor on the set's own standard error, whose square is the other part of the variance.
        tails: rows of n and the |error| / sd that contains each of COVERAGES of the held-out errors.
        shares: for differences between pairs.
        order_scale, best_scale: factors on the sd of differences that make chances of order, and of being best, hold on
            held-out kinds.
        from_cka: (2, SIZE_TERMS) predicted d' as a line in root CKA; `from_cka_sd` (SIZE_TERMS,) the log of the spread
            about it.
        training_mean: mean true EER of the simulated pairs, toward which weak evidence is shrunk.
    """

    coefficients: tuple[tuple[float, ...], ...]
    spread: tuple[float, ...]
    own_error: float
    tails: tuple[tuple[float, ...], ...]
    shares: Shares
    order_scale: float
    best_scale: float
    from_cka: tuple[tuple[float, ...], ...]
    from_cka_sd: tuple[float, ...]
    training_mean: float


BY_LEVEL = tuple(f.name for f in dataclasses.fields(LevelFit))


@dataclass(frozen=True, kw_only=True)
class Level(LevelFit):
    """The fit of one level, and which level it is."""

    n_train_identities: int
    probe_samples: int


@dataclass(frozen=True, kw_only=True)
class CalibratedCard(LevelFit):
    """One scorer's regression and its errors, at one level.

    Attributes:
        target: sizes behind the predicted EER: n_train_identities, n_test_identities, samples_per_identity of training
            people, and probe_samples, of people at test.
        people, samples: range of n and m in the fit; other values are clipped to it.
        typical_error: (SIZE_TERMS,) of the log of that standard error in simulated sets, for planning.
        ranges: by feature, rows of n and FEATURE_QUANTILES of simulated values.
        replicate: standard errors that contain 90 % of the cross-validated d' of other people at the same n, in every
            kind of population.
        p_best: by decile of p_best, (mean p_best, fraction that were best, count).
        levels: the regressions of other numbers of training people, and of samples at test, for `at`.
    """

    schema: Literal["encsel.calibrated/2"] = SCHEMA
    name: str
    scorer: str
    target: Mapping[str, int]
    features: tuple[str, ...]
    evidence_version: int
    people: tuple[int, int]
    samples: tuple[int, int]
    shrinkage: float
    typical_error: tuple[float, ...]
    ranges: Mapping[str, tuple[tuple[float, ...], ...]]
    held_out: tuple[HeldOut, ...]
    replicate: float
    gaps: tuple[GapBin, ...]
    p_best: tuple[tuple[float, float, int], ...]
    recipe: Mapping[str, str | int | float]
    levels: tuple[Level, ...] = ()

    @functools.cached_property
    def sha256(self) -> str:
        """Checksum of the card's canonical JSON without this key."""
        return documents.checksum(self)

    @property
    def n_train_identities(self) -> int:
        return self.target["n_train_identities"]

    @property
    def probe_samples(self) -> int:
        return self.target["probe_samples"]

    @property
    def level(self) -> Level:
        """The fit of the card's own level."""
        fit = {name: getattr(self, name) for name in BY_LEVEL}
        return Level(n_train_identities=self.n_train_identities, probe_samples=self.probe_samples, **fit)

    def at(self, train_people: int, probe_samples: int) -> "CalibratedCard":
        """The card at another level; between known numbers of training people, linear in their logarithm.

        Raises:
            UsageError: a level outside the card's.
        """
        if (train_people, probe_samples) == (self.n_train_identities, self.probe_samples):
            return self
        levels = sorted((self.level, *self.levels), key=lambda level: level.n_train_identities)
        if not (known := [level for level in levels if level.probe_samples == probe_samples]):
            probes = sorted({level.probe_samples for level in levels})
            raise UsageError(
                f"--probe-samples is {probe_samples}; the card {self.name} predicts for "
                f"{' or '.join(map(str, probes))}. Give one of these."
            )
        least, most = known[0].n_train_identities, known[-1].n_train_identities
        if not least <= train_people <= most:
            predicts = f"{least} to {most} people" if least < most else f"{least} people only"
            raise UsageError(f"--train-people is {train_people}; the card {self.name} predicts for {predicts}.")
        below = [level for level in known if level.n_train_identities <= train_people][-1]
        above = next(level for level in known if level.n_train_identities >= train_people)
        step = math.log(above.n_train_identities / below.n_train_identities) or 1.0
        weight = math.log(train_people / below.n_train_identities) / step
        between = {name: _between(getattr(below, name), getattr(above, name), weight) for name in BY_LEVEL}
        target = {**self.target, "n_train_identities": train_people, "probe_samples": probe_samples}
        # The errors on held-out kinds are those of the card's own level.
        return dataclasses.replace(
            self, target=target, levels=(self.level, *self.levels), held_out=(), gaps=(), p_best=(), **between
        )


def _between(below: Any, above: Any, weight: float) -> Any:
    """Interpolate numbers, in tuples or Shares of any depth, from `below` (weight 0) to `above` (weight 1)."""
    if isinstance(below, Shares):
        return Shares(*_between(dataclasses.astuple(below), dataclasses.astuple(above), weight))
    if isinstance(below, tuple):
        return tuple(_between(a, b, weight) for a, b in zip(below, above, strict=True))
    return below + weight * (above - below)


@dataclass(frozen=True)
class Estimate:
    """A card's prediction for one pair: EER in [0, 0.5], its interval, and its d' with the standard deviation.

    `outside` has one sentence per feature beyond all simulated values.
    """

    eer: float
    interval: tuple[float, float]
    distance: float
    sd: float
    outside: tuple[str, ...] = ()


def size_terms(n: float | Values, m: float | Values, card: CalibratedCard | None = None) -> Values:
    """(..., SIZE_TERMS) at n people and m samples each, clipped to a card's range if one is given."""
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
    """Predicted d' of each row of (..., len(FEATURES)) values, at n people with m samples each."""
    columns = [list(FEATURES).index(name) for name in card.features]
    by_feature = np.asarray(card.coefficients) @ size_terms(float(n), m, card)
    return np.asarray(by_feature[0] + values[..., columns] @ by_feature[1:])


def predicted_eer(distance: float | Values) -> Values:
    """EER of a predicted d', never worse than chance."""
    return np.minimum(eer_of_distance(distance), 0.5)


def estimate(card: CalibratedCard, evidence: Evidence, n: int, m: float, *, coverage: float = 0.9) -> Estimate:
    """Prediction for one pair of n people with m samples each (harmonic mean of both sides' medians)."""
    values = np.array([evidence.values[name] for name in FEATURES])
    d = float(distances(card, values, n, m))
    sd = spread(card, n, m, d, evidence.standard_error[card.scorer])
    half = tail(card, coverage, n) * sd
    low, high = predicted_eer(d + half), predicted_eer(d - half)
    return Estimate(float(predicted_eer(d)), (float(low), float(high)), d, sd, _outside(card, evidence, n))


def spread(card: CalibratedCard, n: float, m: float, distance: float, own_error: float | None = None) -> float:
    """Standard deviation of a predicted d'; the set's own error defaults to that of a typical simulated set."""
    if own_error is None:
        own_error = _exp(float(np.asarray(card.typical_error) @ size_terms(float(n), m, card)))
    rest = _exp(float(np.asarray(card.spread) @ spread_terms(float(n), m, np.asarray(distance), card)))
    return math.sqrt(rest + (card.own_error * own_error) ** 2)


def _exp(log: float) -> float:
    # A card may hold any numbers; the spread of a d' is far inside this range.
    return math.exp(min(max(log, -100.0), 100.0))


def _at_size(rows: tuple[tuple[float, ...], ...], n: int) -> Values:
    """Values at n people, from rows of a number of people and values, linear in its logarithm."""
    table = np.array(rows)
    return np.array([np.interp(math.log(n), np.log(table[:, 0]), column) for column in table[:, 1:].T])


def tail(card: CalibratedCard, coverage: float, n: int) -> float:
    """Half-width of an interval in sd, from the held-out errors at about n people; UsageError outside COVERAGES."""
    if not COVERAGES[0] <= coverage <= COVERAGES[-1]:
        raise UsageError(
            f"The coverage is {coverage}; calibrated cards have errors for {COVERAGES[0]:g} to {COVERAGES[-1]:g}. "
            "Give one in between, such as 0.9."
        )
    return float(np.interp(coverage, COVERAGES, _at_size(card.tails, n)))


def expected_from_cka(card: CalibratedCard, root_cka: float, n: int, m: float) -> tuple[float, float]:
    """The d' expected from CKA alone, and its spread among simulated pairs."""
    terms = size_terms(float(n), m, card)
    intercept, slope = np.asarray(card.from_cka) @ terms
    return float(intercept + slope * root_cka), _exp(float(np.asarray(card.from_cka_sd) @ terms))


def place(card: CalibratedCard, feature: str, value: float, n: int) -> float:
    """Fraction of simulated pairs at about n people whose feature is below `value`, in [0, 1]."""
    return float(np.interp(value, feature_quantiles(card, feature, n), FEATURE_QUANTILES))


def feature_quantiles(card: CalibratedCard, feature: str, n: int) -> Values:
    """FEATURE_QUANTILES of a feature among simulated pairs at about n people."""
    return _at_size(card.ranges[feature], n)


def _outside(card: CalibratedCard, evidence: Evidence, n: int) -> tuple[str, ...]:
    sentences = []
    for name in card.features:
        (least, *_, most), value = feature_quantiles(card, name, n), evidence.values[name]
        # A slack of a tenth of the range: the extremes of a finite simulation are not hard limits.
        if not least - 0.1 * (most - least) <= value <= most + 0.1 * (most - least):
            side, end = ("below", least) if value < least else ("above", most)
            sentences.append(f"{name} {value:.3g} is {side} all simulated pairs ({end:.3g})")
    return tuple(sentences)


def shipped_calibrated() -> tuple[str, ...]:
    """Names of the shipped calibrated cards, sorted."""
    return documents.shipped("encsel.calibrated")


def load_calibrated(name_or_path: str | Path) -> CalibratedCard:
    """A shipped calibrated card by name, or any by the path of its file; UsageError if none or damaged."""
    names = shipped_calibrated()
    card: CalibratedCard = documents.read(
        card_path(name_or_path, names, "calibrated card"), CalibratedCard, schema=SCHEMA, what="calibrated card",
        names=names, check=_check_meaning, remedy="Restore the file, or make it again with `encsel calibrate`.",
    )  # fmt: skip
    return card


def _check_meaning(card: CalibratedCard) -> None:
    documents.check_names((card.name, *card.target, *(held.kind for held in card.held_out)), "the name")
    unknown = sorted(set(card.features) - set(FEATURES))
    parts: tuple[LevelFit, ...] = (card, *card.levels)
    table = [*(row for part in parts for row in part.tails), *(row for rows in card.ranges.values() for row in rows)]
    sized = (card.typical_error, *(r for p in parts for r in (*p.coefficients, *p.from_cka, p.from_cka_sd)))
    sizes = [card.target.get(name, 0) for name in ("n_train_identities", "samples_per_identity", "probe_samples")]
    sizes += [size for level in card.levels for size in (level.n_train_identities, level.probe_samples)]
    numbers = [*card.typical_error]
    for part in parts:
        numbers += (*part.spread, *part.from_cka_sd, part.own_error, part.order_scale, part.best_scale)
    problems = {
        f"its scorer is {card.scorer!r}; one of {', '.join(MEASURED)} is needed": card.scorer not in MEASURED,
        f"it was fitted on evidence version {card.evidence_version}; this encsel measures version {EVIDENCE_VERSION}": (
            card.evidence_version != EVIDENCE_VERSION
        ),
        f"it needs {', '.join(unknown)}, which this encsel does not measure": bool(unknown),
        "its coefficients do not fit its features": any(len(p.coefficients) != 1 + len(card.features) for p in parts),
        "its errors do not fit its sizes": (
            any(len(p.spread) != len(SPREAD_TERMS) for p in parts) or any(len(row) != len(SIZE_TERMS) for row in sized)
        ),
        "its lines and tails are incomplete": any(len(p.from_cka) != 2 or not p.tails for p in parts),
        "its tails do not fit the coverages": any(len(row) != 1 + len(COVERAGES) for p in parts for row in p.tails),
        "the tails of its levels have different numbers of people": any(
            [row[0] for row in p.tails] != [row[0] for row in card.tails] for p in card.levels
        ),
        "it lacks the ranges of its features": bool(set(card.features) - set(card.ranges)),
        "it lacks the training people or the samples of a level": any(not 1 <= size <= LARGEST for size in sizes),
        "its training mean is no better than chance": any(distance_of_eer(p.training_mean) <= 0 for p in parts),
        "a share of its error is negative": any(min(dataclasses.astuple(p.shares)) < 0 for p in parts),
        "a row of its tails or ranges has no number of people": any(len(row) < 2 or row[0] < 1 for row in table),
        "its ranges do not fit the quantiles": any(
            not rows or any(len(row) != 1 + len(FEATURE_QUANTILES) for row in rows) for rows in card.ranges.values()
        ),
        f"it holds a number over {LARGEST:g}": any(abs(x) > LARGEST for row in (numbers, *sized, *table) for x in row),
    }
    for what, (low, high) in (("people", card.people), ("samples", card.samples)):
        problems[f"its range of {what} is {low} to {high}"] = not 1 <= low <= high <= LARGEST
    for problem, is_so in problems.items():
        if is_so:
            raise documents.Malformed(problem)
