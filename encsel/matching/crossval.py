"""Evidence from cross-validation: how scorers and canonical variates do on held-out people, for one pair."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from encsel.core import Vectors
from encsel.matching import likelihood
from encsel.matching.axes import N_AXES, Directions, Side, project
from encsel.matching.eer import EerRule, eer_of_sorted
from encsel.matching.error_rates import Pool, Rates
from encsel.matching.folds import Folds, SidesByFold, fitted, scored
from encsel.matching.scorers import SCORERS

N_VARIATES = 12
"""Number of pairs of canonical variates whose held-out correlation is evidence."""
MEASURED = ("reference", "likelihood")
"""Scorers whose errors calibrated cards predict."""
RIDGE = 0.3
"""Ridge of the canonical variates used as evidence: fraction of the axes' mean variance added to each variance."""


@dataclass(frozen=True)
class CrossValidated:
    """One pair on held-out people: rates by scorer (AUC: mean over folds) and (12,) ridge canonical correlations.

    `n_repeats` is by scorer, as in `scored`.
    """

    scored: Mapping[str, Rates]
    correlations: Vectors
    n_people: int
    n_repeats: Mapping[str, int]


def sides(x: Vectors, folds: Folds) -> list[list[Side]]:
    """One encoder's centroids (n, dim) projected in every fold."""
    x = reduced(x)
    return [[project(x, train, test, n_axes=likelihood.N_AXES) for train, test in repeat] for repeat in folds]


def reduced(x: Vectors) -> Vectors:
    """The centred rows in the fewest dimensions that preserve all distances: (n, at most n - 1), float64."""
    rows = np.asarray(x, dtype=np.float64)
    rows = rows - rows.mean(axis=0)
    if rows.shape[1] < len(rows):
        return rows
    values, vectors = np.linalg.eigh(rows @ rows.T)
    # The square root of the rounding error 1e-16 is 1e-8, which would look like variation between identical people.
    noise = len(rows) * np.finfo(np.float64).eps * max(values[-1], float(np.square(x).sum()) * 1e-8)
    return vectors[:, 1:] * np.sqrt(np.where(values[1:] > noise, values[1:], 0))


def held_out_evidence(face: SidesByFold, voice: SidesByFold, folds: Folds) -> CrossValidated:
    """Rates of MEASURED, and held-out canonical correlations, of one pair; `sides` returns `face`, `voice`."""
    pools = {name: Pool() for name in MEASURED}
    n_repeats = {name: costly_repeats(len(folds)) if name == "likelihood" else len(folds) for name in MEASURED}
    products = np.zeros((3, N_VARIATES))
    repeats = (number for number, repeat in enumerate(folds) for _ in repeat)
    for number, (test, pair) in zip(repeats, fitted(face, voice, folds), strict=True):
        for name, pool in pools.items():
            if number < n_repeats[name]:
                pool.add(pair.scores(name), test, test)
        products += variate_products(pair.directions(RIDGE), pair.face, pair.voice)
    rates = {name: replace(pool.rates(), auc=float(np.mean(pool.block_aucs))) for name, pool in pools.items()}
    return CrossValidated(rates, pooled_correlations(products), rates["reference"].n_people, n_repeats)


def costly_repeats(n_repeats: int) -> int:
    """Repeats in which `likelihood`, ten times slower than the rest, is fitted: half of them, but at least 2."""
    return min(n_repeats, max(2, n_repeats // 2))


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


def pooled_rates(
    face: SidesByFold, voice: SidesByFold, folds: Folds, *, eer_rule: EerRule = eer_of_sorted, n_axes: int = N_AXES
) -> dict[str, Rates]:
    """Rates by scorer, from folds that may test some people more often than others."""
    pools = {name: Pool(eer_rule) for name in SCORERS}
    for name, test, scores in scored(face, voice, folds, n_axes=n_axes):
        pools[name].add(scores, test, test)
    return {name: pool.rates() for name, pool in pools.items()}
