"""Explain the prediction for one pair: its evidence, and how it compares with simulated pairs."""

import math
from dataclasses import dataclass

import numpy as np

from encsel.errors import UsageError, nearest
from encsel.matching.bound import eer_bound
from encsel.metrics.linear_cka import Cka
from encsel.prediction.card import (
    ALL_KINDS,
    CalibratedCard,
    expected_from_cka,
    feature_quantiles,
    place,
    predicted_eer,
    size_terms,
)
from encsel.prediction.evidence import FEATURES
from encsel.prediction.predict import MIN_TO_PREDICT, Measured, PredictionNull
from encsel.ranking.result import CardPrediction, Ranking


@dataclass(frozen=True)
class Part:
    """One feature of the prediction.

    Attributes:
        percentile: fraction of simulated pairs of about as many people with a smaller value, in [0, 1].
        adds: contribution to predicted d', relative to the median simulated pair.
    """

    name: str
    meaning: str
    value: float
    percentile: float
    adds: float


@dataclass(frozen=True)
class Held:
    """Fraction of true EERs inside 90 % intervals at about as many people, on kinds of population left out of the fit.

    `lowest` is the fraction for the kind with the lowest coverage.
    """

    n_identities: int
    coverage: float
    kind: str
    lowest: float


@dataclass(frozen=True)
class Explanation:
    """One pair, explained.

    Attributes:
        distance, sd: predicted d' and its standard deviation.
        base, base_eer: d' and EER of a pair with the median of every feature.
        canonical_correlations: of ridge canonical variates, on held-out people.
        expected_from_cka: EER that CKA alone suggests.
        eer_bound: upper bound, from debiased CKA, on the EER of the best linear matcher with as many samples, if scores
            are Gaussian (see `encsel.matching.bound`); None for single samples, or if the pair is not above chance.
        disagreement: standard deviations, among simulated pairs, by which the prediction is better (positive) or worse.
        held: coverage of intervals in tests; None at levels other than the card's own.
    """

    face: str
    voice: str
    card: str
    scorer: str
    n_identities: int
    samples_per_identity: float
    predicted_eer: float
    interval: tuple[float, float]
    coverage: float
    distance: float
    sd: float
    base: float
    base_eer: float
    canonical_correlations: tuple[float, ...]
    measured: tuple[Measured, ...]
    cka: Cka
    cka_interval: tuple[float, float] | None
    null: PredictionNull
    parts: tuple[Part, ...]
    expected_from_cka: float
    eer_bound: float | None
    disagreement: float
    held: Held | None
    predictions: dict[str, CardPrediction]


def explain(ranking: Ranking, face: str, voice: str) -> Explanation:
    """Explain the prediction for one pair of a ranking, by its calibrated card.

    Raises:
        UsageError: no such pair, or too few people for cross-validation.
    """
    pair, n = ranking.pair(face, voice), ranking.n_identities
    if pair is None:
        names = [f"{p.face}/{p.voice}" for p in ranking.pairs]
        asked = f"{face}/{voice}"
        raise UsageError(f"No pair {asked!r} to explain; give FACE/VOICE. {nearest(asked, names)}")
    if n < MIN_TO_PREDICT:
        raise UsageError(f"{n} people; below {MIN_TO_PREDICT} there is no prediction to explain. Add people.")
    card = ranking.card
    if card is None or (face, voice) not in ranking.details:
        raise UsageError("This ranking was read from the cache, without the details to explain. Call rank again.")
    prediction = ranking.details[face, voice]
    evidence, m, estimate = prediction.evidence, prediction.samples, prediction.estimates[card.name]
    n = evidence.cross_validated.n_people
    weights = np.asarray(card.coefficients) @ size_terms(float(n), m, card)
    medians = {name: feature_quantiles(card, name, n)[4] for name in card.features}
    base, parts = float(weights[0]), []
    for name, weight in zip(card.features, weights[1:], strict=True):
        value = evidence.values[name]
        adds = float(weight * (value - medians[name]))
        parts.append(Part(name, FEATURES[name], value, place(card, name, value, n), adds))
        base += float(weight * medians[name])
    bounded = card.probe_samples > 1 and prediction.null.told
    expected, spread = expected_from_cka(card, evidence.values["root_cka"], n, m)
    return Explanation(
        face=face,
        voice=voice,
        card=card.name,
        scorer=card.scorer,
        n_identities=n,
        samples_per_identity=m,
        predicted_eer=estimate.eer,
        interval=estimate.interval,
        coverage=ranking.coverage,
        distance=estimate.distance,
        sd=estimate.sd,
        base=base,
        base_eer=float(predicted_eer(base)),
        canonical_correlations=tuple(float(r) for r in evidence.cross_validated.correlations),
        measured=tuple(prediction.measured.values()),
        cka=Cka(pair.cka.biased, pair.cka.debiased, pair.cka.matched),
        cka_interval=pair.cka.matched_interval,
        null=prediction.null,
        parts=tuple(parts),
        expected_from_cka=float(predicted_eer(expected)),
        eer_bound=eer_bound(pair.cka.debiased) if bounded else None,
        disagreement=(estimate.distance - expected) / spread,
        held=_held(card, n),
        predictions=dict(pair.predictions),
    )


def _held(card: CalibratedCard, n: int) -> Held | None:
    tested = {row.n_identities: row for row in card.held_out if row.kind == ALL_KINDS}
    by_kind = [row for row in card.held_out if row.kind != ALL_KINDS and row.n_identities in tested]
    if not by_kind:
        return None
    size = min((row.n_identities for row in by_kind), key=lambda size: abs(math.log(size / n)))
    lowest = min((row for row in by_kind if row.n_identities == size), key=lambda row: row.coverage)
    return Held(size, tested[size].coverage, lowest.kind, lowest.coverage)
