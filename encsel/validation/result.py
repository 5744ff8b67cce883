"""The result of `validate`: frozen dataclasses, and the document `encsel.validate/2` that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from encsel.core import Failure, Modality, Vectors
from encsel.errors import UsageError
from encsel.gates.judge import Verdict
from encsel.matching.error_rates import Matching
from encsel.matching.matcher import Matcher, MatcherSide
from encsel.prediction.decision import Decision
from encsel.ranking.result import Measurement, PairRanking, Ranking, SetSummary
from encsel.regression.analysis import Analysis
from encsel.storage.result import HIDDEN

if TYPE_CHECKING:
    from encsel.ranking.explain import Explanation

VALIDATE_SCHEMA: Final = "encsel.validate/2"


@dataclass(frozen=True)
class EncoderValidation:
    """One encoder. In the document, `results` are keys of the encoder itself.

    Attributes:
        results: results of the stages about encoders, by field; None if `reasons` says why, by stage.
        metrics: registered metrics of this encoder, by name.
        recordings_known: whether it is known which recording each sample is from.
    """

    name: str
    modality: Modality
    dim: int
    n_samples: int
    samples_per_identity: float
    results: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    recordings_known: bool
    reasons: Mapping[str, str]
    flags: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        return self.results.get(name)


@dataclass(frozen=True)
class PairValidation:
    """One pair. In the document, `results` are keys of the pair itself.

    Attributes:
        results: results of the stages about pairs, by field; None if `reasons` says why, by stage.
        columns: the numbers of the pair, by the names that pair tables and `encsel fit` use.
        rows_per_identity: samples per person behind them, harmonic mean of both sides' medians.
    """

    face: str
    voice: str
    results: Mapping[str, Any]
    flags: tuple[str, ...]
    reasons: Mapping[str, str]
    rows_per_identity: int
    columns: Mapping[str, float | None]

    def __getitem__(self, name: str) -> Any:
        return self.results.get(name)

    def matching(self, scorer: str, level: str = "identity") -> Matching | None:
        """Error rates of a scorer; None if the stage `matching` has no result."""
        measured = self["measured"]
        return None if measured is None else measured.levels[level][scorer]

    @property
    def ranked(self) -> PairRanking | None:
        """The prediction of `rank` for the pair."""
        ranked: PairRanking | None = self["ranked"]
        return ranked


@dataclass(frozen=True)
class PredictionSummary:
    """The ranking behind each pair's `ranked`; `n_permutations` is the number of shuffles behind its p-values."""

    ordered_by: str
    scorer: str
    coverage: float
    n_train_identities: int | None
    n_probe_samples: int | None
    n_permutations: int


@dataclass(frozen=True, eq=False, repr=False)
class Validation(Measurement):
    """Everything measured about every pair. `encsel.validate` makes it.

    Attributes:
        scorer: scorer of the EERs in the analysis and the tables.
        group_columns: number of people in each group, by column with one value per person.
        decision: what to do, by the ranking of the same set, or by measured EERs if that was skipped.
        ranking: the ranking of the same set; None if the stage was skipped.
        centroids: encoders with their (people, dim) centroids, from which `matcher` fits a matcher.
    """

    what: ClassVar[str] = "measured"
    schema: Literal["encsel.validate/2"]
    signature: Mapping[str, Any]
    signature_text: str
    protocol: str
    scorer: str
    layout: str
    calibration: SetSummary
    group_columns: Mapping[str, Mapping[str, int]]
    decision: Decision
    prediction: PredictionSummary | None
    encoders: tuple[EncoderValidation, ...]
    pairs: tuple[PairValidation, ...]
    analysis: Analysis
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    verdict: Verdict = field(default_factory=Verdict)
    ranking: Ranking | None = field(default=None, metadata=HIDDEN)
    centroids: Mapping[tuple[Modality, str], tuple[MatcherSide, Vectors]] = field(default_factory=dict, metadata=HIDDEN)
    strict_health: bool = field(default=False, metadata=HIDDEN)

    @property
    def best(self) -> PairValidation:
        """The pair with the lowest measured EER; the first pair if nothing was measured. See also `shortlist`."""
        return min(self.pairs, key=lambda p: m.eer if (m := p.matching(self.scorer)) else 2.0)

    @property
    def findings(self) -> dict[str, str]:
        return {e.name: "; ".join(h.findings) for e in self.encoders if (h := e["health"]) and h.findings}

    @property
    def unexamined(self) -> tuple[str, ...]:
        return tuple(e.name for e in self.encoders if not (h := e["health"]) or h.unimodal_eer is None)

    def explain(self, face: str, voice: str) -> Explanation:
        """Explain the prediction of `rank` for one pair.

        Raises:
            UsageError: no such pair, or the prediction was skipped or read from the cache.
        """
        if self.ranking is None:
            raise UsageError("The stage prediction was skipped, so there is no prediction to explain.")
        return self.ranking.explain(face, voice)

    def matcher(self, face: str | None = None, voice: str | None = None) -> Matcher:
        """Fit the matcher to deploy for one pair (the first by default) on all people; its `save` writes it.

        Raises:
            UsageError: no such pair.
        """
        from encsel.validation.matchers import matcher_of

        return matcher_of(self, f"{face or self.pairs[0].face}/{voice or self.pairs[0].voice}")

    def document(self) -> dict[str, Any]:
        document = super().document()
        for one in (*document["encoders"], *document["pairs"]):
            results = one.pop("results")
            # What the stage `metrics` found is in `metrics` and `columns`.
            del results["metrics"]
            one.update(results)
        return document
