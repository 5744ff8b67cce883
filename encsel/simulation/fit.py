"""Fit calibrated cards on simulated sets.

Every error a card states comes from kinds of population it was not fitted on: for each kind, first the regression and
then the error model are fitted on the other kinds.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.matching.scorers import REFERENCE_TRAIN, SCORERS
from encsel.matching.sensitivity import distance_of_eer
from encsel.prediction.card import (
    ALL_KINDS,
    FEATURE_QUANTILES,
    SIZE_TERMS,
    CalibratedCard,
    HeldOut,
    predicted_eer,
    size_terms,
)
from encsel.prediction.decision import shortlist_of
from encsel.prediction.evidence import EVIDENCE_VERSION, FEATURES
from encsel.regression.association import spearman
from encsel.simulation import order
from encsel.simulation.error_model import error_model, replicate_error, standard_deviation, tails_of, widened
from encsel.simulation.populations import KINDS, TruthSizes
from encsel.simulation.table import Table, Values, design, quantiles_by_people, table_of
from encsel.simulation.trials import LARGE_PEOPLE, OTHER_SAMPLES, TESTED_PEOPLE, TESTED_SAMPLES, TRIALS_VERSION, Trials

SHRINKAGES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
STUDY_LINE = (0.1403247829724709, -0.07991596036292957)  # upadhyay2026-ln: EER = a + b ln CKA


def fit_levels(
    trials: Sequence[Trials],
    *,
    name: str,
    scorer: str,
    features: Sequence[str] = tuple(FEATURES),
    n_jobs: int = 1,
) -> tuple[CalibratedCard, Mapping[tuple[int, int], CalibratedCard]]:
    """The card of one scorer with all levels simulated, and that of each: by training people and samples at test."""
    from joblib import Parallel, delayed

    sizes = [(int(n), int(probe)) for probe in trials[0].probes for n in trials[0].n_train]
    tables = ((table_of(trials, scorer, n_train=n, probe=probe), n, probe) for n, probe in sizes)
    fitted = Parallel(n_jobs=n_jobs)(
        delayed(fit_card)(table, name=name, scorer=scorer, features=features, n_train=n, probe=probe)
        for table, n, probe in tables
    )
    cards = dict(zip(sizes, fitted, strict=True))
    first = cards[REFERENCE_TRAIN, max(probe for _, probe in sizes)]
    return replace(first, levels=tuple(card.level for card in cards.values() if card is not first)), cards


def fit_card(
    table: Table,
    *,
    name: str,
    scorer: str,
    features: Sequence[str] = tuple(FEATURES),
    n_train: int = REFERENCE_TRAIN,
    probe: int = 20,
) -> CalibratedCard:
    """The card of one scorer and level, from at least 3 of the KINDS and no others, with errors on held-out kinds."""
    kinds = [kind for kind in KINDS if (table.kind == kind).any()]
    matrix, target = design(table, features), distance_of_eer(table.truth)
    shrinkage, d = _cross_fitted(table, matrix, target, kinds)
    coefficients = ridge(matrix, target, shrinkage)
    sizes = TruthSizes()
    card = CalibratedCard(
        name=name, scorer=scorer,
        target={"n_train_identities": n_train, "n_test_identities": sizes.n_test,
                "samples_per_identity": sizes.n_samples, "probe_samples": probe},
        features=tuple(features), evidence_version=EVIDENCE_VERSION,
        people=(30, max(LARGE_PEOPLE)), samples=(min(OTHER_SAMPLES), max(OTHER_SAMPLES)),
        coefficients=_rows(coefficients), shrinkage=shrinkage,
        typical_error=_log_line(size_terms(table.n, table.m), table.d_error),
        ranges={f: quantiles_by_people(table, table.feature(f), FEATURE_QUANTILES) for f in features},
        training_mean=float(table.truth.mean()), replicate=replicate_error(table),
        **error_model(table, d), **_cka_line(table, matrix @ coefficients), held_out=(), gaps=(), p_best=(),
        recipe={"trials_version": TRIALS_VERSION, "n_populations": len(np.unique(table.population)),
                "n_sets": len(table.sets), "n_pairs": len(table), "kinds": ", ".join(kinds), "scorer": SCORERS[scorer]},
    )  # fmt: skip
    return _tested(card, table, d, kinds)


def _cross_fitted(table: Table, matrix: Values, target: Values, kinds: Sequence[str]) -> tuple[float, Values]:
    """The shrinkage, and (rows,) d' predicted by regressions fitted without the row's kind."""
    tried: dict[float, Values] = {}
    for shrinkage in SHRINKAGES:
        d = tried[shrinkage] = np.empty(len(table))
        for kind in kinds:
            inside = table.kind == kind
            d[inside] = matrix[inside] @ ridge(matrix[~inside], target[~inside], shrinkage)
    errors = {shrinkage: rmse(predicted_eer(d), table.truth) for shrinkage, d in tried.items()}
    # The smallest shrinkage that is as good as the best: more would only pull good evidence toward the mean.
    chosen = min(s for s in SHRINKAGES if errors[s] <= 1.01 * min(errors.values()))
    return chosen, tried[chosen]


def _tested(card: CalibratedCard, table: Table, d: Values, kinds: Sequence[str]) -> CalibratedCard:
    """The card with tails and factors that hold on held-out kinds, and its held-out errors.

    Regression (of `d`) and error model are fitted on other kinds than they are tested on. How much wider tails must be
    for a new kind, and the factors on differences between pairs, come from these tests.
    """
    inside = {kind: table.kind == kind for kind in kinds}
    models = {k: replace(card, **error_model(table.rows(~rows), d[~rows])) for k, rows in inside.items()}
    sd, reach, half_width = np.empty((3, len(table)))
    made: dict[str, order.Comparisons] = {}
    best: dict[float, dict[str, order.BestChances]] = {scale: {} for scale in order.BEST_SCALES}
    for kind, model in models.items():
        rows, subset = inside[kind], table.rows(inside[kind])
        sd[rows] = standard_deviation(model.spread, model.own_error, subset, d[rows])
        reach[rows] = tails_of(model, subset.n) * sd[rows]
        made[kind] = order.comparisons(model, subset, d[rows], sd[rows])
        for scale, by_kind in best.items():
            by_kind[kind] = order.best_chances(replace(model, best_scale=scale), subset, d[rows], sd[rows])
    excess = np.abs(d - distance_of_eer(table.truth)) / reach
    tested_order, tested_best, p_best = [], [], np.empty(len(table))
    for kind, model in models.items():
        rows, others = inside[kind], [k for k in kinds if k != kind]
        model = replace(model, tails=widened(model.tails, table.rows(~rows), excess[~rows]))
        half_width[rows] = tails_of(model, table.n[rows]) * sd[rows]
        tested_order.append(made[kind]._replace(z=made[kind].z / order.order_scale([made[k] for k in others])))
        tested_best.append(best[order.best_scale(best, others)][kind])
        p_best[rows] = tested_best[-1].chance
    cells = [(kind, inside[kind] & (table.n == n)) for kind in kinds for n in TESTED_PEOPLE]
    cells += [(ALL_KINDS, table.n == n) for n in (*TESTED_PEOPLE, *LARGE_PEOPLE)]
    # The training mean of the regression behind these rows; for ALL_KINDS, of all kinds.
    means = {label: float(table.truth[table.kind != label].mean()) for label in (*kinds, ALL_KINDS)}
    return replace(
        card,
        tails=widened(card.tails, table, excess),
        order_scale=order.order_scale(list(made.values())),
        best_scale=order.best_scale(best, kinds),
        held_out=tuple(
            held_out(label, table.rows(rows), d[rows], half_width[rows], p_best[rows], training_mean=means[label])
            for label, rows in cells
            if rows.any()
        ),
        gaps=order.gap_bins(order.joined(tested_order)),
        p_best=order.reliability(order.joined(tested_best)),
    )


def rmse(predicted: Values, truth: Values) -> float:
    """Root mean squared error."""
    return math.sqrt(float(np.mean(np.square(predicted - truth))))


def held_out(
    kind: str, table: Table, d: Values, half_width: Values, p_best: Values, *, training_mean: float
) -> HeldOut:
    """Errors of (rows,) predicted d', its half-width, and the chance to be best, for sets of one number of people."""
    eer = predicted_eer(d)
    error = eer - table.truth
    low = predicted_eer(d + half_width)
    high = np.where(d - half_width <= 0, 0.5, predicted_eer(d - half_width))
    # An interval that reaches chance also holds EERs above it.
    inside = (low <= table.truth) & ((table.truth <= high) | (high >= 0.5))
    sets = [(eer[rows], table.truth[rows]) for rows in table.sets]
    lists = [(shortlist_of(p_best[rows].tolist()), table.truth[rows]) for rows in table.sets]
    cka = np.maximum(table.feature("root_cka") ** 2, 8e-3)
    rivals = {
        "training mean": np.asarray(training_mean),
        "best constant": np.asarray(table.truth.mean()),
        "cross-validated EER": table.measured,
        "matched CKA, ln fit": STUDY_LINE[0] + STUDY_LINE[1] * np.log(cka),
    }
    return HeldOut(
        kind=kind, n_identities=int(table.n[0]), n_sets=len(sets), n_pairs=len(table),
        rmse=rmse(eer, table.truth), bias=float(error.mean()),
        bias_at={str(m): float(error[table.m == m].mean()) for m in TESTED_SAMPLES if (table.m == m).any()},
        spearman=float(np.mean([spearman(predicted, truth) or 0.0 for predicted, truth in sets])),
        regret=float(np.mean([truth[np.argmin(predicted)] - truth.min() for predicted, truth in sets])),
        regret_likeliest=float(np.mean([truth[chosen[0]] - truth.min() for chosen, truth in lists])),
        shortlist_holds=float(np.mean([truth[chosen].min() == truth.min() for chosen, truth in lists])),
        shortlist_size=float(np.mean([len(chosen) for chosen, _ in lists])),
        between_sets=between_sets(eer, table),
        coverage=float(inside.mean()), coverage_se=clustered_error(inside, table.population),
        rivals={name: rmse(predicted, table.truth) for name, predicted in rivals.items()},
    )  # fmt: skip


def between_sets(eer: Values, table: Table) -> float:
    """Standard deviation of (rows,) predictions over the sets of a population; 0 where none has two."""
    of_population: dict[str, list[Values]] = {}
    for rows in table.sets:
        of_population.setdefault(str(table.population[rows.start]), []).append(eer[rows])
    pairs = [(a - b) ** 2 for sets in of_population.values() for a, b in itertools.combinations(sets, 2)]
    return math.sqrt(float(np.mean(pairs)) / 2) if pairs else 0.0


def clustered_error(values: NDArray[Any], population: NDArray[Any]) -> float:
    """Standard error of the mean of (rows,) values when rows of one population go together; 0 for one population."""
    _, index = np.unique(population, return_inverse=True)
    sums = np.bincount(index, values - values.mean())
    k = len(sums)
    return math.sqrt(k / (k - 1) * float(np.square(sums).sum())) / len(values) if k > 1 else 0.0


def _cka_line(table: Table, d: Values) -> dict[str, Any]:
    """Predicted d' as a line in root CKA, and the log of the spread about it."""
    terms = size_terms(table.n, table.m)
    matrix = np.hstack([terms, terms * table.feature("root_cka")[:, None]])
    line = np.linalg.lstsq(matrix, d, rcond=None)[0]
    intercept, *slopes = _log_line(terms, np.abs(d - matrix @ line))
    # The mean log of the absolute value of a standard normal variable is -0.635.
    return {"from_cka": _rows(line), "from_cka_sd": (intercept + 0.635, *slopes)}


def ridge(matrix: Values, target: Values, shrinkage: float) -> Values:
    """Coefficients of a ridge regression on standardised columns, the first of them constant; it is not shrunk."""
    mean, sd = matrix.mean(axis=0), matrix.std(axis=0)
    varies = sd > 1e-12
    z = (matrix[:, varies] - mean[varies]) / sd[varies]
    inner = np.linalg.solve(z.T @ z + shrinkage * len(z) * np.eye(z.shape[1]), z.T @ (target - target.mean()))
    coefficients = np.zeros(matrix.shape[1])
    coefficients[varies] = inner / sd[varies]
    coefficients[0] = target.mean() - mean[1:] @ coefficients[1:]
    return coefficients


def _log_line(matrix: Values, target: Values) -> tuple[float, ...]:
    """Least-squares coefficients of the log of a positive target."""
    return tuple(np.linalg.lstsq(matrix, np.log(np.maximum(target, 1e-4)), rcond=None)[0].tolist())


def _rows(coefficients: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, coefficients.reshape(-1, len(SIZE_TERMS)).tolist()))
