"""The bound on the EER from CKA: its formula, its derivation on Gaussian people, and on every simulated kind."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from encsel.matching.bound import eer_bound
from encsel.matching.crossval import MEASURED
from encsel.matching.eer import eer
from encsel.matching.scorers import split_scores
from encsel.metrics.linear_cka import cka_of_grams, gram
from encsel.simulation.populations import KINDS, Population, TruthSizes, truth


def test_nothing_shared_is_chance_and_more_is_less_error():
    values = [eer_bound(c) for c in (-0.1, 0.0, 0.1, 0.5, 1.0, 4.0)]
    assert values[:2] == [0.5, 0.5]
    assert values[1:] == sorted(values[1:], reverse=True)
    assert values[4:] == pytest.approx([norm.cdf(-x / (1 + np.sqrt(2))) for x in (1, 2)])


def drawn(n: int, dim: int, shared: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian people whose sides agree in all directions; their CKA is shared squared, and the bound is tight."""
    x = rng.normal(size=(n, dim))
    return x, shared * x + np.sqrt(1 - shared**2) * rng.normal(size=(n, dim))


def test_the_polar_matcher_of_gaussian_people_errs_as_derived():
    rng = np.random.default_rng(0)
    dim, shared = 40, 0.3
    x, y = drawn(1500, dim, shared, rng)
    # S is shared * I, so that the mean is shared * dim, and the variances are dim and dim * (1 + shared^2).
    expected = norm.cdf(-shared * np.sqrt(dim) / (1 + np.sqrt(1 + shared**2)))
    found = eer(*split_scores(x @ y.T))
    assert found == pytest.approx(expected, abs=0.01)
    cka = cka_of_grams(gram(x), gram(y)).debiased
    assert cka == pytest.approx(shared**2, abs=0.01)
    assert found < eer_bound(cka)


def test_many_weak_traits_have_little_cka_and_a_low_error():
    rng = np.random.default_rng(0)
    x, y = drawn(1500, 300, 0.165, rng)
    cka = cka_of_grams(gram(x), gram(y)).debiased
    assert cka < 0.04
    assert eer(*split_scores(x @ y.T)) < 0.1
    assert eer_bound(cka) > 0.45


def bounded(kind: str, seed: int, n_people: int, sizes: TruthSizes) -> np.ndarray:
    """(2, pairs): the best scorer's EER, and the bound from debiased CKA of new people."""
    population = Population(kind, seed, n_faces=2, n_voices=2)
    best = truth(population.draw, np.random.default_rng([seed, 1]), sizes).min(axis=0)[0, -1]
    assert len(MEASURED) == 2
    people = population.draw(n_people, sizes.n_samples, np.random.default_rng([seed, 4]))
    pairs = [(f.centroids, v.centroids) for f in people["face"] for v in people["voice"]]
    ckas = [cka_of_grams(gram(x), gram(y)).debiased for x, y in pairs]
    return np.array([best.ravel(), list(map(eer_bound, ckas))])


@pytest.mark.parametrize(
    ("kind", "n_seeds", "n_people"),
    [
        ("strong", 1, 400),
        *(pytest.param(kind, 8, 1249, marks=pytest.mark.slow) for kind in KINDS),
    ],
)
def test_some_matcher_keeps_the_bound_in_every_kind(kind, n_seeds, n_people):
    n_train = (300,) if n_people < 999 else (999,)
    sizes = TruthSizes(n_train=n_train, n_samples=8, probes=(8,), n_splits=2)
    best, bound = np.hstack([bounded(kind, seed, n_people, sizes) for seed in range(n_seeds)])
    print(f"\n{kind}: kept by {(best <= bound).mean():.3f} of {len(best)} pairs, excess {np.max(best - bound):+.3f}")
    # 250 test people have an error of 0.01 to 0.02; where nothing is shared, the bound is chance.
    assert (best <= bound + 0.03).all()
    assert (best[bound < 0.48] <= bound[bound < 0.48] + 0.01).all()


def test_on_whitened_axes_the_sum_of_squared_canonical_correlations_gives_a_bound_that_is_kept():
    rng = np.random.default_rng(0)
    x, y = drawn(1500, 30, 0.4, rng)
    scale = np.geomspace(1, 30, 30)  # whitening undoes it; CKA sees little but the last directions
    shared = 30 * 0.4**2
    found = eer(*split_scores(x @ y.T))
    assert found < eer_bound(shared) < eer_bound(cka_of_grams(gram(x * scale), gram(y * scale[::-1])).debiased)
