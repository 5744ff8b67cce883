"""Compare faces and voices from the same recordings with those from different recordings, for the same people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings
from encsel.matching.error_rates import Pool
from encsel.matching.folds import Folds, scored
from encsel.matching.projections import project_centroids
from encsel.matching.scorers import SCORERS, Side
from encsel.metrics.linear_cka import REFERENCE_SIZE, Gram, cka_of_grams, gram


@dataclass(frozen=True)
class RecordingsCompared:
    """One pair with faces and voices from the same (`same_`) and from different (`other_`) recordings.

    Each person's recordings are split into two halves repeatedly; both comparisons have equally many samples. EERs are
    by scorer, CKAs by form (`debiased`, `matched`).
    """

    n_people: int
    n_splits: int
    same_eer: Mapping[str, float]
    other_eer: Mapping[str, float]
    same_cka: Mapping[str, float]
    other_cka: Mapping[str, float]


@dataclass(frozen=True)
class Halves:
    """One encoder's centroids of both halves of everybody's recordings, by split, with Gram matrices."""

    sides: Sequence[Sequence[list[list[Side]]]]
    grams: Sequence[Sequence[Gram]]


def halves(embeddings: Embeddings, assignments: Sequence[NDArray[np.intp]], folds: Folds) -> Halves:
    """Project one encoder's centroids of both halves; by split, `assignments` (rows,) are 0, 1 or -1 to leave out."""
    sides, grams = [], []
    for assignment, repeat in zip(assignments, folds, strict=True):
        both = [embeddings.rows(assignment == half).centroids for half in (0, 1)]
        sides.append([project_centroids(x, [repeat]) for x in both])
        grams.append([gram(x) for x in both])
    return Halves(sides, grams)


def compare_recordings(face: Halves, voice: Halves, folds: Folds) -> RecordingsCompared:
    """One pair, from both encoders' `halves` of the same people and recordings."""
    rates, ckas = [], []
    for pairs in (((0, 0), (1, 1)), ((0, 1), (1, 0))):
        pools = {name: Pool() for name in SCORERS}
        forms = []
        for f, v, fg, vg, repeat in zip(face.sides, voice.sides, face.grams, voice.grams, folds, strict=True):
            for i, j in pairs:
                for name, test, scores in scored(f[i], v[j], [repeat]):
                    pools[name].add(scores, test, test)
                forms.append(cka_of_grams(fg[i], vg[j], matched_to=REFERENCE_SIZE))
        rates.append({name: pool.rates().eer for name, pool in pools.items()})
        ckas.append({name: float(np.mean([getattr(form, name) for form in forms])) for name in ("debiased", "matched")})
    n = sum(len(part) for part in folds[0][0])
    return RecordingsCompared(n, len(folds), *rates, *ckas)
