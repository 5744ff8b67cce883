"""Evidence from cross-validation: how scorers and canonical variates do on held-out people, for one pair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from encsel.core import Vectors
from encsel.matching.eer import auc_placements, eer
from encsel.matching.folds import Folds, SidesByFold, fitted, scored
from encsel.matching.scorers import RIDGE, SCORERS, Directions, Side, project, split_scores
from encsel.matching.sensitivity import MEASURED as MEASURED_RANGE
from encsel.matching.sensitivity import distance_error

N_VARIATES = 12
"""Pairs of canonical variates whose correlation on held-out people is kept."""
MEASURED = ("reference", "weighted")
FIXED = "weighted, ridge 0.3"
"""The weighted scorer with the ridge of 999 people at every size: what calibrated cards take as evidence."""


@dataclass(frozen=True)
class Scored:
    """Results of one scorer on held-out people.

    Attributes:
        eer: pooled over all folds and repeats, in [0, 1].
        auc: mean over folds of the fraction of impostor scores below a genuine one, in [0, 1].
        auc_se: standard error of `auc` over people, from their placements.
    """

    eer: float
    auc: float
    auc_se: float


@dataclass(frozen=True)
class CrossValidated:
    """One pair. `correlations`: (12,) of ridge canonical variates on held-out people, 0 for missing directions."""

    scored: Mapping[str, Scored]
    correlations: Vectors
    n_people: int
    n_repeats: int


def sides(x: Vectors, folds: Folds) -> list[list[Side]]:
    """One encoder's centroids (n, dim) projected in every fold."""
    x = reduced(x)
    return [[project(x, train, test) for train, test in repeat] for repeat in folds]


def reduced(x: Vectors) -> Vectors:
    """The rows about their mean in as few dimensions as hold all their distances: (n, at most n - 1), float64."""
    rows = np.asarray(x, dtype=np.float64)
    rows = rows - rows.mean(axis=0)
    if rows.shape[1] < len(rows):
        return rows
    values, vectors = np.linalg.eigh(rows @ rows.T)
    # The root of rounding, 1e-16, is 1e-8, which would pass for variation of people who do not differ.
    noise = len(rows) * np.finfo(np.float64).eps * max(values[-1], float(np.square(x).sum()) * 1e-8)
    return vectors[:, 1:] * np.sqrt(np.where(values[1:] > noise, values[1:], 0))


def held_out_evidence(face: SidesByFold, voice: SidesByFold, folds: Folds) -> CrossValidated:
    """Scores of MEASURED and FIXED, and the held-out canonical correlations, of one pair.

    Args:
        face, voice: from `sides`, on the same folds.
        folds: these folds.
    """
    n = len(folds[0][0][0]) + len(folds[0][0][1])
    names = (*MEASURED, FIXED)
    genuine: dict[str, list[Vectors]] = {name: [] for name in names}
    impostor: dict[str, list[Vectors]] = {name: [] for name in names}
    placed = {name: np.zeros(n) for name in names}
    aucs: dict[str, list[float]] = {name: [] for name in names}
    products = np.zeros((3, N_VARIATES))
    for test, pair in fitted(face, voice, folds):
        for name in names:
            scores = pair.scores("weighted", ridge=RIDGE) if name == FIXED else pair.scores(name)
            own, others = split_scores(scores)
            placement = auc_placements(own, others)
            placed[name][test] += placement / len(folds)
            aucs[name].append(float(placement.mean()))
            genuine[name].append(own)
            impostor[name].append(others)
        products += variate_products(pair.directions(RIDGE), pair.face, pair.voice)
    return CrossValidated(
        {
            name: Scored(
                eer(np.concatenate(genuine[name]), np.concatenate(impostor[name])),
                float(np.mean(aucs[name])),
                float(placed[name].std(ddof=1) / math.sqrt(n)),
            )
            for name in names
        },
        pooled_correlations(products),
        n,
        len(folds),
    )


def variate_products(paired: Directions, face: Side, voice: Side) -> Vectors:
    """(3, 12) sums of xy, xx and yy of the first paired variates over test people; missing directions 0."""
    x, y = face.test @ paired.face[:, :N_VARIATES], voice.test @ paired.voice[:, :N_VARIATES]
    sums = np.zeros((3, N_VARIATES))
    sums[:, : x.shape[1]] = (x * y).sum(0), (x * x).sum(0), (y * y).sum(0)
    return sums


def pooled_correlations(products: Vectors) -> Vectors:
    """(12,) correlations from sums of `variate_products` over folds."""
    scale = np.sqrt(products[1] * products[2])
    return np.asarray(products[0] / np.where(scale > 0, scale, 1))


@dataclass(frozen=True)
class Rates:
    """Pooled EER, mean AUC over people, and the standard error of the d' behind that AUC."""

    eer: float
    auc: float
    distance_error: float


def pooled_rates(face: SidesByFold, voice: SidesByFold, folds: Folds) -> dict[str, Rates]:
    """By scorer, from folds that need not test everybody equally often."""
    genuine: dict[str, list[Vectors]] = {name: [] for name in SCORERS}
    impostor: dict[str, list[Vectors]] = {name: [] for name in SCORERS}
    n = 1 + max(int(test.max()) for repeat in folds for _, test in repeat)
    placed, counts = {name: np.zeros(n) for name in SCORERS}, {name: np.zeros(n) for name in SCORERS}
    for name, test, scores in scored(face, voice, folds):
        own, others = split_scores(scores)
        counts[name][test] += 1
        placed[name][test] += auc_placements(own, others)
        genuine[name].append(own)
        impostor[name].append(others)
    rates = {}
    for name in SCORERS:
        tested = counts[name] > 0
        means = placed[name][tested] / counts[name][tested]
        auc, auc_se = float(means.mean()), float(means.std(ddof=1)) / math.sqrt(len(means))
        error = distance_error(auc, auc_se, len(means), MEASURED_RANGE)
        rates[name] = Rates(eer(np.concatenate(genuine[name]), np.concatenate(impostor[name])), auc, error)
    return rates
