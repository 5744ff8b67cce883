from __future__ import annotations

import numpy as np
import pytest

from encsel.core import Embeddings
from encsel.errors import BadCalibration
from encsel.metrics.distance_ratio import two_nn
from encsel.metrics.mle import mle_harmonic, mle_median
from encsel.metrics.neighbours import distinct_rows, neighbour_distances


def ball(dim: int, n: int = 3000, seed: int = 0) -> np.ndarray:
    """Uniform in a ball of `dim` dimensions, embedded in 30."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim))
    x *= (rng.random(n) ** (1 / dim) / np.linalg.norm(x, axis=1))[:, None]
    return x @ np.linalg.qr(rng.normal(size=(30, dim)))[0].T


@pytest.mark.parametrize("dim", [1, 2, 5, 10])
def test_estimates_find_the_dimension_of_a_ball(dim):
    distances = neighbour_distances(ball(dim), 20)
    # Boundary and curvature of density bias all of them low as the dimension grows.
    for estimate in (mle_median(distances), mle_harmonic(distances), two_nn(distances)):
        assert estimate == pytest.approx(dim, rel=0.15)


def test_two_nn_inverts_its_own_law():
    # P(mu <= t) = 1 - t^-d: the exact quantiles give back d.
    n, d = 2000, 7.0
    mu = (1 - np.arange(1, n + 1) / (n + 1)) ** (-1 / d)
    assert two_nn(np.stack([np.ones(n), mu], axis=1)) == pytest.approx(d, rel=0.01)


def test_mle_of_geometric_distances_is_exact():
    # log(d_k / d_j) = (k - j) a for every point: the estimate is (k - 1) / sum.
    a = 0.1
    distances = np.exp(a * np.arange(20))[None].repeat(5, axis=0)
    assert mle_median(distances) == pytest.approx(19 / (a * np.arange(1, 20).sum()))
    assert mle_harmonic(distances) == pytest.approx(mle_median(distances))


def test_neighbours_are_those_of_brute_force():
    x = np.random.default_rng(1).normal(size=(80, 7)) + 1000
    full = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(full, np.inf)
    np.testing.assert_allclose(neighbour_distances(x, 5), np.sort(full, axis=1)[:, :5], rtol=1e-9)


def test_distinct_rows_keeps_the_first_of_each():
    x = np.array([[1, 2], [3, 4], [1, 2], [5, 6], [3, 4]], dtype=np.float32)
    found = distinct_rows(Embeddings("a", "face", x, np.array([*"ppqqq"]), np.array([*"01234"])))
    np.testing.assert_array_equal(found, x[[0, 1, 3]])


def test_too_few_rows_say_how_many_are_needed():
    with pytest.raises(BadCalibration, match="20 distinct samples; 20 neighbours per sample need at least 21"):
        neighbour_distances(np.random.default_rng(2).normal(size=(20, 3)), 20)


def test_points_on_a_lattice_with_equal_distances_are_refused():
    with pytest.raises(BadCalibration, match="undefined"):
        mle_median(np.ones((30, 20)))
