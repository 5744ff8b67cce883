"""One face-voice pair of a ranking: what each card predicts for it, and its flags."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from encsel.embedding.health import Health
from encsel.errors import BadCalibration
from encsel.matching.crossval import MEASURED
from encsel.matching.eer import eer
from encsel.matching.folds import MIN_FOR_FOLDS
from encsel.matching.scorers import split_scores
from encsel.matching.sensitivity import distance_of_eer, normal_quantile
from encsel.metrics.centroids import median_samples
from encsel.metrics.linear_cka import REFERENCE_SIZE, Cka, matched_standard_error
from encsel.prediction.card import PROBE_SAMPLES, TRAIN_PEOPLE, CalibratedCard, expected_from_cka, tail
from encsel.prediction.predict import ALPHA, MIN_TO_PREDICT, REPLICATE_COVERAGE, PairPrediction
from encsel.prediction.shipped import DEFAULT_REGRESSION, AnyCard, scorer_of
from encsel.ranking.flags import (
    AT_CHANCE,
    CONTRADICTED,
    DISAGREE,
    EXTRAPOLATES,
    FEW_PEOPLE,
    ONLY_GROUPS,
    PEOPLE_UNLIKE,
    ROWS_UNKNOWN,
    ROWS_UNLIKE,
    TRAINED_ON_THESE,
    UNSOUND,
)
from encsel.ranking.geometry import EncoderGeometry, Null, intrinsic_dimension
from encsel.ranking.result import (
    CardPrediction,
    CkaMeasured,
    CrossValidatedEer,
    CrossValidation,
    EncoderRanking,
    JointSpace,
    PairRanking,
)
from encsel.regression.card import SIZE_FREE, GeometricCard
from encsel.rows import taken

STRONGLY = 2.576
"""Standard deviations that count as strong disagreement of cross-validation and CKA: 1 % of a normal distribution."""
CLEARLY = 0.85
"""Part of a measured d' that must exceed a predicted one: it may be that of 4000 training people, not of 999."""
_VOXCELEB_IDS = range(10_001, 11_252)


@dataclass(frozen=True)
class MeasuredPair:
    """Measurements of one pair.

    Attributes:
        sampled: numbers of the people who were shuffled and cross-validated.
        ckas: by the number of people that they are matched to, of which `matched_to` is shown.
        mismatches: ID mismatch by rows per identity, of which `shown_rows` is shown.
        prediction: None with too few people for cross-validation.
        doubts: flags of DOUBTS, reasons why these numbers say nothing about faces and voices.
    """

    face: EncoderGeometry
    voice: EncoderGeometry
    sampled: NDArray[np.intp]
    ckas: Mapping[int, Cka]
    matched_to: int
    null: Null
    mismatches: Mapping[int | None, float | None]
    shown_rows: int | None
    prediction: PairPrediction | None
    doubts: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Number of people."""
        return len(self.face.gram)


def pair_ranking(
    pair: MeasuredPair, cards: Sequence[AnyCard], of_encoders: tuple[EncoderRanking, EncoderRanking], coverage: float
) -> PairRanking:
    """The pair as the first card sees it, not ranked yet."""
    predictions = {
        card.name: _calibrated(card, pair.prediction, len(pair.sampled))
        if isinstance(card, CalibratedCard)
        else _geometric(card, pair, coverage)
        for card in cards
    }
    first, predicted = cards[0], predictions[cards[0].name]
    few_people = pair.n < MIN_TO_PREDICT
    reason = too_few(pair.n) if few_people else predicted.reason
    usable, prediction = reason is None, pair.prediction
    null = None if prediction is None else prediction.null
    extrapolation_flagged = isinstance(first, CalibratedCard) and not few_people
    flags = {
        **dict.fromkeys(pair.doubts, True),
        FEW_PEOPLE: few_people,
        **{flag: flag != EXTRAPOLATES or extrapolation_flagged for flag in predicted.flags},
        CONTRADICTED: _is_contradicted(first, prediction, len(pair.sampled)),
        DISAGREE: DISAGREE in predictions[DEFAULT_REGRESSION].flags or DISAGREE in predicted.flags,
        AT_CHANCE: (null or pair.null).p_familywise > ALPHA and not (null and null.only_groups),
        f"{ONLY_GROUPS} {null.within}" if null else ONLY_GROUPS: null is not None and null.only_groups,
        UNSOUND: any(e.health for e in of_encoders),
        TRAINED_ON_THESE: any(TRAINED_ON_THESE in e.flags for e in of_encoders),
    }
    if null is not None and few_people:
        # With few people a predicted EER means nothing, shuffled or not; the p-value is still valid.
        null = replace(null, predicted_eer=None, sd=None)
    return PairRanking(
        rank=0,
        places=None,
        face=pair.face.embeddings.name,
        voice=pair.voice.embeddings.name,
        predicted_eer=predicted.eer if usable else None,
        interval=predicted.interval if usable else None,
        coverage=coverage,
        p_best=None,
        expected_loss=None,
        reason=reason,
        predictions=predictions,
        cross_validated=None if prediction is None else _cross_validation(prediction, scorer_of(first)),
        null=null,
        cka=_cka_measured(pair, coverage),
        id_mismatch=pair.mismatches[pair.shown_rows],
        joint_space=_joint_space(pair),
        flags=tuple(flag for flag, holds in flags.items() if holds),
    )


def encoder_ranking(g: EncoderGeometry, health: Health, layout: str) -> EncoderRanking:
    """One encoder of a ranking."""
    values, embeddings = g.intrinsic_dimension.values, g.embeddings
    flags = embeddings.traits.flags
    if "VoxCeleb" in embeddings.traits.trained_on and _are_voxceleb(embeddings.identities, layout):
        flags = (*flags, TRAINED_ON_THESE)
    return EncoderRanking(
        name=embeddings.name,
        modality=embeddings.modality,
        dim=embeddings.dim,
        n_samples=len(embeddings.vectors),
        samples_per_identity=median_samples(g.embeddings),
        intrinsic_dimension=None if values is None else values["mle_median"],
        intrinsic_dimensions=values,
        unimodal_eer=health.unimodal_eer,
        intra_distance=health.intra,
        inter_distance=health.inter,
        skipped_share=health.skipped,
        health=health.findings,
        flags=flags,
        reason="; ".join(filter(None, (g.intrinsic_dimension.reason, health.reason))) or None,
    )


def too_few(n: int) -> str:
    """The reason why a set of so few people has no predicted EER."""
    return f"{n} people; a predicted EER needs at least {MIN_TO_PREDICT}"


def people_of(card: GeometricCard) -> int:
    """Number of people that the card's CKA was measured on."""
    sizes = (f.n_identities for f in card.features if f.name not in SIZE_FREE)
    return next((n for n in sizes if n is not None), REFERENCE_SIZE)


def rows_of(card: GeometricCard) -> int | None:
    """Rows per identity that the card was fitted on, if it states them."""
    return next((f.rows_per_identity for f in card.features if f.rows_per_identity is not None), None)


def needs_mismatch(card: GeometricCard) -> bool:
    return any(f.name == "id_mismatch" for f in card.features)


def mismatches_at(
    faces: Sequence[EncoderGeometry],
    voices: Sequence[EncoderGeometry],
    rows: int | None,
    measured_at: int | None,
    seed: int,
) -> list[list[float | None]]:
    """Absolute difference of reference intrinsic dimensions at `rows` rows per identity, faces x voices."""

    def estimate(g: EncoderGeometry) -> float | None:
        values = g.intrinsic_dimension.values
        if rows != measured_at:
            values = intrinsic_dimension(g.embeddings, rows_per_identity=rows, seed=seed).values
        return None if values is None else values["mle_median"]

    sides = [[estimate(g) for g in side] for side in (faces, voices)]
    return [[None if f is None or v is None else abs(f - v) for v in sides[1]] for f in sides[0]]


def _calibrated(card: CalibratedCard, prediction: PairPrediction | None, n: int) -> CardPrediction:
    if prediction is None or n < MIN_TO_PREDICT:
        reason = f"{n} people; cross-validation needs {MIN_FOR_FOLDS}" if prediction is None else too_few(n)
        return CardPrediction(None, None, (), reason, card.scorer)
    estimate = prediction.estimates[card.name]
    flags = [EXTRAPOLATES] if estimate.outside or n > 2 * card.people[1] else []
    if prediction.samples < card.samples[0]:
        flags.append(ROWS_UNLIKE)
    expected, sd = expected_from_cka(card, prediction.evidence.values["root_cka"], n, prediction.samples)
    if abs(estimate.distance - expected) > STRONGLY * sd:
        flags.append(DISAGREE)
    return CardPrediction(estimate.eer, estimate.interval, tuple(flags), None, card.scorer)


def _geometric(card: GeometricCard, pair: MeasuredPair, coverage: float) -> CardPrediction:
    mismatch, rows, scorer = pair.mismatches[rows_of(card)], rows_of(card), scorer_of(card)
    if needs_mismatch(card) and mismatch is None:
        return CardPrediction(None, None, (), "intrinsic dimension could not be measured", scorer)
    values = {"cka": pair.ckas[people_of(card)].matched, "cka_matched": pair.ckas[REFERENCE_SIZE].matched}
    prediction = card.apply(values if mismatch is None else {**values, "id_mismatch": mismatch}, coverage)
    flags = [EXTRAPOLATES] if prediction.outside else []
    if needs_mismatch(card) and pair.n != people_of(card):
        # CKA is converted to the card's number of people; ID mismatch cannot be.
        flags.append(PEOPLE_UNLIKE)
    if rows is None and needs_mismatch(card):
        flags.append(ROWS_UNKNOWN)
    elif rows is not None and any(not 0.5 <= median_samples(g.embeddings) / rows <= 2 for g in (pair.face, pair.voice)):
        flags.append(ROWS_UNLIKE)
    reason = prediction.reason or "; ".join(prediction.outside) or None
    interval = None if prediction.outside else prediction.interval
    return CardPrediction(prediction.eer, interval, tuple(flags), reason, scorer)


def _cross_validation(prediction: PairPrediction, scorer: str) -> CrossValidation:
    """Cross-validated rates; the scorer that the prediction is about comes first if it was measured."""
    by_scorer = {s: CrossValidatedEer(**vars(m), coverage=REPLICATE_COVERAGE) for s, m in prediction.measured.items()}
    first = by_scorer.pop(cross_validated_scorer(scorer))
    n_repeats = prediction.evidence.cross_validated.n_repeats[first.scorer]
    return CrossValidation(**vars(first), n_repeats=n_repeats, others=tuple(by_scorer.values()))


def cross_validated_scorer(scorer: str) -> str:
    """The scorer behind a cross-validated EER: that of the prediction if it was measured, else the reference."""
    return scorer if scorer in MEASURED else "reference"


def _is_contradicted(card: AnyCard, prediction: PairPrediction | None, n: int) -> bool:
    """Whether the measured EER is far below the predicted one, on evidence beyond all simulated pairs.

    Almost perfect links are: d' of the evidence saturates, and its weights were fitted on weaker links. A card of fewer
    people than are trained on here, or of single samples, predicts higher EERs rightly.
    """
    if not isinstance(card, CalibratedCard) or prediction is None or n < MIN_TO_PREDICT:
        return False
    if card.n_train_identities < TRAIN_PEOPLE or card.probe_samples < PROBE_SAMPLES:
        return False
    estimate, measured = prediction.estimates[card.name], prediction.measured[cross_validated_scorer(card.scorer)]
    highest = estimate.distance + tail(card, REPLICATE_COVERAGE, n) * estimate.sd
    return bool(estimate.outside) and CLEARLY * float(distance_of_eer(measured.interval[1])) > highest


def _cka_measured(pair: MeasuredPair, coverage: float) -> CkaMeasured:
    cka = pair.ckas[pair.matched_to]
    try:
        error = matched_standard_error(pair.face.gram, pair.voice.gram, matched_to=pair.matched_to)
        half = normal_quantile(coverage) * error
        interval = (cka.matched - half, cka.matched + half)
    except BadCalibration:
        interval = None
    null = pair.null
    return CkaMeasured(
        **vars(cka), matched_interval=interval, matched_to=pair.matched_to, null_p=null.p,
        null_p_familywise=null.p_familywise, null_mean=null.mean, null_quantile_95=null.quantile_95,
        null_permutations=null.n_permutations,
    )  # fmt: skip


def _joint_space(pair: MeasuredPair) -> JointSpace | None:
    face, voice = pair.face.embeddings, pair.voice.embeddings
    space = face.traits.space
    if space is None or not face.shares_space(voice):
        return None
    scores = taken(face.centroids, pair.sampled) @ taken(voice.centroids, pair.sampled).T
    return JointSpace(space, eer(*split_scores(np.asarray(scores))))


def _are_voxceleb(people: Iterable[str], layout: str) -> bool:
    numbers = [name[2:] for name in people if name.startswith("id")]
    return layout.startswith("VoxCeleb") or any(i.isdigit() and int(i) in _VOXCELEB_IDS for i in numbers)
