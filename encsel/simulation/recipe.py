"""How the calibrated cards are made: fit on simulated sets, test on kinds of population kept out of the fit.

Everything a card says of its own error comes from kinds it was not fitted on: for each kind the regression, and then
the model of its errors, are made from the others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import MODALITIES
from encsel.errors import BadCalibration
from encsel.matching.crossval import MEASURED
from encsel.matching.eer import likelihood_ratio_eer
from encsel.matching.scorers import SCORERS
from encsel.prediction import card as calibrated
from encsel.prediction.card import (
    COVERAGES,
    FEATURE_QUANTILES,
    SIZE_TERMS,
    SPREAD_TERMS,
    CalibratedCard,
    GapBin,
    HeldOut,
    Shares,
    size_terms,
    spread_terms,
)
from encsel.prediction.evidence import FEATURES, distance_of_eer, eer_of_distance
from encsel.prediction.evidence import VERSION as EVIDENCE_VERSION
from encsel.progress import Progress
from encsel.simulation.populations import KINDS, REFERENCE_SAMPLES, REFERENCE_TEST, REFERENCE_TRAIN
from encsel.simulation.trials import MANY_PEOPLE, OTHER_SAMPLES, TESTED, TESTED_SAMPLES, VERSION, Trials

PEOPLE_RANGE = (30, max(MANY_PEOPLE))
SAMPLES_RANGE = (min(OTHER_SAMPLES), max(OTHER_SAMPLES))
SHRINKAGES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
ORDER_SCALES = tuple(np.arange(1.0, 2.01, 0.05).round(2).tolist())
GAP_EDGES = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.09, 0.5)
BEST_SCALES = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
MIN_CASES = 200
MARGIN = 0.02
"""Above what is promised, since a kind that was not seen is a little worse than those that were."""
MIN_RELIABLE = 30
MIN_ROWS = 100
"""Pairs behind a quantile."""
PEOPLE_POINTS = (30, 40, 50, 70, 100, 140, 200, 320, 600, 1400)
"""Numbers of people at which quantiles are taken, from sets of about as many."""
FIRST_RECIPE = {
    30: (0.110, 0.526, 0.223),
    50: (0.070, 0.554, 0.245),
    70: (0.066, 0.475, 0.336),
    100: (0.049, 0.329, 0.514),
    200: (0.045, 0.185, 0.692),
}
"""The recipe that this one replaced, for comparison: d' = B0 + B1 d(likelihood ratio) + B2 d(reference AUC)."""
STUDY_LINE = (0.1403247829724709, -0.07991596036292957)
"""upadhyay2026-ln: EER = a + b ln CKA."""

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Table:
    """Pairs of all trials, one a row; the rows of one set are consecutive, faces outermost. `t` is the scorer's truth.

    Attributes:
        kind, population, group: (rows,) kind, population and set of each row.
        n, m: (rows,) people, samples of each.
        face, voice: (rows,) number of the encoder within its population.
        x: (rows, features). own: (rows,) standard error of the cross-validated d'. measured: cross-validated EER.
        correlations: (rows, 12). truth: (rows,) EER at the reference size.
    """

    kind: NDArray[np.str_]
    population: NDArray[np.int64]
    group: NDArray[np.int64]
    n: Values
    m: Values
    face: NDArray[np.int64]
    voice: NDArray[np.int64]
    x: Values
    own: Values
    measured: Values
    correlations: Values
    truth: Values

    def __len__(self) -> int:
        return len(self.truth)

    def rows(self, keep: NDArray[np.bool_]) -> Table:
        return Table(**{name: getattr(self, name)[keep] for name in self.__dataclass_fields__})

    @property
    def sets(self) -> list[slice]:
        """Rows of each set."""
        starts = np.flatnonzero(np.r_[True, np.diff(self.group) != 0])
        return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(self)], strict=True)]


def table_of(trials: Sequence[Trials], scorer: str) -> Table:
    """All pairs of all sets, for one scorer."""
    s = MEASURED.index(scorer)
    columns: dict[str, list[NDArray]] = {name: [] for name in Table.__dataclass_fields__}
    group = 0
    for population, one in enumerate(trials):
        faces, voices = one.truth.shape[1:]
        face, voice = (a.ravel() for a in np.indices((faces, voices)))
        for i, (n, m) in enumerate(one.sizes):
            count = faces * voices
            for name, value in (
                ("kind", np.full(count, one.kind)), ("population", np.full(count, population)),
                ("group", np.full(count, group)), ("n", np.full(count, float(n))), ("m", np.full(count, float(m))),
                ("face", face), ("voice", voice), ("x", one.values[i].reshape(count, -1)),
                ("own", one.errors[i, s].ravel()), ("measured", one.eers[i, s].ravel()),
                ("correlations", one.correlations[i].reshape(count, -1)), ("truth", one.truth[s].ravel()),
            ):  # fmt: skip
                columns[name].append(value)
            group += 1
    return Table(**{name: np.concatenate(parts) for name, parts in columns.items()})


def fit_card(table: Table, *, name: str, scorer: str, features: Sequence[str] = tuple(FEATURES)) -> CalibratedCard:
    """The card of one scorer, with its errors on kinds kept out.

    Args:
        table: of the KINDS alone, whose number of kinds must be at least 3.
    """
    kinds = [kind for kind in KINDS if (table.kind == kind).any()]
    columns = [list(FEATURES).index(f) for f in features]
    design, target = _design(table, columns), distance_of_eer(table.truth)

    def without_own_kind(shrinkage: float) -> Values:
        found = np.empty(len(table))
        for kind in kinds:
            own = table.kind == kind
            found[own] = design[own] @ _ridge(design[~own], target[~own], shrinkage)
        return found

    tried = {s: without_own_kind(s) for s in SHRINKAGES}
    rmse = {s: _rms(_eer(d) - table.truth) for s, d in tried.items()}
    # The least shrinkage that is as good as the best: more would only draw good evidence toward the mean.
    shrinkage = min(s for s in SHRINKAGES if rmse[s] <= 1.01 * min(rmse.values()))
    d = tried[shrinkage]
    coefficients = _ridge(design, target, shrinkage).reshape(1 + len(columns), len(SIZE_TERMS))
    typical = _least_squares(size_terms(table.n, table.m), np.log(np.maximum(table.own, 1e-4)))
    card = CalibratedCard(
        name=name,
        scorer=scorer,
        target={
            "n_train_identities": REFERENCE_TRAIN,
            "n_test_identities": REFERENCE_TEST,
            "samples_per_identity": REFERENCE_SAMPLES,
        },
        features=tuple(features),
        evidence_version=EVIDENCE_VERSION,
        people=PEOPLE_RANGE,
        samples=SAMPLES_RANGE,
        coefficients=_plain(coefficients),
        shrinkage=shrinkage,
        typical_error=_plain(typical),
        ranges=_ranges(table, features),
        training_mean=float(table.truth.mean()),
        replicate=_replicate(table),
        **_errors_of(table, d),
        **_cka_line(table, calibrated_distances(coefficients, table, columns)),
        held_out=(),
        gaps=(),
        p_best=(),
        recipe={
            "trials_version": VERSION,
            "n_populations": len(np.unique(table.population)),
            "n_sets": len(table.sets),
            "n_pairs": len(table),
            "kinds": ", ".join(kinds),
            "scorer": SCORERS[scorer],
        },
    )
    # The model of errors that judges a kind is made from the other kinds' errors; so is how much wider than those
    # errors the tails must be for a kind that is new, and the factors on differences.
    cards = {k: replace(card, **_errors_of(table.rows(table.kind != k), d[table.kind != k])) for k in kinds}
    sd, reach = np.empty(len(table)), np.empty(len(table))
    order: dict[float, dict[str, _Order]] = {scale: {} for scale in BEST_SCALES}
    for kind, judge in cards.items():
        own = table.kind == kind
        sd[own] = _sd(judge, table.rows(own), d[own])
        reach[own] = _tail(judge, table.n[own]) * sd[own]
        for scale, collected in order.items():
            collected[kind] = _Order()
            collected[kind].add(replace(judge, best_scale=scale), table.rows(own), d[own], sd[own])
    excess = np.abs(d - target) / reach
    half, gaps, reliable = np.empty(len(table)), _Order(), _Order()
    for kind, judge in cards.items():
        own, others = table.kind == kind, [k for k in kinds if k != kind]
        widened = _widened(judge.tails, np.array(_by_people(table.rows(~own), excess[~own], (0.9,))))
        half[own] = _tail(replace(judge, tails=widened), table.n[own]) * sd[own]
        gaps.extend([order[1.0][kind]], scale=_order_scale([order[1.0][k] for k in others]))
        reliable.extend([order[_best_scale(order, others)][kind]])
    card = replace(
        card,
        tails=_widened(card.tails, np.array(_by_people(table, excess, (0.9,)))),
        order_scale=_order_scale(list(order[1.0].values())),
        best_scale=_best_scale(order, kinds),
    )
    rows = [
        held_out(label, table.rows(rows), d[rows], half[rows], constant=_constant_without(table, label))
        for label, rows in (
            *((kind, (table.kind == kind) & (table.n == n)) for kind in kinds for n in TESTED),
            *(("all", table.n == n) for n in TESTED),
            *(("all", table.n == n) for n in MANY_PEOPLE),
        )
        if rows.any()
    ]
    return replace(card, held_out=tuple(rows), gaps=gaps.gap_bins(), p_best=reliable.reliability())


def calibrated_distances(coefficients: Values, table: Table, columns: Sequence[int]) -> Values:
    by_feature = size_terms(table.n, table.m) @ coefficients.T
    return np.asarray(by_feature[:, 0] + (by_feature[:, 1:] * table.x[:, columns]).sum(axis=1))


def judged(card: CalibratedCard, table: Table) -> tuple[Values, Values, Values]:
    """Predicted d', its sd, and the half-width of 90 % of every row, from a finished card."""
    columns = [list(FEATURES).index(f) for f in card.features]
    d = calibrated_distances(np.asarray(card.coefficients), table, columns)
    sd = _sd(card, table, d)
    return d, sd, _tail(card, table.n) * sd


def held_out(kind: str, table: Table, d: Values, half: Values, *, constant: float) -> HeldOut:
    """One line of the table of errors.

    Args:
        d, half: (rows,) predicted d' and half-width of its interval.
        constant: what always saying the training mean would say.
    """
    eer = _eer(d)
    error = eer - table.truth
    low, high = _eer(d + half), np.where(d - half <= 0, 0.5, _eer(d - half))
    # An interval that reaches chance holds what is no better than chance.
    inside = (low <= table.truth) & ((table.truth <= high) | (high >= 0.5))
    spearman, regret = [], []
    for rows in table.sets:
        truth, said = table.truth[rows], eer[rows]
        spearman.append(_spearman(said, truth))
        regret.append(truth[np.argmin(said)] - truth.min())
    return HeldOut(
        kind=kind,
        n_identities=int(table.n[0]),
        n_sets=len(table.sets),
        n_pairs=len(table),
        rmse=_rms(error),
        bias=float(error.mean()),
        bias_at={str(m): float(error[table.m == m].mean()) for m in TESTED_SAMPLES if (table.m == m).any()},
        spearman=float(np.mean(spearman)),
        regret=float(np.mean(regret)),
        coverage=float(inside.mean()),
        rivals={name: _rms(said - table.truth) for name, said in rivals(table, constant).items()},
    )


def rivals(table: Table, constant: float) -> dict[str, Values]:
    """What other ways would say of each row."""
    root = table.x[:, list(FEATURES).index("root_cka")]
    line = STUDY_LINE[0] + STUDY_LINE[1] * np.log(np.maximum(root**2, 8e-3))
    found = {
        "training mean": np.full(len(table), constant),
        "best constant": np.full(len(table), float(table.truth.mean())),
        "cross-validated EER": table.measured,
        "matched CKA, ln fit": line,
    }
    n = int(table.n[0])
    if n in FIRST_RECIPE:
        b = FIRST_RECIPE[n]
        ratio = distance_of_eer(np.array([likelihood_ratio_eer(r) for r in table.correlations]))
        reference = table.x[:, list(FEATURES).index("d_reference")]
        found["first recipe"] = np.asarray(eer_of_distance(b[0] + b[1] * ratio + b[2] * reference))
    return found


class _Order:
    """Collects how chances of order and of being best went, over many sets."""

    def __init__(self) -> None:
        self.gap: list[Values] = []
        self.z: list[Values] = []
        self.right: list[Mask] = []
        self.best: list[Values] = []
        self.was_best: list[Mask] = []

    def add(self, card: CalibratedCard, table: Table, d: Values, sd: Values) -> None:
        from scipy.special import ndtri

        for rows in table.sets:
            faces, voices = table.face[rows], table.voice[rows]
            chance = calibrated.chance_of_order(card, d[rows], sd[rows], faces, voices)
            above, below = np.nonzero(chance > 0.5)
            eer, truth = _eer(d[rows]), table.truth[rows]
            self.gap.append(np.abs(eer[below] - eer[above]))
            self.z.append(ndtri(np.minimum(chance[above, below], 1 - 1e-15)))
            self.right.append(truth[above] < truth[below])
            best = calibrated.chance_of_best(card, d[rows], sd[rows], faces, voices, seed=0, n_draws=1000)
            self.best.append(best)
            self.was_best.append(truth == truth.min())

    def extend(self, others: Sequence[_Order], *, scale: float = 1.0) -> None:
        """Take up what others collected, their differences seen through a wider sd."""
        for other in others:
            self.z += [z / scale for z in other.z]
            for name in ("gap", "right", "best", "was_best"):
                getattr(self, name).extend(getattr(other, name))

    def gap_bins(self) -> tuple[GapBin, ...]:
        from scipy.special import ndtri

        gap, z, right = np.concatenate(self.gap), np.concatenate(self.z), np.concatenate(self.right)
        declared = z >= ndtri(calibrated.SURE)
        found = []
        for low, high in itertools.pairwise(GAP_EDGES):
            rows = declared & (gap >= low) & (gap < high)
            if rows.any():
                found.append(GapBin(low, high, int(rows.sum()), float(right[rows].mean())))
        return tuple(found)

    def reliability(self) -> tuple[tuple[float, float, int], ...]:
        best, was = np.concatenate(self.best), np.concatenate(self.was_best)
        decile = np.minimum((best * 10).astype(int), 9)
        return tuple(
            (float(best[decile == i].mean()), float(was[decile == i].mean()), int((decile == i).sum()))
            for i in range(10)
            if (decile == i).any()
        )

    def unreliability(self) -> float:
        """Mean squared distance of p_best from the share that were best, over deciles that are not rare."""
        return float(np.mean([(p - was) ** 2 for p, was, n in self.reliability() if n >= MIN_RELIABLE]))


def _order_scale(collected: Sequence[_Order]) -> float:
    """Smallest factor with which those declared better were so in SURE of the cases, in every bin of the gap.

    Raises:
        ValueError: no factor does; such a card must not be made.
    """
    for scale in ORDER_SCALES:
        order = _Order()
        order.extend(collected, scale=scale)
        if all(b.right >= calibrated.SURE + MARGIN for b in order.gap_bins() if b.n >= MIN_CASES):
            return float(scale)
    raise ValueError("orders declared better are wrong too often however careful")


def _best_scale(order: Mapping[float, Mapping[str, _Order]], kinds: Sequence[str]) -> float:
    """The factor with which p_best is most reliable over these kinds."""

    def unreliability(scale: float) -> float:
        every = _Order()
        every.extend([order[scale][kind] for kind in kinds])
        return every.unreliability()

    return min(order, key=unreliability)


def _errors_of(table: Table, d: Values) -> dict[str, Any]:
    """The parts of a card that describe its errors, from errors on kinds kept out."""
    spread, own_error = _spread(table, d)
    error = d - distance_of_eer(table.truth)
    z = error / _sd_by(spread, own_error, table, d)
    return {
        "spread": _plain(spread),
        "own_error": own_error,
        "tails": _by_people(table, np.abs(z), COVERAGES),
        "shares": _shares(table, z),
        "order_scale": 1.0,
        "best_scale": 1.0,
    }


def _sd(card: CalibratedCard, table: Table, d: Values) -> Values:
    return _sd_by(np.asarray(card.spread), card.own_error, table, d)


def _sd_by(spread: Values, own_error: float, table: Table, d: Values) -> Values:
    return np.asarray(np.sqrt(np.exp(spread_terms(table.n, table.m, d) @ spread) + (own_error * table.own) ** 2))


def _spread(table: Table, d: Values) -> tuple[Values, float]:
    """Log-variance coefficients and the factor on the set's own error that make the errors most likely."""
    from scipy.optimize import minimize

    squared = (d - distance_of_eer(table.truth)) ** 2
    terms, own = spread_terms(table.n, table.m, d), table.own**2

    def loss(p: Values) -> tuple[float, Values]:
        rest = np.exp(np.clip(terms @ p[:-1], -20, 5))
        factor = p[-1] ** 2 * own
        variance = rest + factor
        slope = 1 / variance - squared / variance**2
        gradient = np.append(terms.T @ (slope * rest), (slope * own).sum() * 2 * p[-1])
        return float((np.log(variance) + squared / variance).mean()), gradient / len(own)

    start = np.append(np.r_[np.log(squared.mean() / 2), np.zeros(len(SPREAD_TERMS) - 1)], 1.0)
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return found[:-1], float(abs(found[-1]))


def _shares(table: Table, z: Values) -> Shares:
    """Variance components of the standardised errors within sets, by the method of moments."""
    same, face, voice, none = [], [], [], []
    for rows in table.sets:
        products = np.outer(z[rows], z[rows])
        f, v = (x[rows][:, None] == x[rows] for x in (table.face, table.voice))
        same.append(products[f & v].mean())
        face.append(products[f & ~v].mean())
        voice.append(products[~f & v].mean())
        none.append(products[~f & ~v].mean())
    total, with_face, with_voice, everyone = (float(np.mean(x)) for x in (same, face, voice, none))
    parts = np.array([everyone, with_face - everyone, with_voice - everyone, total - with_face - with_voice + everyone])
    parts = np.maximum(parts / total, 0.02)
    return Shares(*(float(x) for x in parts / parts.sum()))


def _replicate(table: Table) -> float:
    """Standard errors that 90 % of the cross-validated d' of another set of the same sizes stay within.

    The largest over kinds and numbers of people, so that it holds in each: which of them real people are like is not
    known.
    """
    found: dict[tuple[str, float], list[Values]] = {}
    for one, two in itertools.pairwise(table.sets):
        same = table.population[one.start] == table.population[two.start]
        if same and (table.n[one.start], table.m[one.start]) == (table.n[two.start], table.m[two.start]):
            gap = distance_of_eer(table.measured[one]) - distance_of_eer(table.measured[two])
            both = [np.abs(gap) / np.maximum(table.own[rows], 1e-6) for rows in (one, two)]
            found.setdefault((str(table.kind[one.start]), float(table.n[one.start])), []).extend(both)
    cells = [np.concatenate(parts) for parts in found.values()]
    return max(float(np.quantile(cell, 0.9)) for cell in cells)


def _cka_line(table: Table, d: Values) -> dict[str, Any]:
    terms = size_terms(table.n, table.m)
    root = table.x[:, list(FEATURES).index("root_cka")]
    line = _least_squares(np.hstack([terms, terms * root[:, None]]), d)
    residual = d - np.hstack([terms, terms * root[:, None]]) @ line
    # The mean log of a unit Gaussian's size is -0.635.
    log_sd = _least_squares(terms, np.log(np.maximum(np.abs(residual), 1e-4))) + 0.635 * np.eye(len(SIZE_TERMS))[0]
    return {"from_cka": _plain(line.reshape(2, -1)), "from_cka_sd": _plain(log_sd)}


def _ranges(table: Table, features: Sequence[str]) -> dict[str, tuple[tuple[float, ...], ...]]:
    return {name: _by_people(table, table.x[:, list(FEATURES).index(name)], FEATURE_QUANTILES) for name in features}


def _by_people(table: Table, values: Values, quantiles: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Rows of n and the quantiles of `values` in sets of about n people."""
    rows = []
    for n in PEOPLE_POINTS:
        # Large sets are few: wider bands.
        near = np.abs(np.log(table.n / n)) < (0.25 if n < 400 else 0.46)
        if near.sum() >= MIN_ROWS:
            rows.append((float(n), *np.quantile(values[near], quantiles).tolist()))
    return tuple(rows) or ((100.0, *np.quantile(values, quantiles).tolist()),)


def _widened(tails: tuple[tuple[float, ...], ...], factors: Values) -> tuple[tuple[float, ...], ...]:
    """The tails, each row times the factor at its number of people where that is above 1.

    Args:
        factors: (points, 2) rows of n and factor.
    """
    found = []
    for n, *row in tails:
        factor = max(1.0, float(np.interp(math.log(n), np.log(factors[:, 0]), factors[:, 1])))
        found.append((n, *(factor * x for x in row)))
    return tuple(found)


def _tail(card: CalibratedCard, n: Values) -> Values:
    """Reach of 90 % of every row, in sd."""
    known = {size: calibrated.tail(card, 0.9, int(size)) for size in np.unique(n)}
    return np.array([known[size] for size in n])


def _constant_without(table: Table, kind: str) -> float:
    """Mean true EER of the kinds that the row's predictions were fitted on; "all": of all."""
    return float(table.truth[table.kind != kind].mean())


def _design(table: Table, columns: Sequence[int]) -> Values:
    """(rows, (1 + features) x SIZE_TERMS), features outermost."""
    with_one = np.column_stack([np.ones(len(table)), table.x[:, columns]])
    return np.asarray((with_one[:, :, None] * size_terms(table.n, table.m)[:, None, :]).reshape(len(table), -1))


def _ridge(design: Values, target: Values, shrinkage: float) -> Values:
    """Coefficients of a ridge regression on standardised columns; the mean itself is not shrunk."""
    mean, sd = design.mean(axis=0), design.std(axis=0)
    varies = sd > 1e-12
    z = (design[:, varies] - mean[varies]) / sd[varies]
    inner = np.linalg.solve(z.T @ z + shrinkage * len(z) * np.eye(z.shape[1]), z.T @ (target - target.mean()))
    found = np.zeros(design.shape[1])
    found[varies] = inner / sd[varies]
    # The first column is the constant one.
    found[0] = target.mean() - mean[1:] @ found[1:]
    return found


def _least_squares(design: Values, target: Values) -> Values:
    return np.asarray(np.linalg.lstsq(design, target, rcond=None)[0])


def _eer(d: Values) -> Values:
    return calibrated.predicted_eer(d)


def _rms(x: Values) -> float:
    return math.sqrt(float(np.mean(np.square(x))))


def _spearman(a: Values, b: Values) -> float:
    from encsel.regression.association import spearman

    return spearman(a, b) or 0.0


def _plain(x: Values) -> tuple:
    return tuple(_plain(row) if np.ndim(row) else float(row) for row in x)


@dataclass(frozen=True)
class Halves:
    """One pair of encoders on real people: how halves predict the cross-validated EER of the disjoint halves.

    Attributes:
        n_inside: splits in which it lay within the interval stated by the first half.
        half_width: mean half-width of that interval.
        predicted, sd: EER at the reference size, mean and standard deviation over halves.
    """

    face: str
    voice: str
    n_identities: int
    n_splits: int
    n_inside: int
    half_width: float
    predicted: float
    sd: float


def held_out_yardstick(card: CalibratedCard, table: Table) -> list[HeldOut]:
    """Errors of a finished card on populations it has not seen, by number of people."""
    d, _, half = judged(card, table)
    return [
        held_out(str(table.kind[0]), table.rows(rows), d[rows], half[rows], constant=card.training_mean)
        for rows in (table.n == n for n in np.unique(table.n))
    ]


def halves(card: CalibratedCard, data: Path, *, n_splits: int = 100, seed: int = 0, progress: Progress) -> list[Halves]:
    """Disjoint halves of the people of a folder of embeddings, in `n_splits` random ways.

    Raises:
        BadCalibration: under 20 people, or no embeddings.
    """
    from encsel.data.calibration_set import open_calibration
    from encsel.prediction.predict import predict_pairs
    from encsel.ranking.geometry import centroids

    found_here = open_calibration(data).embeddings
    if not found_here:
        raise BadCalibration(f"{data} holds no embeddings; faces/NAME.npz and voices/NAME.npz are needed.")
    people = sorted(set.intersection(*(set(e.identities) for e in found_here)))
    every = [e.rows(np.isin(e.labels, people)) for e in found_here]
    faces, voices = ([e for e in every if e.modality == m] for m in MODALITIES)
    x, y = ([centroids(e) for e in side] for side in (faces, voices))
    samples = tuple([float(np.median(np.unique(e.labels, return_counts=True)[1])) for e in s] for s in (faces, voices))
    n = len(people) // 2
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, int], list[tuple[bool, float, float]]] = {}
    with progress.task("halves", n_splits) as task:
        for split in range(n_splits):
            order = rng.permutation(len(people))
            first, second = (
                predict_pairs(
                    [a[half] for a in x], [b[half] for b in y], (samples[0], samples[1]), [card],
                    seed=split, n_shuffles=1,
                )
                for half in (order[:n], order[n : 2 * n])
            )  # fmt: skip
            for i in range(len(x)):
                for j in range(len(y)):
                    said, other = (side[i][j].measured[card.scorer] for side in (first, second))
                    low, high = said.interval
                    estimate = first[i][j].estimates[card.name]
                    found.setdefault((i, j), []).append((low <= other.eer <= high, (high - low) / 2, estimate.eer))
            task.advance()
    return [
        Halves(
            faces[i].name, voices[j].name, n, n_splits, sum(inside for inside, _, _ in rows),
            float(np.mean([half for _, half, _ in rows])), float(np.mean([eer for *_, eer in rows])),
            float(np.std([eer for *_, eer in rows])),
        )
        for (i, j), rows in found.items()
    ]  # fmt: skip
