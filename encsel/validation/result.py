"""What `encsel validate` found out, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from encsel.core import Modality, Skipped
from encsel.embedding.embed import Failure
from encsel.embedding.health import Health
from encsel.errors import EncoderFailed
from encsel.gates.judge import Verdict
from encsel.matching.error_rates import Matching
from encsel.matching.evaluate import LearningCurve, PairMeasured, RecordingsCompared
from encsel.metrics.cka import Cka
from encsel.metrics.gromov_wasserstein import GromovWasserstein
from encsel.metrics.topology import Topology
from encsel.ranking.result import CardPrediction, EncoderResult
from encsel.regression.analysis import Analysis
from encsel.storage.signature import signature_text
from encsel.validation.geometry import Alignment, Curved, Dimensions, Reliability, Spectrum

SCHEMA = "encsel.validate/1"

SAME_RECORDINGS = "same recordings"
FEW_ERRORS = "fewer than 30 errors"
ONLY_ITS_GROUP = "tells only"
"""Followed by the column."""

STAGES: Mapping[str, str] = {
    "matching": "EER, AUC, FNMR, DET, two-choice, retrieval of every pair and scorer",
    "prediction": "what `rank` predicts",
    "intrinsic": "intrinsic dimensions",
    "curvature": "curvature and its flat control",
    "topology": "distances within and between people",
    "spectral": "spectra of neighbour graphs",
    "reliability": "split halves: the ceiling of CKA",
    "gw": "Gromov-Wasserstein",
    "geodesic": "geodesic CKA",
    "mutual": "mutual neighbours",
    "axes": "EER by number of principal axes",
    "curve": "learning curve",
    "recordings": "same recordings against others",
    "groups": "within groups of people and samples",
}
"""What `--skip` and `--only` take. Linear CKA is always measured."""


@dataclass(frozen=True)
class RankedPair:
    """What `rank` says of a pair; see `encsel.ranking.result.PairResult`."""

    rank: int
    rank_group: int | None
    face: str
    voice: str
    predicted_eer: float | None
    interval: tuple[float, float] | None
    p_best: float | None
    reason: str | None
    predictions: Mapping[str, CardPrediction]
    cka_interval: tuple[float, float] | None
    cka_null_p: float
    null_p: float | None
    null_p_familywise: float | None
    id_mismatch: float | None
    joint_space: str | None
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Ranked:
    """What `rank` says of the set. `n_permutations`: shuffles behind each pair's `null_p`."""

    ordered_by: str
    scorer: str
    coverage: float
    n_train_identities: int | None
    n_permutations: int
    encoders: tuple[EncoderResult, ...]
    pairs: tuple[RankedPair, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class EncoderValidated:
    """One encoder. What is None has its reason in `reasons`, by stage.

    Attributes:
        group_probe: by column, balanced accuracy of a linear classifier of people's groups on held-out people.
        recordings_known: samples tell which recording they are from.
    """

    name: str
    modality: Modality
    dim: int
    n_samples: int
    samples_per_identity: float
    health: Health
    dimensions: Dimensions | None
    curvature: Curved | None
    topology: Topology | None
    spectrum: Spectrum | None
    reliability: Reliability | None
    group_probe: Mapping[str, float]
    recordings_known: bool
    reasons: Mapping[str, str]
    flags: tuple[str, ...]


@dataclass(frozen=True)
class CentredOnGroups:
    """One pair with the mean of each person's group taken off: what is left beyond telling the groups apart.

    Attributes:
        predicted_eer, interval: of the default card. The means are of all people; everything else fitted sees training
            people only. None with `reason`.
        null_p: share of shuffles of people within groups with a prediction as good.
    """

    column: str
    n_people: int
    cka: Cka
    predicted_eer: float | None
    interval: tuple[float, float] | None
    null_p: float
    null_p_familywise: float
    n_permutations: int
    reason: str | None


@dataclass(frozen=True)
class WithinValue:
    """One pair on the samples of one value of a column, such as one language: by scorer, centroids."""

    column: str
    value: str
    n_people: int
    matching: Mapping[str, Matching]


@dataclass(frozen=True)
class PairValidated:
    """One pair. What is None has its reason in `reasons`, by stage."""

    face: str
    voice: str
    measured: PairMeasured | None
    joint_cosine: Mapping[str, Matching] | None
    """By level, for two encoders of one joint space."""
    axes: Mapping[str, Mapping[str, float | None]] | None
    """By number of principal axes, then scorer: EER."""
    curve: LearningCurve | None
    recordings: RecordingsCompared | None
    centred: tuple[CentredOnGroups, ...]
    values: tuple[WithinValue, ...]
    alignment: Alignment
    ceiling: float | None
    """What debiased CKA can reach, from both encoders' split halves."""
    gromov_wasserstein: GromovWasserstein | None
    spectral_gap: float | None
    id_mismatch: float | None
    """Absolute difference of `mle_median` at 20 neighbours, all distinct rows."""
    ranked: RankedPair | None
    flags: tuple[str, ...]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class ValidationReport:
    """Everything `encsel validate` found out. `encsel.validation_report` turns it into table, JSON and page."""

    signature: Mapping[str, Any]
    protocol: str
    scorer: str
    """Of the EERs that the analysis and the table are about."""
    layout: str
    n_identities: int
    n_face_samples: int
    n_voice_samples: int
    ranked: Ranked | None
    encoders: tuple[EncoderValidated, ...]
    pairs: tuple[PairValidated, ...]
    group_columns: Mapping[str, Mapping[str, int]]
    """People of each group, by column with one value a person."""
    analysis: Analysis
    skipped: tuple[Skipped, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    strict_health: bool = False
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def exit_code(self) -> int:
        """4 when an encoder failed, or is unsound and health is strict; else the gates'."""
        unsound = self.strict_health and any(e.health.findings for e in self.encoders)
        return EncoderFailed.exit_code if self.failures or unsound else self.verdict.exit_code

    @property
    def signature_text(self) -> str:
        return signature_text(self.signature)
