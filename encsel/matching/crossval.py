"""Cross-validation over people: what a matcher fitted on some of them does on the others, for every face-voice pair.

Repeated K-fold. Principal axes and canonical directions see training people only; test people are scored within their
fold. Single-threaded linear algebra (the matrices are small) and threads over pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration
from encsel.matching.eer import auc_placements, eer
from encsel.matching.scorers import RIDGE, Directions, Side, directions, project, ridge_for, scores_on

N_FOLDS = 5
N_VARIATES = 12
"""Pairs of canonical variates whose correlation on held-out people is kept."""
MEASURED = ("reference", "weighted")
FIXED = "weighted, ridge 0.3"
"""The weighted scorer with the ridge of 999 people, whatever there are: what calibrated cards take for evidence."""
MIN_PEOPLE = 2 * N_FOLDS
"""Two test people a fold: an impostor needs two."""


@dataclass(frozen=True)
class Scored:
    """How one scorer did on held-out people.

    Attributes:
        eer: over all folds and repeats pooled, in [0, 1].
        auc: mean over folds of the share of impostor scores below a genuine one, in [0, 1].
        auc_se: standard error of `auc` over people, from their placements.
    """

    eer: float
    auc: float
    auc_se: float


@dataclass(frozen=True)
class CrossValidated:
    """One pair. `correlations`: (12,) of ridge canonical variates on held-out people, missing directions 0."""

    scored: Mapping[str, Scored]
    correlations: Vectors
    n_people: int
    n_repeats: int


Folds = list[list[tuple[NDArray[np.intp], NDArray[np.intp]]]]
"""By repeat and fold: (train, test) row numbers."""


def repeats_for(n_people: int) -> int:
    """Repeats after which the split adds little to the error of so many people."""
    return 6 if n_people <= 100 else 4 if n_people <= 250 else 2


def folds_of(n_people: int, *, n_repeats: int, seed: int) -> Folds:
    """Seeded partitions of people into N_FOLDS of nearly equal size.

    Raises:
        BadCalibration: under 10 people.
    """
    if n_people < MIN_PEOPLE:
        raise BadCalibration(f"{n_people} people; cross-validation in {N_FOLDS} folds needs {MIN_PEOPLE}. Add people.")
    rng = np.random.default_rng(seed)
    found: Folds = []
    for _ in range(n_repeats):
        order = rng.permutation(n_people)
        tests = [np.sort(order[f::N_FOLDS]) for f in range(N_FOLDS)]
        found.append([(np.setdiff1d(order, test), test) for test in tests])
    return found


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


def cross_validate(face: Sequence[Sequence[Side]], voice: Sequence[Sequence[Side]], folds: Folds) -> CrossValidated:
    """MEASURED and FIXED, and the held-out correlations of one pair.

    Args:
        face, voice: from `sides`, on the same folds.
        folds: those folds.
    """
    n = len(folds[0][0][0]) + len(folds[0][0][1])
    names = (*MEASURED, FIXED)
    genuine: dict[str, list[Vectors]] = {name: [] for name in names}
    impostor: dict[str, list[Vectors]] = {name: [] for name in names}
    placed = {name: np.zeros(n) for name in names}
    aucs: dict[str, list[float]] = {name: [] for name in names}
    products = np.zeros((3, N_VARIATES))
    for faces, voices, repeat in zip(face, voice, folds, strict=True):
        for f, v, (_, test) in zip(faces, voices, repeat, strict=True):
            ridge = directions(f, v, ridge=RIDGE)
            own_ridge = directions(f, v, ridge=ridge_for(len(f.train)))
            for name, found in zip(names, (directions(f, v), own_ridge, ridge), strict=True):
                matrix = scores_on("weighted" if name == FIXED else name, found, f, v)
                own, others = np.diag(matrix), matrix[~np.eye(len(matrix), dtype=bool)]
                placement = auc_placements(own, others)
                placed[name][test] += placement / len(folds)
                aucs[name].append(float(placement.mean()))
                genuine[name].append(own)
                impostor[name].append(others)
            products += variate_products(ridge, f, v)
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


def variate_products(found: Directions, face: Side, voice: Side) -> Vectors:
    """(3, 12) sums of xy, xx and yy of the first paired variates over test people; missing directions 0."""
    x, y = face.test @ found.face[:, :N_VARIATES], voice.test @ found.voice[:, :N_VARIATES]
    sums = np.zeros((3, N_VARIATES))
    sums[:, : x.shape[1]] = (x * y).sum(0), (x * x).sum(0), (y * y).sum(0)
    return sums


def pooled_correlations(products: Vectors) -> Vectors:
    """(12,) correlations from sums of `variate_products` over folds."""
    scale = np.sqrt(products[1] * products[2])
    return np.asarray(products[0] / np.where(scale > 0, scale, 1))
