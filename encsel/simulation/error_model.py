"""Error model of a card: spread, tails and shared components of the errors of predicted d', from held-out kinds."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from encsel.matching.sensitivity import distance_of_eer
from encsel.prediction.card import COVERAGES, SPREAD_TERMS, CalibratedCard, Shares, spread_terms, tail
from encsel.simulation.table import Table, Values, quantiles_by_people


def error_model(table: Table, d: Values) -> dict[str, Any]:
    """Fields of a card that describe its errors: from (rows,) d' predicted without the row's kind.

    The factors on differences between pairs are left at 1.
    """
    spread, factor = _fit_spread(table, d)
    z = (d - distance_of_eer(table.truth)) / standard_deviation(spread, factor, table, d)
    tails = quantiles_by_people(table, np.abs(z), COVERAGES)
    fields: dict[str, Any] = {"spread": tuple(spread.tolist()), "own_error": factor, "tails": tails}
    return {**fields, "shares": _shares(table, z), "order_scale": 1.0, "best_scale": 1.0}


def standard_deviation(spread: Sequence[float] | Values, own_error: float, table: Table, d: Values) -> Values:
    """(rows,) standard deviation of predicted d', from the fields of a card."""
    variance = np.exp(spread_terms(table.n, table.m, d) @ np.asarray(spread)) + (own_error * table.d_error) ** 2
    return np.asarray(np.sqrt(variance))


def tails_of(card: CalibratedCard, n: Values) -> Values:
    """(rows,) half-width of the 90 % interval, in standard deviations, at these numbers of people."""
    sizes, index = np.unique(n, return_inverse=True)
    return np.array([tail(card, 0.9, int(size)) for size in sizes])[index]


def widened(tails: tuple[tuple[float, ...], ...], table: Table, excess: Values) -> tuple[tuple[float, ...], ...]:
    """The tails, widened where over 10 % of held-out errors exceed their 90 % interval (`excess` in half-widths)."""
    people, factors = np.array(quantiles_by_people(table, excess, (0.9,))).T
    wider = [max(1.0, float(np.interp(math.log(n), np.log(people), factors))) for n, *_ in tails]
    return tuple((n, *(factor * x for x in row)) for factor, (n, *row) in zip(wider, tails, strict=True))


def replicate_error(table: Table) -> float:
    """Standard errors within which 90 % of the cross-validated d' of another set of the same sizes lie.

    The largest over kinds: which of them real people resemble is unknown.
    """
    of_kind: dict[str, list[Values]] = {}
    for one, two in itertools.pairwise(table.sets):
        if all(column[one.start] == column[two.start] for column in (table.population, table.n, table.m)):
            gap = np.abs(distance_of_eer(table.measured[one]) - distance_of_eer(table.measured[two]))
            of_kind.setdefault(str(table.kind[one.start]), []).extend(
                gap / np.maximum(table.d_error[rows], 1e-6) for rows in (one, two)
            )
    return max(float(np.quantile(np.concatenate(parts), 0.9)) for parts in of_kind.values())


def _fit_spread(table: Table, d: Values) -> tuple[Values, float]:
    """Maximum-likelihood log-variance coefficients, and factor on the set's own standard error."""
    from scipy.optimize import minimize

    squared = (d - distance_of_eer(table.truth)) ** 2
    terms, own_variance = spread_terms(table.n, table.m, d), table.d_error**2

    def loss(p: Values) -> tuple[float, Values]:
        rest = np.exp(np.clip(terms @ p[:-1], -20, 5))
        variance = rest + p[-1] ** 2 * own_variance
        slope = 1 / variance - squared / variance**2
        gradient = np.append(terms.T @ (slope * rest), (slope * own_variance).sum() * 2 * p[-1])
        return float((np.log(variance) + squared / variance).mean()), gradient / len(squared)

    start = np.r_[np.log(squared.mean() / 2), np.zeros(len(SPREAD_TERMS) - 1), 1.0]
    solution = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return solution[:-1], float(abs(solution[-1]))


def _shares(table: Table, z: Values) -> Shares:
    """Variance components of the standardised errors within sets, by the method of moments."""
    products = []
    for rows in table.sets:
        outer = np.outer(z[rows], z[rows])
        face, voice = (x[rows][:, None] == x[rows] for x in (table.face, table.voice))
        products.append([outer[cells].mean() for cells in (face & voice, face & ~voice, ~face & voice, ~face & ~voice)])
    total, face_only, voice_only, neither = np.mean(products, axis=0).tolist()
    parts = np.array([neither, face_only - neither, voice_only - neither, total - face_only - voice_only + neither])
    parts = np.maximum(parts / total, 0.02)
    return Shares(*(float(x) for x in parts / parts.sum()))
