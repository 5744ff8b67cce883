"""Reliability of comparisons between pairs, and the factors on their standard deviation that make them reliable."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from encsel.prediction.card import CalibratedCard, GapBin, predicted_eer
from encsel.prediction.order import SURE, chance_of_best, chance_of_order, drawn_distances
from encsel.simulation.table import Table, Values

ORDER_SCALES = tuple(np.arange(1.0, 3.01, 0.05).round(2).tolist())
BEST_SCALES = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
GAP_EDGES = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.09, 0.5)
MIN_CASES = 200  # comparisons needed for a bin of gaps to decide on the factor
MARGIN = 0.02  # required above SURE, because a new kind is predicted slightly worse than the simulated ones
MIN_RELIABLE = 30  # pairs needed for a decile of p_best to decide on the factor
N_DRAWS = 1000

Columns = TypeVar("Columns", bound=tuple[Any, ...])


class Comparisons(NamedTuple):
    """Comparisons of two pairs of one set, the one predicted better first: columns of equal length."""

    gap: Values  # predicted gap in EER
    z: Values  # normal quantile of the chance that the order is right
    right: NDArray[np.bool_]  # whether it is


class BestChances(NamedTuple):
    """p_best of every pair, and whether the pair is the best of its set: columns of equal length."""

    chance: Values
    is_best: NDArray[np.bool_]


def joined(parts: Iterable[Columns]) -> Columns:
    """All rows of the parts."""
    parts = list(parts)
    return type(parts[0])(*map(np.concatenate, zip(*parts, strict=True)))


def comparisons(card: CalibratedCard, table: Table, d: Values, sd: Values) -> Comparisons:
    """All comparisons within sets, from the (rows,) predicted d' and its standard deviation."""
    from scipy.special import ndtri

    eer, parts = predicted_eer(d), []
    for rows in table.sets:
        chance = chance_of_order(card, d[rows], sd[rows], table.face[rows], table.voice[rows])
        better, worse = np.nonzero(chance > 0.5)
        gap, truth = eer[rows], table.truth[rows]
        z = ndtri(np.minimum(chance[better, worse], 1 - 1e-15))
        parts.append(Comparisons(np.abs(gap[worse] - gap[better]), z, truth[better] < truth[worse]))
    return joined(parts)


def best_chances(card: CalibratedCard, table: Table, d: Values, sd: Values) -> BestChances:
    """p_best of all pairs, from the (rows,) predicted d' and its standard deviation."""
    parts = []
    for rows in table.sets:
        labels, truth = (table.face[rows], table.voice[rows]), table.truth[rows]
        chance = chance_of_best(drawn_distances(card, d[rows], sd[rows], *labels, seed=0, n_draws=N_DRAWS))
        parts.append(BestChances(chance, truth == truth.min()))
    return joined(parts)


def gap_bins(made: Comparisons) -> tuple[GapBin, ...]:
    """Fraction of declared orders (chance at least SURE) that are right, by predicted gap."""
    from scipy.special import ndtri

    declared = made.z >= ndtri(SURE)
    bins = []
    for low, high in itertools.pairwise(GAP_EDGES):
        rows = declared & (made.gap >= low) & (made.gap < high)
        if rows.any():
            bins.append(GapBin(low, high, int(rows.sum()), float(made.right[rows].mean())))
    return tuple(bins)


def reliability(best: BestChances) -> tuple[tuple[float, float, int], ...]:
    """By decile of p_best: its mean, the fraction of pairs that are best, and the number of pairs."""
    decile = np.minimum((best.chance * 10).astype(int), 9)
    return tuple(
        (float(best.chance[rows].mean()), float(best.is_best[rows].mean()), int(rows.sum()))
        for rows in (decile == i for i in np.unique(decile))
    )


def order_scale(made: Sequence[Comparisons]) -> float:
    """Smallest factor on the sd of differences with which declared orders are right often enough in every bin."""
    every = joined(made)
    for scale in ORDER_SCALES:
        bins = gap_bins(every._replace(z=every.z / scale))
        if all(b.right >= SURE + MARGIN for b in bins if b.n >= MIN_CASES):
            return float(scale)
    # Such a card must not be written.
    raise ValueError("declared orders are wrong too often with every factor on the sd of differences")


def best_scale(best: Mapping[float, Mapping[str, BestChances]], kinds: Sequence[str]) -> float:
    """The factor on the sd, of those `best` has by factor and kind, that makes p_best of these kinds most reliable."""

    def unreliability(scale: float) -> float:
        """Mean squared distance of p_best from the fraction of pairs that are best, over all but rare deciles."""
        deciles = reliability(joined(best[scale][kind] for kind in kinds))
        return float(np.mean([(p - fraction) ** 2 for p, fraction, n in deciles if n >= MIN_RELIABLE]))

    return min(best, key=unreliability)
