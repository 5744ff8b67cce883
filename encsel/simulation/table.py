"""Pairs of all simulated sets as one table, and the design matrix of the regression."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from encsel.matching.crossval import MEASURED
from encsel.matching.scorers import REFERENCE_TRAIN
from encsel.prediction.card import size_terms
from encsel.prediction.evidence import FEATURES
from encsel.simulation.populations import Values
from encsel.simulation.trials import Trials

MIN_ROWS = 100  # pairs needed for a quantile
# Numbers of people at which quantiles are taken, from sets of about that many.
PEOPLE_POINTS = (30, 40, 50, 70, 100, 140, 200, 320, 600, 1400)


@dataclass(frozen=True)
class Table:
    """One row per pair of every set, for one scorer; rows of a set are consecutive, faces outermost."""

    kind: NDArray[np.str_]
    population: NDArray[np.int64]
    group: NDArray[np.int64]  # the set
    n: Values  # people
    m: Values  # samples of each
    face: NDArray[np.int64]  # index of the encoder in its population
    voice: NDArray[np.int64]
    x: Values  # (rows, features) in the order of FEATURES
    d_error: Values  # standard error of the cross-validated d'
    measured: Values  # cross-validated EER
    truth: Values  # true EER

    def __len__(self) -> int:
        return len(self.truth)

    def rows(self, mask: NDArray[np.bool_]) -> Table:
        return Table(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})

    @property
    def sets(self) -> list[slice]:
        """Rows of each set."""
        edges = np.flatnonzero(np.diff(self.group, prepend=-1, append=-1))
        return [slice(a, b) for a, b in itertools.pairwise(edges)]

    def feature(self, name: str) -> Values:
        """(rows,) values of one of FEATURES."""
        return self.x[:, list(FEATURES).index(name)]


def table_of(trials: Sequence[Trials], scorer: str, *, n_train: int = REFERENCE_TRAIN, probe: int = 20) -> Table:
    """All pairs of all sets, for one scorer, and its true EER at one number of training people and of samples."""
    s = MEASURED.index(scorer)
    groups = itertools.count()
    parts = []
    for population, one in enumerate(trials):
        true = one.truth[s, one.probes.tolist().index(probe), one.n_train.tolist().index(n_train)]
        face, voice = (a.ravel() for a in np.indices(true.shape))
        for i, (n, m) in enumerate(one.sizes):
            constants = [np.full(len(face), x) for x in (one.kind, population, next(groups), float(n), float(m))]
            rates = [x.ravel() for x in (one.errors[i, s], one.eers[i, s], true)]
            parts.append([*constants, face, voice, one.values[i].reshape(len(face), -1), *rates])
    return Table(*map(np.concatenate, zip(*parts, strict=True)))


def design(table: Table, features: Sequence[str]) -> Values:
    """(rows, (1 + features) x SIZE_TERMS), features outermost."""
    with_intercept = np.column_stack([np.ones(len(table)), *(table.feature(name) for name in features)])
    terms = size_terms(table.n, table.m)
    return np.asarray((with_intercept[:, :, None] * terms[:, None, :]).reshape(len(table), -1))


def quantiles_by_people(table: Table, values: Values, quantiles: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Rows of n and the quantiles of `values` in sets of about n people."""
    # Large sets are few, so their bands are wider.
    bands = ((n, np.abs(np.log(table.n / n)) < (0.25 if n < 400 else 0.46)) for n in PEOPLE_POINTS)
    rows = [(float(n), *np.quantile(values[near], quantiles).tolist()) for n, near in bands if near.sum() >= MIN_ROWS]
    return tuple(rows) or ((100.0, *np.quantile(values, quantiles).tolist()),)
