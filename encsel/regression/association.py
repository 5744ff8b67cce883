"""How strongly one number per face-voice pair goes with the EER: rank correlation and what chance would give."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

N_BOOTSTRAP = 2000
BOOTSTRAP_COVERAGE = 0.95
MAX_EXACT = 50_000
"""Label orders up to which the crossed permutation goes through all of them."""
N_DRAWS = 9999

# Equal rank sums reached in another order of addition differ in the last digits; a tie must count as a tie.
_TIE = 1e-9

Values = NDArray[np.float64]
Labels = NDArray[Any]


@dataclass(frozen=True)
class CrossedP:
    """Share of label orders whose |Spearman| is at least the observed one; the observed order is one of them.

    `n_orders` counts the label orders looked at: all of them when `how` is "exact", else the random draws.
    """

    p: float | None
    how: Literal["exact", "monte_carlo", "none"]
    n_orders: int
    reason: str | None = None


@dataclass(frozen=True)
class Association:
    """Spearman correlation of one column with the EER.

    Attributes:
        spearman: in [-1, 1]; negative when a larger value goes with a lower EER. None when `reason` says why.
        p: two-sided, Student t; takes the pairs as independent, which pairs that share encoders are not.
        interval: 95 % percentile bootstrap over pairs; takes them as independent, too.
        crossed: permutation of the encoders' labels, which respects that pairs share encoders.
    """

    spearman: float | None
    p: float | None
    interval: tuple[float, float] | None
    crossed: CrossedP
    reason: str | None = None


def associate(x: Values, y: Values, face: Labels, voice: Labels, data_set: Labels, *, seed: int) -> Association:
    """Rank association of `x` with `y` over pairs.

    Args:
        x, y: (pairs,) finite.
        face, voice, data_set: (pairs,) labels; no pair twice within a data set.
        seed: of the bootstrap, and of the permutation where it is not exact.
    """
    rho = spearman(x, y)
    if rho is None:
        reason = f"no rank correlation over {len(x)} pairs in which one of the two columns does not vary"
        return Association(None, None, None, CrossedP(None, "none", 0, reason), reason)
    interval = bootstrap_interval(x, y, seed=seed)
    crossed = crossed_p(x, y, face, voice, data_set, seed=seed)
    no_interval = None if interval else "no interval: over half of the resamples repeat one value"
    return Association(rho, spearman_p(rho, len(x)), interval, crossed, no_interval)


def spearman(x: Values, y: Values) -> float | None:
    """Spearman rank correlation in [-1, 1], ties at their mean rank; None when either is constant."""
    a, b = _centred_ranks(x), _centred_ranks(y)
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return min(1.0, max(-1.0, float(a @ b) / scale)) if scale > 0 else None


def spearman_p(rho: float, n: int) -> float | None:
    """Two-sided p of a Spearman correlation over `n` independent pairs, by Student t; None below 3 pairs."""
    from scipy.special import stdtr

    if n < 3:
        return None
    if abs(rho) == 1:
        return 0.0
    return float(2 * stdtr(n - 2, -abs(rho) * math.sqrt((n - 2) / (1 - rho * rho))))


def bootstrap_interval(x: Values, y: Values, *, seed: int) -> tuple[float, float] | None:
    """95 % percentile interval of Spearman over resampled pairs; None when under half of the resamples have a value.

    A resample in which a column takes one value only has no rank order and is left out.
    """
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
    """Two-sided p of Spearman when face labels and voice labels of `y` are shuffled, separately within each data set.

    Pairs that share an encoder move together, so the p is not fooled by 12 pairs made of 4 + 3 encoders. Its floor is
    one over the number of orders that give different tables.
    """
    # Shuffling permutes the ranks of y and leaves both norms alone: only the sum of products has to be recomputed,
    # and that sum is one term per data set.
    a, b = _centred_ranks(x), _centred_ranks(y)
    grids = []
    for name in np.unique(data_set):
        inside = data_set == name
        faces, row = np.unique(face[inside], return_inverse=True)
        voices, column = np.unique(voice[inside], return_inverse=True)
        if inside.sum() != len(faces) * len(voices):
            reason = (
                f"{name} holds {inside.sum()} of the {len(faces) * len(voices)} pairs of its {len(faces)} face and "
                f"{len(voices)} voice encoders; labels can be shuffled only when every pair is there"
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
    """Sum of a * b for every order of b's rows and columns, the identity among them."""
    rows, columns = (np.array(list(itertools.permutations(range(size)))) for size in a.shape)
    return np.concatenate([np.einsum("fv,fpv->p", a, b[order][:, columns]) for order in rows])


def _random_orders(a: Values, b: Values, random: np.random.Generator) -> Values:
    """Sum of a * b for N_DRAWS random orders of b's rows and columns."""
    rows, columns = (random.permuted(np.tile(np.arange(size), (N_DRAWS, 1)), axis=1) for size in a.shape)
    return np.einsum("fv,pfv->p", a, b[rows[:, :, None], columns[:, None, :]])
