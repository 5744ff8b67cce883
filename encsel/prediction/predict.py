"""Calibrated predictions for all pairs of one set: evidence, what cards make of it, and what shuffled people give."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.matching.crossval import MEASURED
from encsel.matching.sensitivity import distance_error, eer_interval
from encsel.metrics.centroids import harmonic_mean
from encsel.prediction.card import CalibratedCard, Estimate, distances, estimate, predicted_eer
from encsel.prediction.evidence import (
    CKA_FORMS,
    FEATURES,
    Evidence,
    Shuffled,
    encoder_evidence,
    evidence_folds,
    pair_evidence,
    shuffled_cka,
    shuffled_evidence,
    shuffles,
)
from encsel.progress import Progress, Silent

N_SHUFFLES = 199
WHOLE_SHUFFLES, WHOLE_PEOPLE = 20, 200
"""Shuffles that go through everything a prediction goes through, up to so many people."""
REPLICATE_COVERAGE = 0.9
MIN_TO_PREDICT = 30
"""Fewest people for which an EER is predicted."""
ALPHA = 0.05
"""A pair with a larger family-wise p-value is flagged as not above chance."""


@dataclass(frozen=True)
class PredictionNull:
    """What the ordering card would have said with faces and voices of different people put together.

    Attributes:
        predicted_eer, sd: mean and standard deviation over shuffles: up to 200 people over 20 that were measured in all
            as the pair itself; above, over all of them, from a few folds.
        p: share of shuffles with a prediction as good as the pair's own or better, itself included; from the same few
            folds for both, so it is exact.
        p_familywise: share of shuffles in which any pair of the set stands out as much (Westfall and Young).
        within: column within whose groups people were shuffled, if any.
    """

    predicted_eer: float
    sd: float
    p: float
    p_familywise: float
    n_permutations: int
    within: str | None


@dataclass(frozen=True)
class Measured:
    """What cross-validation measured with one scorer on these people, shares in [0, 1].

    `interval`: where 90 % of the values from as many other people would lie.
    """

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
    """How people are shuffled: `groups` (n,) numbers of the group of each person, of the column `within`."""

    within: str | None = None
    groups: NDArray[np.intp] | None = None


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
    """Predictions of every card for every pair (faces, voices).

    Args:
        faces, voices: centroids of each encoder, (n, dim), all of the same people in the same order.
        samples: per face and per voice encoder, median samples a person.
        cards: the one that orders first; its predictions are what shuffles are judged by.
    Raises:
        BadCalibration: under 10 people, or constant embeddings.
        UsageError: a coverage that a card has no errors for.
    """
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits

    progress, shuffling = progress or Silent(), shuffling or Shuffling()
    n = len(faces[0])
    folds = evidence_folds(n, seed=seed)
    orders = shuffles(folds, n_shuffles, seed=seed, groups=shuffling.groups)

    pairs = [(i, j) for i in range(len(faces)) for j in range(len(voices))]
    # Matrices of 50 x 50 gain nothing from threads inside; pairs do.
    threads = Parallel(n_jobs=os.cpu_count() or 1, prefer="threads", return_as="generator")
    n_whole = min(WHOLE_SHUFFLES, n_shuffles) if n <= WHOLE_PEOPLE else 0
    n_tasks = len(faces) + len(voices) + len(CKA_FORMS) + len(pairs) + n_whole
    with threadpool_limits(1), progress.task("cross-validation", n_tasks) as task:
        sides = []
        for one in threads(delayed(encoder_evidence)(x, folds) for x in (*faces, *voices)):
            sides.append(one)
            task.advance()
        of_face, of_voice = sides[: len(faces)], sides[len(faces) :]
        ckas = {}
        nulls_of_cka = threads(delayed(shuffled_cka)(of_face, of_voice, orders, form) for form in CKA_FORMS)
        for form, one in zip(CKA_FORMS, nulls_of_cka, strict=True):
            ckas[form] = one
            task.advance()

        def both(i: int, j: int) -> tuple[Evidence, Shuffled]:
            cka = {form: values[:, j, i] for form, values in ckas.items()}
            face, voice = of_face[i], of_voice[j]
            return pair_evidence(face, voice, folds), shuffled_evidence(face, voice, folds, orders, cka)

        found = []
        for pair in threads(delayed(both)(i, j) for i, j in pairs):
            found.append(pair)
            task.advance()

        def whole(order: NDArray[np.intp]) -> list[Evidence]:
            moved = [encoder_evidence(x[order], folds) for x in voices]
            return [pair_evidence(of_face[i], moved[j], folds) for i, j in pairs]

        wholes = []
        for one in threads(delayed(whole)(order) for order in orders[:n_whole]):
            wholes.append(one)
            task.advance()

    m = [harmonic_mean(samples[0][i], samples[1][j]) for i, j in pairs]
    nulls = _nulls(cards[0], found, wholes, n, m, shuffling.within)
    replicate = {card.scorer: card.replicate for card in reversed(cards)}
    flat = [
        PairPrediction(
            evidence,
            size,
            {card.name: estimate(card, evidence, n, size, coverage=coverage) for card in cards},
            {s: _measured(evidence, s, replicate[s]) for s in MEASURED if s in replicate},
            null,
        )
        for (evidence, _), size, null in zip(found, m, nulls, strict=True)
    ]
    return [flat[i * len(voices) : (i + 1) * len(voices)] for i in range(len(faces))]


def _nulls(
    card: CalibratedCard,
    found: Sequence[tuple[Evidence, Shuffled]],
    wholes: Sequence[Sequence[Evidence]],
    n: int,
    m: Sequence[float],
    within: str | None,
) -> list[PredictionNull]:
    """Args: `wholes`: evidence of all pairs in each shuffle that was measured in all."""
    observed = np.array([distances(card, s.observed, n, size) for (_, s), size in zip(found, m, strict=True)])
    shuffled = np.array([distances(card, s.values, n, size) for (_, s), size in zip(found, m, strict=True)])
    count = shuffled.shape[1]
    mean, sd = shuffled.mean(axis=1), np.maximum(shuffled.std(axis=1), 1e-12)
    # Ties through rounding must count as ties, or a constant statistic would look like the best of all.
    p = (1 + (shuffled >= observed[:, None] - 1e-12).sum(axis=1)) / (1 + count)
    largest = ((shuffled - mean[:, None]) / sd[:, None]).max(axis=0)
    stands_out = (observed - mean) / sd
    familywise = (1 + (largest >= stands_out[:, None] - 1e-12).sum(axis=1)) / (1 + count)
    if wholes:
        values = np.array([[[e.values[name] for name in FEATURES] for e in pairs] for pairs in wholes])
        said = predicted_eer(np.array([distances(card, values[:, i], n, size) for i, size in enumerate(m)]))
    else:
        said = predicted_eer(shuffled)
    return [
        PredictionNull(float(said[i].mean()), float(said[i].std()), float(p[i]), float(familywise[i]), count, within)
        for i in range(len(found))
    ]


def _measured(evidence: Evidence, scorer: str, replicate: float) -> Measured:
    scored = evidence.cross_validated.scored[scorer]
    half = replicate * distance_error(scored.auc, scored.auc_se, evidence.cross_validated.n_people)
    return Measured(scorer, scored.eer, scored.auc, eer_interval(scored.eer, half))
