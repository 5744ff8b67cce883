"""What `encsel rank` found out, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from encsel.core import Modality, Skipped
from encsel.embedding.embed import Failure
from encsel.embedding.health import Health
from encsel.errors import EncoderFailed
from encsel.gates.judge import Verdict
from encsel.metrics.cka import Cka
from encsel.prediction.card import CalibratedCard
from encsel.prediction.predict import PairPrediction
from encsel.ranking.geometry import Null
from encsel.storage.signature import signature_text

SCHEMA = "encsel.rank/1"
STUDY_REGRESSION = "upadhyay2026"
MIN_IDENTITIES = 30
MAX_IDENTITIES = 6000
"""5000 take 2.5 GB a pair. The cards know sets of up to 2000."""
ALPHA = 0.05
"""A pair whose family-wise permutation p is above this is flagged as not distinguishable from shuffled people."""
BY_CKA = "cka_matched"

FEW_PEOPLE = "few people"
AT_CHANCE = "not above chance"
DISAGREE = "CKA and cross-validation disagree"
EXTRAPOLATES = "extrapolates"
PEOPLE_UNLIKE = "people unlike the card's"
ROWS_UNLIKE = "samples per person unlike the card's"
ROWS_UNKNOWN = "the card does not state its samples per person"
UNSOUND = "unsound encoder"
TRAINED_ON_THESE = "trained on VoxCeleb, where these people are from"


@dataclass(frozen=True)
class CardPrediction:
    """What one card says of one pair. `eer` outside the card's range is an extrapolation and is flagged so.

    `scorer` is what the predicted EER would be measured with.
    """

    eer: float | None
    interval: tuple[float, float] | None
    flags: tuple[str, ...]
    reason: str | None
    scorer: str


@dataclass(frozen=True)
class JointSpace:
    """Two encoders of one joint space compared by plain cosine of centroids, no projection fitted: EER in [0, 1]."""

    space: str
    cosine_eer: float


@dataclass(frozen=True)
class PairResult:
    """One face-voice pair. EERs and CKAs are shares in [0, 1]; a lower EER and a higher CKA are better.

    Attributes:
        rank_group: a new group begins only where every pair above is better than every pair below with a chance of 0.9
            or more; neighbours within a group are tied.
        p_best: chance that the pair is the best of the set. Both are None where no calibrated card ordered.
        reason: why `predicted_eer` is None.
        cka_interval: of matched CKA, by the jackknife; None where an encoder's variation hangs on one person.
        prediction: evidence, calibrated estimates, measured EERs and the null; None with under 10 people.
    """

    rank: int
    rank_group: int | None
    face: str
    voice: str
    predicted_eer: float | None
    interval: tuple[float, float] | None
    p_best: float | None
    reason: str | None
    predictions: Mapping[str, CardPrediction]
    cka: Cka
    cka_interval: tuple[float, float] | None
    cka_null: Null
    prediction: PairPrediction | None
    id_mismatch: float | None
    joint_space: JointSpace | None
    flags: tuple[str, ...]


@dataclass(frozen=True)
class EncoderResult:
    """One encoder as it was measured."""

    name: str
    modality: Modality
    dim: int
    n_samples: int
    samples_per_identity: float
    """Median over people."""
    intrinsic_dimension: float | None
    """Reference estimate at the card's samples per person, the one behind ID mismatch."""
    intrinsic_dimensions: Mapping[str, float] | None
    reason: str | None
    health: Health
    flags: tuple[str, ...]


@dataclass(frozen=True)
class RankReport:
    """Everything `encsel rank` found out. `encsel.report` turns it into a table, JSON, CSV or Markdown."""

    signature: Mapping[str, Any]
    ordered_by: str
    coverage: float
    matched_to: int
    n_train_identities: int | None
    """People behind the EER that is predicted; None when the card does not say."""
    scorer: str
    """What the predicted EER would be measured with."""
    calibrated: CalibratedCard
    """The card behind ties, chances and nulls: the one that orders, or the default where a published one does."""
    layout: str
    n_identities: int
    n_face_samples: int
    n_voice_samples: int
    regressions: Mapping[str, str]
    """SHA-256 of each card used, the one that orders first."""
    encoders: tuple[EncoderResult, ...]
    pairs: tuple[PairResult, ...]
    skipped: tuple[Skipped, ...]
    failures: tuple[Failure, ...]
    """Encoders that could not be loaded or run; the pairs are those of the others."""
    notes: tuple[str, ...]
    strict_health: bool = False
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def exit_code(self) -> int:
        """Of the command line: 4 when an encoder failed, or is unsound and health is strict; else that of the gates."""
        unsound = self.strict_health and any(e.health.findings for e in self.encoders)
        return EncoderFailed.exit_code if self.failures or unsound else self.verdict.exit_code

    @property
    def signature_text(self) -> str:
        return signature_text(self.signature)
