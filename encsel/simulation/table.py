"""Pairs of all simulated sets as one table, and the design matrix of the regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from encsel.matching.crossval import MEASURED
from encsel.prediction.card import size_terms
from encsel.prediction.evidence import FEATURES
from encsel.simulation.trials import Trials

Values = NDArray[np.float64]

MIN_ROWS = 100
"""Pairs needed for a quantile."""
PEOPLE_POINTS = (30, 40, 50, 70, 100, 140, 200, 320, 600, 1400)
"""Numbers of people at which quantiles are taken, from sets of about that many."""


@dataclass(frozen=True)
class Table:
    """One row per pair of every set, for one scorer; rows of a set are consecutive, faces outermost.

    Attributes:
        kind, population, group: (rows,) kind, population and set of each row.
        n, m: (rows,) people, and samples of each.
        face, voice: (rows,) index of the encoder in its population.
        x: (rows, features) in the order of FEATURES.
        d_error: (rows,) standard error of the cross-validated d'.
        measured: (rows,) cross-validated EER.
        truth: (rows,) true EER.
    """

    kind: NDArray[np.str_]
    population: NDArray[np.int64]
    group: NDArray[np.int64]
    n: Values
    m: Values
    face: NDArray[np.int64]
    voice: NDArray[np.int64]
    x: Values
    d_error: Values
    measured: Values
    truth: Values

    def __len__(self) -> int:
        return len(self.truth)

    def rows(self, mask: NDArray[np.bool_]) -> Table:
        """The rows where `mask` is true."""
        return Table(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})

    @property
    def sets(self) -> list[slice]:
        """Rows of each set."""
        starts = np.flatnonzero(np.r_[True, np.diff(self.group) != 0])
        return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(self)], strict=True)]

    def feature(self, name: str) -> Values:
        """(rows,) values of one of FEATURES."""
        return self.x[:, list(FEATURES).index(name)]


def table_of(trials: Sequence[Trials], scorer: str) -> Table:
    """All pairs of all sets, for one scorer."""
    s = MEASURED.index(scorer)
    columns: dict[str, list[NDArray]] = {f.name: [] for f in fields(Table)}
    group = 0
    for population, one in enumerate(trials):
        face, voice = (a.ravel() for a in np.indices(one.truth.shape[1:]))
        for i, (n, m) in enumerate(one.sizes):
            constants = {"kind": one.kind, "population": population, "group": group, "n": float(n), "m": float(m)}
            values = {
                "face": face, "voice": voice, "x": one.values[i].reshape(len(face), -1),
                "d_error": one.errors[i, s].ravel(), "measured": one.eers[i, s].ravel(), "truth": one.truth[s].ravel(),
            }  # fmt: skip
            for name, value in {**{k: np.full(len(face), v) for k, v in constants.items()}, **values}.items():
                columns[name].append(value)
            group += 1
    return Table(**{name: np.concatenate(parts) for name, parts in columns.items()})


def design(table: Table, features: Sequence[str]) -> Values:
    """(rows, (1 + features) x SIZE_TERMS), features outermost."""
    with_intercept = np.column_stack([np.ones(len(table)), *(table.feature(name) for name in features)])
    terms = size_terms(table.n, table.m)
    return np.asarray((with_intercept[:, :, None] * terms[:, None, :]).reshape(len(table), -1))


def quantiles_by_people(table: Table, values: Values, quantiles: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Rows of n and the quantiles of `values` in sets of about n people."""
    rows = []
    for n in PEOPLE_POINTS:
        # Large sets are few, so their bands are wider.
        near = np.abs(np.log(table.n / n)) < (0.25 if n < 400 else 0.46)
        if near.sum() >= MIN_ROWS:
            rows.append((float(n), *np.quantile(values[near], quantiles).tolist()))
    return tuple(rows) or ((100.0, *np.quantile(values, quantiles).tolist()),)
