"""Settings of the prediction: the cards, the level they predict for, and the numbers of shuffles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from encsel.embedding.prepare import Prepared
from encsel.errors import UsageError
from encsel.metrics.registry import metrics
from encsel.prediction.card import PROBE_SAMPLES, TRAIN_PEOPLE, CalibratedCard, tail
from encsel.prediction.evidence import EVIDENCE_VERSION
from encsel.prediction.predict import MIN_TO_PREDICT, N_SHUFFLES
from encsel.prediction.shipped import DEFAULT_REGRESSION, AnyCard, cards_for
from encsel.regression.card import GeometricCard
from encsel.storage.signature import LIBRARIES, digest, sign

METRICS = ("cka_biased", "cka_debiased", "cka_matched", "mle_median", "mle_harmonic", "two_nn", "two_nn_reference")
"""Metrics behind a ranking."""
MAX_FOR_MANY_PERMUTATIONS = 400
MANY_PERMUTATIONS, FEW_PERMUTATIONS = 999, 199


@dataclass(frozen=True)
class RankSettings:
    """Settings of the prediction.

    Attributes:
        regression: the card that orders, as requested.
        cards: the card that orders, then its companions; calibrated ones at the level asked for.
        level: training people and samples at test that the calibrated cards predict for.
        max_shuffles: limit on shuffles and permutations of more than 400 people; None: the usual numbers.
    """

    regression: str
    cards: tuple[AnyCard, ...]
    coverage: float
    level: tuple[int, int] = (TRAIN_PEOPLE, PROBE_SAMPLES)
    max_shuffles: int | None = None

    @classmethod
    def checked(
        cls,
        regression: str,
        coverage: float,
        *,
        level: tuple[int, int] = (TRAIN_PEOPLE, PROBE_SAMPLES),
        max_shuffles: int | None = None,
    ) -> RankSettings:
        """Load the cards and check the coverage.

        Raises:
            UsageError: unknown or unusable card, or a coverage or level outside the card's.
        """
        cards = cards_for(regression)
        if isinstance(cards[0], GeometricCard) and level != (TRAIN_PEOPLE, PROBE_SAMPLES):
            raise UsageError(
                f"--train-people and --probe-samples need a calibrated card, which {cards[0].name} is not. Choose "
                f"another --regression, such as {DEFAULT_REGRESSION}."
            )
        cards = tuple(card.at(*level) if isinstance(card, CalibratedCard) else card for card in cards)
        for card in cards:
            if isinstance(card, CalibratedCard):
                tail(card, coverage, MIN_TO_PREDICT)
        return cls(regression, cards, coverage, level, max_shuffles)

    def n_shuffles(self, n_people: int) -> int:
        return N_SHUFFLES if n_people <= MAX_FOR_MANY_PERMUTATIONS or not self.max_shuffles else self.max_shuffles

    def n_permutations(self, n_people: int) -> int:
        if n_people <= MAX_FOR_MANY_PERMUTATIONS:
            return MANY_PERMUTATIONS
        return self.max_shuffles or FEW_PERMUTATIONS

    def signature(
        self,
        prepared: Prepared,
        *,
        metrics_used: Sequence[str] = METRICS,
        options: Mapping[str, Any] | None = None,
        libraries: Sequence[str] = LIBRARIES,
    ) -> dict[str, Any]:
        """The signature of a result, with metrics, options and libraries of the workflow."""
        n, groups = len(prepared.people), prepared.shuffling.groups
        named = self.regression if self.regression in {c.name for c in self.cards} else self.cards[0].name
        return sign(
            data={"layout": prepared.calibration.layout, "sha256": prepared.embedded.data_sha256},
            encoders={
                # The name of a file is private; its hash identifies the content.
                f"{e.modality}:{e.name}": {key: value for key, value in e.provenance.items() if key != "file"}
                for e in prepared.embedded.embeddings
            },
            regressions={card.name: card.sha256 for card in self.cards},
            metrics={**{name: metrics()[name].version for name in metrics_used}, "evidence": EVIDENCE_VERSION},
            options={
                "seed": prepared.seed, "identities": prepared.options.identities,
                "samples_per_identity": prepared.options.samples_per_identity, "within": prepared.shuffling.within,
                "groups": None if groups is None else digest(groups.tolist()),
                "regression": named, "train_people": self.level[0], "probe_samples": self.level[1],
                "coverage": self.coverage, "n_permutations": self.n_permutations(n),
                "n_shuffles": self.n_shuffles(n), **(options or {}),
            },
            libraries=libraries,
        )  # fmt: skip
