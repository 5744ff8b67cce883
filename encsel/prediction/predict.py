"""Calibrated predictions for all pairs of one set: evidence, the cards' estimates, and a null of shuffled people."""

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.matching.crossval import MEASURED
from encsel.matching.folds import Folds
from encsel.matching.sensitivity import distance_error, eer_interval
from encsel.metrics.centroids import harmonic_mean
from encsel.parallel.tasks import is_distributed, run
from encsel.prediction.card import CalibratedCard, Estimate, Values, distances, estimate, predicted_eer
from encsel.prediction.evidence import (
    COSTLY,
    FEATURES,
    FROM_GRAMS,
    EncoderEvidence,
    Evidence,
    encoder_evidence,
    evidence_folds,
    pair_evidence,
)
from encsel.prediction.shuffled import (
    costly_features,
    folds_of_shuffles,
    shuffled_features,
    shuffled_from_grams,
    shuffles,
)
from encsel.progress import Progress, Silent
from encsel.rows import return_memory
from encsel.threads import one_thread

N_SHUFFLES = 199
COMPLETE_SHUFFLES = 8
"""Number of shuffles with all of the evidence, for the prediction at chance."""
MANY_PAIRS, N_TIMED = 50, 5
"""Number of pairs from which the time is told in advance, and number of shuffles that are timed for that."""
PARTS = 8
"""Tasks that the shuffles of one voice encoder are split into."""
REPLICATE_COVERAGE = 0.9
MIN_TO_PREDICT = 30
"""Fewest people for which an EER is predicted."""
ALPHA, CHANCE = 0.05, 0.5
"""A pair whose family-wise p-value exceeds ALPHA is flagged as not above chance; its interval reaches CHANCE."""


@dataclass(frozen=True)
class PredictionNull:
    """Predictions of the ordering card for faces and voices of different people.

    Attributes:
        predicted_eer, sd: mean and standard deviation, over 8 shuffles with all of the evidence, in one repeat of the
            cross-validation.
        p: permutation p-value: fraction of shuffles, the unshuffled set included, with a prediction at least as good by
            the first card that needs none of the COSTLY evidence; all use the same few folds, so it is exact.
        p_familywise: fraction of shuffles in which any pair of the set is as extreme (Westfall and Young).
        within: column within whose groups people were shuffled, if any.
        chance: the level of chance: 0.5, or within groups the EER of knowing only the group.
        p_across: family-wise p-value of shuffles across groups; None without groups.
    """

    predicted_eer: float | None
    sd: float | None
    p: float
    p_familywise: float
    n_permutations: int
    within: str | None
    chance: float
    p_across: float | None

    @property
    def told(self) -> bool:
        """Whether the pair is above chance."""
        return self.p_familywise <= ALPHA

    @property
    def only_groups(self) -> bool:
        """Whether the pair is above chance only across groups, so that it may reflect nothing but the groups."""
        return not self.told and self.p_across is not None and self.p_across <= ALPHA


@dataclass(frozen=True)
class Measured:
    """Cross-validated rates of one scorer; `interval` contains 90 % of the rates of as many other people."""

    scorer: str
    eer: float
    auc: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class PairPrediction:
    """One pair. `estimates` by the name of the card; `measured` by scorer."""

    evidence: Evidence
    samples: float
    estimates: Mapping[str, Estimate]
    measured: Mapping[str, Measured]
    null: PredictionNull


@dataclass(frozen=True)
class Shuffling:
    """Groups within which people are shuffled: (n,) `groups`, numbers of each person's value in the column `within`.

    `compared`: pairs are also judged by shuffles across groups, and by the EER of knowing only the group.
    """

    within: str | None = None
    groups: NDArray[np.intp] | None = None
    compared: bool = False

    def of(self, people: NDArray[np.intp]) -> "Shuffling":
        """The same for some of the people."""
        return self if self.groups is None else replace(self, groups=self.groups[people])

    @property
    def chance(self) -> float:
        """EER of a matcher that knows only the group and gives equal scores within it; 0.5 without groups."""
        if self.groups is None or not self.compared:
            return CHANCE
        sizes = np.bincount(self.groups)
        same = float((sizes * (sizes - 1)).sum() / (sizes.sum() * (sizes.sum() - 1)))
        return same / (1 + same)


def predict_pairs(
    faces: Sequence[Vectors],
    voices: Sequence[Vectors],
    samples: tuple[Sequence[float], Sequence[float]],
    cards: Sequence[CalibratedCard],
    *,
    seed: int,
    coverage: float = 0.9,
    n_shuffles: int = N_SHUFFLES,
    shuffling: Shuffling | None = None,
    progress: Progress | None = None,
) -> list[list[PairPrediction]]:
    """Predictions of every card for every pair, by face, then voice.

    Args:
        faces, voices: (n, dim) centroids of each encoder, all of the same people in the same order.
        samples: median samples per person of each face and each voice encoder.
        cards: the card that orders comes first, and the null is that of its predictions. At least one card must need no
            COSTLY evidence.
    """
    from joblib import delayed

    progress, shuffling = progress or Silent(), shuffling or Shuffling()
    n = len(faces[0])
    folds = evidence_folds(n, seed=seed)
    orders = shuffles(n, n_shuffles, seed=seed, groups=shuffling.groups)
    across = shuffles(n, n_shuffles, seed=seed) if shuffling.compared else orders[:0]

    pairs = [(i, j) for i in range(len(faces)) for j in range(len(voices))]
    used = folds_of_shuffles(folds)
    every = np.vstack([np.arange(n), orders, across])
    parts = np.array_split(every, PARTS)
    n_complete = min(COMPLETE_SHUFFLES, n_shuffles)
    n_tasks = len(faces) + len(voices) + len(FROM_GRAMS) + len(pairs) + len(voices) * (PARTS + n_complete)
    with progress.task("cross-validation", n_tasks) as task:

        def done(calls: Iterable[Any]) -> list[Any]:
            results = {}
            for i, one in run(calls):
                results[i] = one
                task.advance()
            return_memory()
            return [results[i] for i in sorted(results)]

        sides_of_all = done(delayed(encoder_evidence)(x, folds) for x in (*faces, *voices))
        of_face, of_voice = sides_of_all[: len(faces)], sides_of_all[len(faces) :]
        if len(pairs) >= MANY_PAIRS and not is_distributed():
            seconds = _seconds_of_pairs(of_face, of_voice, voices[0], folds, every, n_complete)
            minutes = math.ceil(seconds / (os.cpu_count() or 1) / 60)
            progress.note(f"{len(pairs)} pairs of {n} people: about {minutes} min on this machine.")
        measured: list[Evidence] = done(delayed(pair_evidence)(of_face[i], of_voice[j], folds) for i, j in pairs)
        by_part = done(delayed(shuffled_features)(of_face, v, used, part) for v in of_voice for part in parts)
        # (voices, orders, faces, FEATURES)
        shuffled = np.array([np.concatenate(by_part[k : k + PARTS]) for k in range(0, len(by_part), PARTS)])
        of_grams = done(delayed(shuffled_from_grams)(of_face, of_voice, every[1:], name) for name in FROM_GRAMS)
        for name, values in zip(FROM_GRAMS, of_grams, strict=True):
            shuffled[..., list(FEATURES).index(name)] = values.transpose(1, 0, 2)
        first = every[1 : 1 + n_complete]
        costly = done(delayed(costly_features)(of_face, x, used, order) for order in first for x in voices)
        complete = shuffled[:, 1 : 1 + n_complete].copy()
        for k, values in enumerate(costly):
            number, j = divmod(k, len(voices))
            known = complete[j, number]
            complete[j, number] = np.where(np.isnan(known), values, known)

    m = [harmonic_mean(samples[0][i], samples[1][j]) for i, j in pairs]
    of_pairs = np.array([shuffled[j, :, i] for i, j in pairs])
    of_complete = np.array([complete[j, :, i] for i, j in pairs]).transpose(1, 0, 2)
    nulls = _nulls(cards, of_pairs, of_complete, n, m, shuffling, n_shuffles)
    replicate = {card.scorer: card.replicate for card in reversed(cards)}

    def estimates(evidence: Evidence, size: float, null: PredictionNull) -> dict[str, Estimate]:
        found = {card.name: estimate(card, evidence, n, size, coverage=coverage) for card in cards}
        if not null.told:
            # A pair that is not above chance may be at chance.
            level = null.chance if null.only_groups else CHANCE
            found = {
                name: replace(e, interval=(min(e.interval[0], level), max(e.interval[1], level)))
                for name, e in found.items()
            }
        return found

    flat = [
        PairPrediction(
            evidence,
            size,
            estimates(evidence, size, null),
            {s: _measured(evidence, s, replicate[s]) for s in MEASURED if s in replicate},
            null,
        )
        for evidence, size, null in zip(measured, m, nulls, strict=True)
    ]
    return [flat[i * len(voices) : (i + 1) * len(voices)] for i in range(len(faces))]


def _seconds_of_pairs(
    faces: Sequence[EncoderEvidence],
    voices: Sequence[EncoderEvidence],
    x: Vectors,
    folds: Folds,
    every: NDArray[np.intp],
    n_complete: int,
) -> float:
    """Processor seconds that all pairs take, with their shuffles, from some of the first pair; `x`: its voice."""
    used, few, pair = folds_of_shuffles(folds), every[:N_TIMED], (faces[0], voices[0])

    def seconds(function: Callable[..., Any], *arguments: Any) -> float:
        taken = []
        for _ in range(2):  # the first call loads and computes what later ones share
            start = time.process_time()
            function(*arguments)
            taken.append(time.process_time() - start)
        return min(taken)

    def of_voice(function: Callable[..., Any], *arguments: Any) -> float:
        # What a voice takes whatever the number of faces, and what each face adds.
        one, two = (seconds(function, [pair[0]] * n, *arguments) for n in (1, 2))
        added = max(two - one, 0.0)
        return one - added + added * len(faces)

    with one_thread():
        paired = seconds(pair_evidence, *pair, folds) * len(faces)
        shuffled = of_voice(shuffled_features, pair[1], used, few) * len(every) / len(few)
        costly = of_voice(costly_features, x, used, every[0]) * n_complete
    return (paired + shuffled + costly) * len(voices)


def _nulls(
    cards: Sequence[CalibratedCard],
    values: Values,
    complete: Values,
    n: int,
    m: Sequence[float],
    shuffling: Shuffling,
    n_within: int,
) -> list[PredictionNull]:
    """Null of each pair.

    Args:
        values: (pairs, 1 + shuffles, FEATURES), unshuffled first, then `n_within` shuffles within groups, and those
            across groups, if any.
        complete: (shuffles, pairs, FEATURES) of shuffles with all evidence.
    """
    judge = next(card for card in cards if not set(COSTLY) & set(card.features))
    found = np.array([distances(judge, of_pair, n, size) for of_pair, size in zip(values, m, strict=True)])
    observed, within, rest = np.split(found, [1, 1 + n_within], axis=1)
    p, familywise = _p_values(observed[:, 0], within)
    across = _p_values(observed[:, 0], rest)[1].tolist() if shuffling.compared else [None] * len(values)
    eers = [predicted_eer(distances(cards[0], complete[:, i], n, size)) for i, size in enumerate(m)]
    return [
        PredictionNull(
            float(eers[i].mean()), float(eers[i].std()), float(p[i]), float(familywise[i]), n_within, shuffling.within,
            shuffling.chance, across[i],
        )
        for i in range(len(values))
    ]  # fmt: skip


def _p_values(observed: Values, shuffled: Values) -> tuple[Values, Values]:
    """(pairs,) p-values, and family-wise ones, of (pairs,) observed values against (pairs, shuffles) ones."""
    count = shuffled.shape[1]
    mean, sd = shuffled.mean(axis=1), np.maximum(shuffled.std(axis=1), 1e-12)
    # Ties up to rounding must count as ties, or a constant statistic would look like the best of all.
    p = (1 + (shuffled >= observed[:, None] - 1e-12).sum(axis=1)) / (1 + count)
    largest = ((shuffled - mean[:, None]) / sd[:, None]).max(axis=0)
    stands_out = (observed - mean) / sd
    return p, (1 + (largest >= stands_out[:, None] - 1e-12).sum(axis=1)) / (1 + count)


def _measured(evidence: Evidence, scorer: str, replicate: float) -> Measured:
    scored = evidence.cross_validated.scored[scorer]
    half = replicate * distance_error(scored.auc, scored.auc_se, evidence.cross_validated.n_people)
    return Measured(scorer, scored.eer, scored.auc, eer_interval(scored.eer, half))
