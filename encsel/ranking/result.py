"""The result of `rank`: frozen dataclasses whose fields are those of the document `encsel.rank/2`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from encsel.core import MODALITIES, Failure, Modality, Skipped
from encsel.errors import EncoderFailed
from encsel.gates.judge import Verdict
from encsel.metrics.linear_cka import Cka
from encsel.prediction.card import CalibratedCard
from encsel.prediction.decision import Decision
from encsel.prediction.predict import Measured, PairPrediction, PredictionNull
from encsel.storage.result import CHECKSUM, HIDDEN, Result, checksum

if TYPE_CHECKING:
    from encsel.ranking.explain import Explanation

RANK_SCHEMA: Final = "encsel.rank/2"
BY_CKA = "cka_matched"


@dataclass(frozen=True)
class SkippedSamples:
    """Samples that were not used. Names are hashes, unless the user asked for names; None without a cache."""

    count: int
    samples: tuple[Skipped, ...]


@dataclass(frozen=True)
class SetSummary:
    """The set that was measured."""

    n_identities: int
    n_face_samples: int
    n_voice_samples: int
    skipped: SkippedSamples


@dataclass(frozen=True)
class CardUsed:
    """A regression card behind a result."""

    sha256: str


@dataclass(frozen=True)
class CardPrediction:
    """Prediction of one card for one pair. An `eer` outside the card's range is an extrapolation and flagged.

    `scorer` is the scorer whose EER is predicted.
    """

    eer: float | None
    interval: tuple[float, float] | None
    flags: tuple[str, ...]
    reason: str | None
    scorer: str


@dataclass(frozen=True)
class CrossValidatedEer(Measured):
    """EER and AUC of one scorer; `interval` contains the fraction `coverage` of values from as many other people."""

    coverage: float


@dataclass(frozen=True)
class CrossValidation(CrossValidatedEer):
    """The scorer that the prediction is about, then the other scorers."""

    n_repeats: int
    others: tuple[CrossValidatedEer, ...]


@dataclass(frozen=True)
class CkaMeasured(Cka):
    """CKA of one pair in three forms, and matched CKA with people shuffled.

    Attributes:
        matched: what biased CKA would be at `matched_to` people.
        matched_interval: by the jackknife; None where an encoder's variation depends on one person.
        null_p: fraction of shuffles at or above the observed value, which is one of them.
        null_p_familywise: fraction of shuffles in which any pair of the set does as well (Westfall and Young).
    """

    matched_interval: tuple[float, float] | None
    matched_to: int
    null_p: float
    null_p_familywise: float
    null_mean: float
    null_quantile_95: float
    null_permutations: int


@dataclass(frozen=True)
class JointSpace:
    """Two encoders of one joint space, compared by cosine of centroids without any fit: EER in [0, 1]."""

    space: str
    cosine_eer: float


@dataclass(frozen=True)
class PairRanking:
    """One face-voice pair. EERs and CKAs are fractions in [0, 1]; a lower EER and a higher CKA are better.

    Attributes:
        places: first and last place that the pair may have; another pair counts as better or worse only if it is so
            with a chance of at least 0.9.
        p_best: chance that the pair is the best of the set.
        expected_loss: EER lost on average by taking the pair instead of the best. All three are None if the pairs were
            not ordered by a calibrated card.
        reason: why `predicted_eer` is None.
        cross_validated, null: None with fewer than 10 people. With fewer than 30 the null has a p-value and no EER.
    """

    rank: int
    places: tuple[int, int] | None
    face: str
    voice: str
    predicted_eer: float | None
    interval: tuple[float, float] | None
    coverage: float
    p_best: float | None
    expected_loss: float | None
    reason: str | None
    predictions: Mapping[str, CardPrediction]
    cross_validated: CrossValidation | None
    null: PredictionNull | None
    cka: CkaMeasured
    id_mismatch: float | None
    joint_space: JointSpace | None
    flags: tuple[str, ...]

    @property
    def p_familywise(self) -> float:
        """The p-value behind the flag "not above chance": of the prediction, or of CKA with fewer than 10 people."""
        return self.cka.null_p_familywise if self.null is None else self.null.p_familywise


@dataclass(frozen=True)
class EncoderRanking:
    """One encoder, as it was measured.

    Attributes:
        samples_per_identity: median over people.
        intrinsic_dimension: reference estimate at the card's samples per person, from which ID mismatch is taken.
        intra_distance, inter_distance: mean cosine distance within and between people, in [0, 2].
        skipped_share: fraction of the modality's samples that this encoder could not use.
        health: what is wrong with it, in words; empty for a sound encoder.
    """

    name: str
    modality: Modality
    dim: int
    n_samples: int
    samples_per_identity: float
    intrinsic_dimension: float | None
    intrinsic_dimensions: Mapping[str, float] | None
    unimodal_eer: float | None
    intra_distance: float
    inter_distance: float
    skipped_share: float
    health: tuple[str, ...]
    flags: tuple[str, ...]
    reason: str | None


class Measurement(Result):
    """A result of `rank` or `validate`: what was measured on a set, the decision, failures and the verdict of gates.

    Attributes:
        what: "predicted" or "measured": what the EERs are.
    """

    what: ClassVar[str]
    calibration: SetSummary
    decision: Decision
    encoders: tuple[Any, ...]
    pairs: tuple[Any, ...]
    failures: tuple[Failure, ...]
    verdict: Verdict
    strict_health: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The document with its checksum: plain values, full precision, None where a value is missing."""
        document = self.document()
        return {**document, CHECKSUM: checksum(document)}

    def document(self) -> dict[str, Any]:
        """The document without its checksum."""
        return super().to_dict()

    @property
    def n_identities(self) -> int:
        return self.calibration.n_identities

    @property
    def shortlist(self) -> tuple[Any, ...]:
        """The fewest pairs that hold the best with a chance of 0.9, likeliest first; empty if none is recommended."""
        pairs = {(p.face, p.voice): p for p in self.pairs}
        return tuple(pairs[name] for name in self.decision.shortlist)

    @property
    def findings(self) -> dict[str, str]:
        """Faults of each unsound encoder, by name."""
        raise NotImplementedError

    @property
    def unexamined(self) -> tuple[str, ...]:
        """Encoders whose verification EER could not be measured."""
        raise NotImplementedError

    @property
    def broken(self) -> dict[str, str]:
        """Why the exit code is 4, by encoder: it failed, or is unsound and `strict_health`."""
        unsound = {name: f"is unsound: {finding}" for name, finding in self.findings.items() if self.strict_health}
        return {failure.encoder: f"failed: {failure.reason}" for failure in self.failures} | unsound

    @property
    def exit_code(self) -> int:
        """4 if an encoder is broken; else the exit code of the gates."""
        return EncoderFailed.exit_code if self.broken else self.verdict.exit_code


@dataclass(frozen=True, eq=False, repr=False)
class RankDocument(Measurement):
    """The document `encsel.rank/2`: all face-voice pairs of a calibration set, best first.

    Attributes:
        ordered_by: the card that ordered the pairs, or "cka_matched" if it could not.
        scorer: the scorer whose EER is predicted.
        n_train_identities, n_train_samples: training people behind the predicted EER, and samples of each; None if the
            card does not state them.
        n_probe_samples: samples per person at test behind it.
        decision: what to do.
        judged_by: the calibrated card behind ties, chances and nulls.
        regressions: the cards used, the one that orders first.
        failures: encoders that could not be loaded or run; the pairs are those of the others.
    """

    what: ClassVar[str] = "predicted"
    schema: Literal["encsel.rank/2"]
    signature: Mapping[str, Any]
    signature_text: str
    ordered_by: str
    scorer: str
    coverage: float
    n_train_identities: int | None
    n_train_samples: int | None
    n_probe_samples: int | None
    layout: str
    calibration: SetSummary
    decision: Decision
    judged_by: str
    regressions: Mapping[str, CardUsed]
    encoders: tuple[EncoderRanking, ...]
    pairs: tuple[PairRanking, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def findings(self) -> dict[str, str]:
        return {e.name: "; ".join(e.health) for e in self.encoders if e.health}

    @property
    def unexamined(self) -> tuple[str, ...]:
        return tuple(e.name for e in self.encoders if e.unimodal_eer is None)


@dataclass(frozen=True, eq=False, repr=False)
class Ranking(RankDocument):
    """All face-voice pairs of a calibration set, best first, made by `encsel.rank`.

    Attributes:
        card: the calibrated card behind ties, chances and nulls.
        details: evidence and estimates behind each pair's prediction, by (face, voice).
    """

    card: CalibratedCard | None = field(default=None, metadata=HIDDEN)
    details: Mapping[tuple[str, str], PairPrediction] = field(default_factory=dict, metadata=HIDDEN)
    strict_health: bool = field(default=False, metadata=HIDDEN)

    @property
    def best(self) -> PairRanking:
        """The first pair; see `shortlist` for all that may be the best."""
        return self.pairs[0]

    def pair(self, face: str, voice: str) -> PairRanking | None:
        """The pair of two encoders, if there is one."""
        return next((p for p in self.pairs if (p.face, p.voice) == (face, voice)), None)

    def explain(self, face: str, voice: str) -> Explanation:
        """Explain the prediction for one pair.

        Raises:
            UsageError: no such pair, or too few people for a prediction.
        """
        from encsel.ranking.explain import explain

        return explain(self, face, voice)


def summary_of(n_people: int, encoders: Collection[Any], skipped: Sequence[Skipped]) -> SetSummary:
    """The summary of a set, from the encoders of a result."""
    n_samples = {m: max(e.n_samples for e in encoders if e.modality == m) for m in MODALITIES}
    return SetSummary(n_people, n_samples["face"], n_samples["voice"], SkippedSamples(len(skipped), tuple(skipped)))
