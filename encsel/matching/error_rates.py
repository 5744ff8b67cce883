"""Error rates of scores: EER, AUC, FNMR, DET, two-choice accuracy, retrieval, and their intervals over people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration
from encsel.matching.eer import eer_of_sorted, placements_among_sorted
from encsel.matching.sensitivity import distance_error, eer_interval, normal_quantile

FMRS = (0.01, 0.1)
"""False match rates at which the false non-match rate is reported."""
RANKS = (1, 5, 10)
RULE_OF_30 = 30
COVERAGE = 0.9
SPREAD = 1.45
"""Factor on the placement standard error that makes 90 % intervals of a cross-validated AUC cover (.85 to .95)."""
N_DET = 60

WAYS = ("face_to_voice", "voice_to_face")


@dataclass(frozen=True)
class Retrieval:
    """A face looks for its person's voices among the test people's, or a voice for faces. Shares in [0, 1].

    Attributes:
        recall: by rank (1, 5, 10), of queries with a hit among so many; `chance`: what luck gives.
        mean_average_precision: over queries.
        gallery: mean number of candidates.
    """

    recall: Mapping[str, float]
    chance: Mapping[str, float]
    mean_average_precision: float
    gallery: float


@dataclass(frozen=True)
class Matching:
    """How well a matcher tells genuine from impostor pairs of a face and a voice. Shares in [0, 1].

    Attributes:
        eer: over all folds and repeats pooled, on the full ROC, linear between its points.
        interval: of the EER, 90 %, over people: their placement standard error, as a shift of d'. None with one person.
        auc, auc_se: mean over people of the share of impostor scores below a genuine one, and its standard error.
        fnmr_at: false non-match rate at a false match rate of at most the key.
        det: (false match rate, false non-match rate), the first ascending.
        two_choice: by WAYS, how often the genuine one of two candidates scores higher; 0.5 is chance.
        retrieval: by WAYS. A way in which nobody had a choice is missing in both.
        n_errors: people among those tested whom the EER would reject; under 30 (`few_errors`) the true rate may be
            more than a third off, by the rule of 30.
    """

    eer: float
    interval: tuple[float, float] | None
    auc: float
    auc_se: float | None
    fnmr_at: Mapping[str, float]
    det: tuple[tuple[float, float], ...]
    two_choice: Mapping[str, float]
    retrieval: Mapping[str, Retrieval]
    n_people: int
    n_genuine: int
    n_impostor: int
    n_errors: float

    @property
    def few_errors(self) -> bool:
        return self.n_errors < RULE_OF_30


class Tally:
    """Collects blocks of scores, each of test people who are scored against one another, and sums them up."""

    def __init__(self) -> None:
        self._genuine: list[Vectors] = []
        self._impostor: list[Vectors] = []
        self._placed: dict[Any, list[float]] = {}
        self._choices: dict[str, list[float]] = {way: [0.0, 0.0] for way in WAYS}
        self._retrieval: dict[str, NDArray[np.float64]] = {way: np.zeros(2 * len(RANKS) + 3) for way in WAYS}

    @property
    def is_empty(self) -> bool:
        """No block so far had both genuine and impostor pairs."""
        return not self._genuine

    def add(self, scores: Vectors, faces: NDArray[Any], voices: NDArray[Any]) -> None:
        """One block.

        Args:
            scores: (faces, voices), higher is more alike.
            faces, voices: whose each row and each column is. A person on one side only is an impostor to all.
        """
        same = faces[:, None] == voices
        if not same.any() or same.all():
            return
        own, others = scores[same], np.sort(scores[~same])
        placements = placements_among_sorted(own, others)
        owners = np.broadcast_to(faces[:, None], same.shape)[same]
        people, index, counts = np.unique(owners, return_inverse=True, return_counts=True)
        means = np.bincount(index, placements) / counts
        for person, mean in zip(people.tolist(), means.tolist(), strict=True):
            self._placed.setdefault(person, []).append(mean)
        self._genuine.append(own)
        self._impostor.append(others)
        for way, matrix, hits in ((WAYS[0], scores, same), (WAYS[1], scores.T, same.T)):
            self._search(way, matrix, hits)

    def result(self) -> Matching:
        """What all blocks together say.

        Raises:
            BadCalibration: no block had both genuine and impostor pairs.
        """
        if self.is_empty:
            raise BadCalibration(
                "No test people with both a genuine and an impostor pair; an EER needs both. Add people."
            )
        genuine = np.sort(np.concatenate(self._genuine))
        # Blocks are sorted already, and a stable sort merges runs.
        impostor = np.sort(np.concatenate(self._impostor), kind="stable")
        placed = np.array([np.mean(values) for values in self._placed.values()])
        rate, auc, n = eer_of_sorted(genuine, impostor), float(placed.mean()), len(placed)
        error = float(placed.std(ddof=1) / math.sqrt(n)) if n > 1 else None
        return Matching(
            eer=rate,
            interval=None
            if error is None
            else eer_interval(rate, normal_quantile(COVERAGE) * SPREAD * distance_error(auc, error, n)),
            auc=auc,
            auc_se=error,
            fnmr_at={f"{fmr:g}": _fnmr(genuine, impostor, fmr) for fmr in FMRS},
            det=_det(genuine, impostor),
            two_choice={way: right / total for way, (right, total) in self._choices.items() if total},
            retrieval={way: _retrieval(sums) for way, sums in self._retrieval.items() if sums[-1]},
            n_people=n,
            n_genuine=len(genuine),
            n_impostor=len(impostor),
            n_errors=rate * n,
        )

    def _search(self, way: str, scores: Vectors, hits: NDArray[np.bool_]) -> None:
        """Rank every row's hits among its columns."""
        n_hits, gallery = hits.sum(axis=1), scores.shape[1]
        rows = np.flatnonzero((n_hits > 0) & (n_hits < gallery))
        if not len(rows):
            return
        scores, hits, n_hits = scores[rows], hits[rows], n_hits[rows]
        best: NDArray[Any] = np.full((len(rows), int(n_hits.max())), -np.inf, dtype=scores.dtype)
        at = np.arange(int(n_hits.max())) < n_hits[:, None]
        best[at] = scores[hits]
        best = -np.sort(-best, axis=1)
        rank = np.full(best.shape, np.nan)
        beaten = np.zeros(len(rows))
        for j in range(int(n_hits.max())):
            one = best[:, j : j + 1]
            above, level = (scores > one).sum(axis=1), (scores == one).sum(axis=1)
            own_above = (best > one).sum(axis=1)
            own_level = (best == one).sum(axis=1)
            # Hits come in order, j before this one; among others of the same score it takes the middle place.
            rank[:, j] = 1 + j + (above - own_above) + (level - own_level) / 2
            wins = gallery - above - level - (n_hits - own_above - own_level) + (level - own_level) / 2
            beaten += np.where(np.isfinite(one[:, 0]), wins, 0)
        rank = np.where(at, rank, np.nan)
        self._choices[way][0] += float(beaten.sum())
        self._choices[way][1] += float((n_hits * (gallery - n_hits)).sum())
        precision = np.nanmean(np.arange(1, int(n_hits.max()) + 1) / rank, axis=1)
        first = rank[:, 0]
        sums = self._retrieval[way]
        for i, k in enumerate(RANKS):
            sums[i] += float((first <= k).sum())
            sums[len(RANKS) + i] += sum(_chance_of_hit(gallery, int(h), k) * c for h, c in _counts(n_hits))
        sums[-3:] += (float(np.minimum(precision, 1).sum()), float(len(rows) * gallery), float(len(rows)))


def _counts(values: NDArray[np.intp]) -> list[tuple[int, int]]:
    found, counts = np.unique(values, return_counts=True)
    return list(zip(found.tolist(), counts.tolist(), strict=True))


def _chance_of_hit(gallery: int, hits: int, k: int) -> float:
    """That k candidates drawn at random hold one of the hits."""
    if k > gallery - hits:
        return 1.0
    return 1 - math.exp(
        math.lgamma(gallery - hits + 1) + math.lgamma(gallery - k + 1)
        - math.lgamma(gallery - hits - k + 1) - math.lgamma(gallery + 1)
    )  # fmt: skip


def _retrieval(sums: NDArray[np.float64]) -> Retrieval:
    count = sums[-1]
    return Retrieval(
        {str(k): float(sums[i] / count) for i, k in enumerate(RANKS)},
        {str(k): float(sums[len(RANKS) + i] / count) for i, k in enumerate(RANKS)},
        float(sums[-3] / count),
        float(sums[-2] / count),
    )


def _fnmr(genuine: Vectors, impostor: Vectors, fmr: float) -> float:
    """Both sorted. The threshold is the lowest that lets no more than `fmr` of impostors through."""
    n = len(impostor)
    allowed = math.floor(fmr * n * (1 + 1e-12))
    if allowed >= n:
        return 0.0
    # Accepted are scores above the highest impostor that must be refused.
    return float(np.searchsorted(genuine, impostor[n - allowed - 1], "right") / len(genuine))


def _det(genuine: Vectors, impostor: Vectors) -> tuple[tuple[float, float], ...]:
    n = len(impostor)
    wanted = np.unique(
        np.concatenate([np.geomspace(max(1e-4, 1 / n), 1, N_DET // 2), np.linspace(0.02, 0.98, N_DET // 2)])
    )
    return tuple((float(fmr), _fnmr(genuine, impostor, float(fmr))) for fmr in wanted)


def det(genuine: Vectors, impostor: Vectors) -> tuple[tuple[float, float], ...]:
    """Detection error trade-off: (false match rate, false non-match rate) points, the first ascending.

    Args:
        genuine, impostor: scores, any shape, finite; higher means more alike.
    """
    return _det(np.sort(np.ravel(genuine)), np.sort(np.ravel(impostor)))
