"""Error rates of scores: EER, AUC, FNMR, DET, two-choice accuracy, retrieval, and their intervals over people."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration
from encsel.matching.cllr import cllr, min_cllr
from encsel.matching.eer import EerRule, auc_placements, eer_of_sorted
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
    """Search with a face for its person's voices among those of all test people, or the reverse. Fractions in [0, 1].

    `recall` is the fraction of queries with a hit up to a rank (1, 5, 10), `chance` the same at random, `gallery` the
    mean number of candidates.
    """

    recall: Mapping[str, float]
    chance: Mapping[str, float]
    mean_average_precision: float
    gallery: float


@dataclass(frozen=True)
class Matching:
    """How well a matcher separates genuine from impostor pairs of a face and a voice. Fractions in [0, 1].

    Attributes:
        eer: EER pooled over all folds and repeats, on the full ROC with linear interpolation unless a rule is given.
        interval: 90 % interval of the EER over people, from the standard error of d'. None with one person.
        auc: mean over people of the fraction of impostor scores below a genuine one; `auc_se`: its standard error.
        fnmr_at: false non-match rate at a false match rate of at most the key.
        det: (false match rate, false non-match rate), the first ascending.
        two_choice: by WAYS, how often the genuine one of two candidates scores higher; 0.5 is chance.
        retrieval: by WAYS. A way in which nobody had a choice is missing in both.
        cllr, min_cllr: cost of the scores as log likelihood ratios, as they are and calibrated; None for other scores.
        n_errors: number of tested people whom a matcher at the EER rejects; with fewer than 30 (`few_errors`) the true
            rate may differ by more than a third (rule of 30).
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
    cllr: float | None = None
    min_cllr: float | None = None

    @property
    def few_errors(self) -> bool:
        return self.n_errors < RULE_OF_30


@dataclass(frozen=True)
class Rates:
    """EER pooled over blocks of scores, and mean AUC over people with its standard error (None with one person)."""

    eer: float
    auc: float
    auc_se: float | None
    n_people: int


class Pool:
    """A collector of blocks of scores, each of test people scored against one another."""

    def __init__(self, eer_rule: EerRule = eer_of_sorted) -> None:
        self._eer_rule = eer_rule
        self._genuine: list[Vectors] = []
        self._impostor: list[Vectors] = []
        self._placed: dict[Any, list[float]] = {}
        self.block_aucs: list[float] = []

    @property
    def is_empty(self) -> bool:
        """Whether no block so far had both genuine and impostor pairs."""
        return not self._genuine

    def add(self, scores: Vectors, faces: NDArray[Any], voices: NDArray[Any]) -> None:
        """Add (faces, voices) scores of these people; a person on one side only is an impostor to all."""
        same = faces[:, None] == voices
        if not same.any() or same.all():
            return
        genuine, impostor = scores[same], np.sort(scores[~same])
        placements = auc_placements(genuine, impostor)
        owners = np.broadcast_to(faces[:, None], same.shape)[same]
        people, index, counts = np.unique(owners, return_inverse=True, return_counts=True)
        means = np.bincount(index, placements) / counts
        for person, mean in zip(people.tolist(), means.tolist(), strict=True):
            self._placed.setdefault(person, []).append(mean)
        self.block_aucs.append(float(placements.mean()))
        self._genuine.append(genuine)
        self._impostor.append(impostor)

    def sorted_scores(self) -> tuple[Vectors, Vectors]:
        """Ascending genuine and impostor scores of all blocks; BadCalibration if no block had both."""
        if self.is_empty:
            raise BadCalibration(
                "No test people with both a genuine and an impostor pair; an EER needs both. Add people."
            )
        # Blocks of impostors are sorted already, and a stable sort merges runs.
        return np.sort(np.concatenate(self._genuine)), np.sort(np.concatenate(self._impostor), kind="stable")

    def rates(self) -> Rates:
        """EER and AUC of all blocks."""
        return self._rates_of(*self.sorted_scores())

    def _rates_of(self, genuine: Vectors, impostor: Vectors) -> Rates:
        placed = np.array([np.mean(values) for values in self._placed.values()])
        n = len(placed)
        error = float(placed.std(ddof=1) / math.sqrt(n)) if n > 1 else None
        return Rates(self._eer_rule(genuine, impostor), float(placed.mean()), error, n)


class Tally(Pool):
    """A pool of scores that yields everything in `Matching`."""

    def __init__(self, eer_rule: EerRule = eer_of_sorted) -> None:
        super().__init__(eer_rule)
        self._choices: dict[str, list[float]] = {way: [0.0, 0.0] for way in WAYS}
        self._retrieval: dict[str, NDArray[np.float64]] = {way: np.zeros(2 * len(RANKS) + 3) for way in WAYS}

    def add(self, scores: Vectors, faces: NDArray[Any], voices: NDArray[Any]) -> None:
        super().add(scores, faces, voices)
        same = faces[:, None] == voices
        self._search(WAYS[0], scores, same)
        self._search(WAYS[1], scores.T, same.T)

    def result(self, *, are_ratios: bool = False) -> Matching:
        """Error rates of all blocks together; BadCalibration if no block had both genuine and impostor pairs."""
        genuine, impostor = self.sorted_scores()
        rates = self._rates_of(genuine, impostor)
        rate, n, interval = rates.eer, rates.n_people, None
        if rates.auc_se is not None:
            half = normal_quantile(COVERAGE) * SPREAD * distance_error(rates.auc, rates.auc_se, n)
            interval = eer_interval(rate, half)
        return Matching(
            eer=rate,
            interval=interval,
            auc=rates.auc,
            auc_se=rates.auc_se,
            fnmr_at={f"{fmr:g}": _fnmr(genuine, impostor, fmr) for fmr in FMRS},
            det=det(genuine, impostor),
            two_choice={way: right / total for way, (right, total) in self._choices.items() if total},
            retrieval={way: _retrieval(sums) for way, sums in self._retrieval.items() if sums[-1]},
            n_people=n,
            n_genuine=len(genuine),
            n_impostor=len(impostor),
            n_errors=rate * n,
            cllr=cllr(genuine, impostor) if are_ratios else None,
            min_cllr=min_cllr(genuine, impostor) if are_ratios else None,
        )

    def _search(self, way: str, scores: Vectors, hits: NDArray[np.bool_]) -> None:
        """Rank every row's hits among its columns."""
        n_hits, gallery = hits.sum(axis=1), scores.shape[1]
        rows = np.flatnonzero((n_hits > 0) & (n_hits < gallery))
        if not len(rows):
            return
        scores, hits, n_hits = scores[rows], hits[rows], n_hits[rows]
        places = np.arange(1, int(n_hits.max()) + 1)
        is_hit = places <= n_hits[:, None]
        best: NDArray[Any] = np.full(is_hit.shape, -np.inf, dtype=scores.dtype)
        best[is_hit] = scores[hits]
        best = -np.sort(-best, axis=1)
        others = np.where(hits, -np.inf, scores)
        # A hit takes the middle place among candidates with the same score.
        ahead = np.stack(
            [(others > one).sum(axis=1) + (others == one).sum(axis=1) / 2 for one in best.T[:, :, None]], axis=1
        )
        ahead = np.where(is_hit, ahead, np.nan)
        rank, n_others = places + ahead, gallery - n_hits
        self._choices[way][0] += float(np.nansum(n_others[:, None] - ahead))
        self._choices[way][1] += float((n_hits * n_others).sum())
        precision = np.minimum(np.nanmean(places / rank, axis=1), 1)
        counts = Counter(n_hits.tolist())
        chances = [sum(_chance_of_hit(gallery, h, k) * n for h, n in counts.items()) for k in RANKS]
        recalls = [(rank[:, 0] <= k).sum() for k in RANKS]
        self._retrieval[way] += [*recalls, *chances, precision.sum(), len(rows) * gallery, len(rows)]


def _chance_of_hit(gallery: int, hits: int, k: int) -> float:
    """Probability that k candidates drawn at random include one of the hits."""
    k = min(k, gallery)
    return 1 - math.comb(gallery - hits, k) / math.comb(gallery, k)


def _retrieval(sums: NDArray[np.float64]) -> Retrieval:
    *by_rank, precision, gallery = (sums[:-1] / sums[-1]).tolist()
    ranks = [str(k) for k in RANKS]
    recall, chance = by_rank[: len(RANKS)], by_rank[len(RANKS) :]
    return Retrieval(dict(zip(ranks, recall, strict=True)), dict(zip(ranks, chance, strict=True)), precision, gallery)


def _fnmr(genuine: Vectors, impostor: Vectors, fmr: float) -> float:
    """False non-match rate, from ascending scores, at the lowest threshold that at most `fmr` of impostors reach."""
    n = len(impostor)
    allowed = math.floor(fmr * n * (1 + 1e-12))
    if allowed >= n:
        return 0.0
    # Scores above the highest impostor that must be rejected are accepted.
    return float(np.searchsorted(genuine, impostor[n - allowed - 1], "right") / len(genuine))


def det(genuine: Vectors, impostor: Vectors) -> tuple[tuple[float, float], ...]:
    """Detection error trade-off of scores: (false match rate, false non-match rate) points, the first ascending."""
    genuine, impostor = (np.sort(np.ravel(scores), kind="stable") for scores in (genuine, impostor))
    lowest = max(1e-4, 1 / len(impostor))
    rates = np.unique(np.concatenate([np.geomspace(lowest, 1, N_DET // 2), np.linspace(0.02, 0.98, N_DET // 2)]))
    return tuple((float(fmr), _fnmr(genuine, impostor, float(fmr))) for fmr in rates)
