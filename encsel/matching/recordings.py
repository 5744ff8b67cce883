"""The same people with faces and voices from the same recordings, and from different ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Vectors
from encsel.matching.evaluate import tally_by_scorer
from encsel.matching.folds import Folds, scored
from encsel.matching.projections import project_centroids
from encsel.matching.scorers import (
    Side,
)
from encsel.metrics.centroids import centroids
from encsel.metrics.linear_cka import REFERENCE_SIZE, Gram, cka_of_grams, gram


@dataclass(frozen=True)
class RecordingsCompared:
    """The same people with faces and voices from the same recordings, and from different ones.

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
    """One encoder's centroids of half A and half B of everybody's recordings, by split, with Gram matrices."""

    sides: tuple[tuple[list[list[Side]], list[list[Side]]], ...]
    grams: tuple[tuple[Gram, Gram], ...]


def halves(embeddings: Embeddings, assignments: Sequence[NDArray[np.intp]], folds: Folds) -> Halves:
    """One encoder's centroids of both halves, by split.

    Args:
        assignments: by split, (rows,) half of each sample, 0 or 1, or -1 to leave it out; every person must have both.
        folds: one repeat per split.
    """
    sides, grams = [], []
    for assignment, repeat in zip(assignments, folds, strict=True):
        both = [centroids(embeddings.rows(assignment == half)) for half in (0, 1)]
        sides.append((project_centroids(both[0], [repeat]), project_centroids(both[1], [repeat])))
        grams.append((gram(both[0]), gram(both[1])))
    return Halves(tuple(sides), tuple(grams))


def compare_recordings(face: Halves, voice: Halves, folds: Folds) -> RecordingsCompared:
    """One pair, from both encoders' `halves` of the same people and recordings."""
    combinations = {"same": ((0, 0), (1, 1)), "other": ((0, 1), (1, 0))}
    rates, ckas = {}, {}
    for kind, pairs in combinations.items():
        scores: list[tuple[str, NDArray[np.intp], Vectors]] = []
        forms = []
        for f, v, fg, vg, repeat in zip(face.sides, voice.sides, face.grams, voice.grams, folds, strict=True):
            for i, j in pairs:
                scores += scored(f[i], v[j], [repeat])
                forms.append(cka_of_grams(fg[i], vg[j], matched_to=REFERENCE_SIZE))
        rates[kind] = {name: matching.eer for name, matching in tally_by_scorer(scores).items()}
        ckas[kind] = {
            "debiased": float(np.mean([form.debiased for form in forms])),
            "matched": float(np.mean([form.matched for form in forms])),
        }
    n = sum(len(part) for part in folds[0][0])
    return RecordingsCompared(n, len(folds), rates["same"], rates["other"], ckas["same"], ckas["other"])
