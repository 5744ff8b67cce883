"""Correlation of one number per face-voice pair with the EER, with p-values and an interval."""

import itertools
import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

N_BOOTSTRAP = 2000
BOOTSTRAP_COVERAGE = 0.95
MAX_EXACT = 50_000
"""Largest number of label orders that the crossed permutation enumerates; above, it draws N_DRAWS at random."""
N_DRAWS = 9999

# Equal rank sums added in another order differ in the last digits; a tie must count as a tie.
_TIE = 1e-9

Values = NDArray[np.float64]
Labels = NDArray[Any]


@dataclass(frozen=True)
class CrossedP:
    """Permutation p-value: fraction of label orders, the observed one included, with at least the observed |Spearman|.

    `n_orders` counts all orders if `how` is "exact", else random draws.
    """

    p: float | None
    how: Literal["exact", "monte_carlo", "none"]
    n_orders: int
    reason: str | None = None


@dataclass(frozen=True)
class Association:
    """Spearman correlation of one column with the EER.

    Attributes:
        spearman: in [-1, 1]; negative if larger values mean a lower EER. None if `reason` is set.
        p, interval: two-sided p-value (Student t) and 95 % percentile bootstrap over pairs. Both treat pairs as
            independent, although pairs that share encoders are not.
        crossed: permutation p-value that accounts for pairs sharing encoders.
    """

    spearman: float | None
    p: float | None
    interval: tuple[float, float] | None
    crossed: CrossedP
    reason: str | None = None


@dataclass(frozen=True)
class Correlation:
    """Correlation in [-1, 1] and its two-sided p-value (Student t); None if a column is constant, `p` below 3 pairs."""

    value: float | None
    p: float | None


def associate(x: Values, y: Values, face: Labels, voice: Labels, data_set: Labels, *, seed: int) -> Association:
    """Rank association of (pairs,) `x` with `y`; no pair of labels may occur twice within a data set."""
    rank = correlate("spearman", x, y)
    if rank.value is None:
        reason = f"no rank correlation over {len(x)} pairs: one of the two columns is constant"
        return Association(None, None, None, CrossedP(None, "none", 0, reason), reason)
    interval = bootstrap_interval(x, y, seed=seed)
    crossed = crossed_p(x, y, face, voice, data_set, seed=seed)
    no_interval = None if interval else "no interval: in over half of the resamples a column is constant"
    return Association(rank.value, rank.p, interval, crossed, no_interval)


def correlate(method: Literal["spearman", "pearson"], x: Values, y: Values) -> Correlation:
    """Correlation of two columns."""
    from scipy.stats import pearsonr, spearmanr

    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of two pairs, and of columns that hardly vary
        result = spearmanr(x, y) if method == "spearman" else pearsonr(x, y)
    return Correlation(float(result.statistic), float(result.pvalue) if len(x) > 2 else None)


def spearman(x: Values, y: Values) -> float | None:
    """Spearman rank correlation in [-1, 1], ties get their mean rank; None if a column is constant."""
    return correlate("spearman", x, y).value


def bootstrap_interval(x: Values, y: Values, *, seed: int) -> tuple[float, float] | None:
    """95 % percentile interval of Spearman over resampled pairs; None if a column is constant in most resamples."""
    drawn = np.random.default_rng(seed).integers(len(x), size=(N_BOOTSTRAP, len(x)))
    a, b = _centred_ranks(x[drawn]), _centred_ranks(y[drawn])
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    defined = scale > 0
    if defined.sum() < N_BOOTSTRAP / 2:
        return None
    rho = (a * b).sum(axis=1)[defined] / scale[defined]
    low, high = np.clip(np.quantile(rho, [(1 - BOOTSTRAP_COVERAGE) / 2, (1 + BOOTSTRAP_COVERAGE) / 2]), -1, 1)
    return float(low), float(high)


def crossed_p(x: Values, y: Values, face: Labels, voice: Labels, data_set: Labels, *, seed: int) -> CrossedP:
    """Two-sided permutation p-value of Spearman: face and voice labels of `y` shuffled within each data set.

    Pairs that share an encoder are not independent: the smallest possible value is one over the number of orders that
    give different tables.
    """
    # Shuffling permutes the ranks of y and leaves both norms unchanged: only the sum of products has to be recomputed,
    # with one term per data set.
    a, b = _centred_ranks(x), _centred_ranks(y)
    grids = []
    for name in np.unique(data_set):
        inside = data_set == name
        faces, row = np.unique(face[inside], return_inverse=True)
        voices, column = np.unique(voice[inside], return_inverse=True)
        if inside.sum() != len(faces) * len(voices):
            reason = (
                f"{name} holds {inside.sum()} of the {len(faces) * len(voices)} pairs of its {len(faces)} face and "
                f"{len(voices)} voice encoders; labels can be shuffled only if every pair is present"
            )
            return CrossedP(None, "none", 0, reason)
        grid_a, grid_b = np.empty((2, len(faces), len(voices)))
        grid_a[row, column], grid_b[row, column] = a[inside], b[inside]
        grids.append((grid_a, grid_b))

    observed = abs(float(a @ b)) - _TIE * math.sqrt(float(a @ a) * float(b @ b))
    n_orders = math.prod(math.factorial(size) for grid, _ in grids for size in grid.shape)
    if n_orders <= MAX_EXACT:
        total = np.zeros(1)
        for grid_a, grid_b in grids:
            total = np.add.outer(total, _all_orders(grid_a, grid_b)).ravel()
        return CrossedP(float(np.mean(np.abs(total) >= observed)), "exact", n_orders)
    random = np.random.default_rng(seed)
    total = sum((_random_orders(grid_a, grid_b, random) for grid_a, grid_b in grids), np.zeros(N_DRAWS))
    n_as_far = int(np.sum(np.abs(total) >= observed))
    return CrossedP((1 + n_as_far) / (1 + N_DRAWS), "monte_carlo", N_DRAWS)


def _centred_ranks(values: Values) -> Values:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=-1)) - (values.shape[-1] + 1) / 2


def _all_orders(a: Values, b: Values) -> Values:
    """Sum of a * b for every order of b's rows and columns, the identity included."""
    rows, columns = (np.array(list(itertools.permutations(range(size)))) for size in a.shape)
    return np.concatenate([np.einsum("fv,fpv->p", a, b[order][:, columns]) for order in rows])


def _random_orders(a: Values, b: Values, random: np.random.Generator) -> Values:
    """Sum of a * b for N_DRAWS random orders of b's rows and columns."""
    rows, columns = (random.permuted(np.tile(np.arange(size), (N_DRAWS, 1)), axis=1) for size in a.shape)
    return np.einsum("fv,pfv->p", a, b[rows[:, :, None], columns[:, None, :]])
