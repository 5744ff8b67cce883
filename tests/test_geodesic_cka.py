"""CKA along surfaces, where straight distances mislead."""

from __future__ import annotations

import numpy as np
import pytest

from encsel.errors import BadCalibration
from encsel.metrics.geodesic import geodesic_gram
from encsel.metrics.linear_cka import cka_of_grams, gram
from encsel.metrics.registry import metrics


def swiss_roll(n: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A rolled sheet in 3 dimensions and the same sheet unrolled, its length along the spiral exact."""
    rng = np.random.default_rng(seed)
    t, width = rng.uniform(1.5 * np.pi, 4.5 * np.pi, n), rng.uniform(0, 10, n)
    length = (t * np.sqrt(1 + t**2) + np.arcsinh(t)) / 2
    return np.stack([t * np.cos(t), width, t * np.sin(t)], axis=1), np.stack([length, width], axis=1)


def naive_geodesic_gram(x: np.ndarray) -> np.ndarray:
    """By Floyd and Warshall, the graph being in one part."""
    n = len(x)
    straight = np.linalg.norm(x[:, None] - x[None], axis=2)
    paths = np.full((n, n), np.inf)
    np.fill_diagonal(paths, 0)
    for i in range(n):
        for j in np.argsort(straight[i])[1:11]:
            paths[i, j] = paths[j, i] = straight[i, j]
    for k in range(n):
        paths = np.minimum(paths, paths[:, [k]] + paths[[k]])
    centring = np.eye(n) - 1 / n
    kernel = centring @ (-(paths**2) / 2) @ centring
    return kernel / np.trace(kernel) * n


def test_geodesic_gram_is_that_of_shortest_paths_spelled_out():
    x = np.random.default_rng(1).normal(size=(60, 3))
    np.testing.assert_allclose(geodesic_gram(x).matrix, naive_geodesic_gram(x), atol=1e-9)


def test_along_a_line_geodesic_and_linear_gram_are_one():
    x = np.random.default_rng(2).normal(size=(80, 1)) @ np.array([[1.0, -2.0, 0.5]])
    np.testing.assert_allclose(geodesic_gram(x).matrix, gram(x).matrix, atol=1e-9)


def test_groups_on_a_line_with_no_path_between_them_are_joined_by_their_shortest_link():
    x = np.concatenate([np.random.default_rng(3).uniform(size=(20, 1)) + at for at in (0, 50)])
    np.testing.assert_allclose(geodesic_gram(x).matrix, gram(x).matrix, atol=1e-9)


def test_a_rolled_sheet_is_like_the_sheet_unrolled_along_its_surface_and_less_so_straight_across():
    rolled, flat = swiss_roll()
    along = metrics()["geodesic_cka"].compute(rolled, flat)
    across = cka_of_grams(gram(rolled), gram(flat)).debiased
    assert along > 0.95
    assert across < 0.6


def test_geodesic_cka_with_itself_is_one():
    x = np.random.default_rng(4).normal(size=(40, 5))
    assert metrics()["geodesic_cka"].compute(x, x) == pytest.approx(1, abs=1e-12)


def test_unrelated_embeddings_have_geodesic_cka_near_zero():
    rng = np.random.default_rng(5)
    values = [cka_of_grams(*(geodesic_gram(rng.normal(size=(60, d))) for d in (5, 8))).debiased for _ in range(30)]
    # Single values spread by about 0.03.
    assert np.mean(values) == pytest.approx(0, abs=0.03)


def test_geodesic_gram_ignores_rotation_shift_and_scale():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(40, 5))
    moved = 7 * x @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + 3
    np.testing.assert_allclose(geodesic_gram(moved).matrix, geodesic_gram(x).matrix, atol=1e-9)


def test_geodesic_gram_is_centred_symmetric_and_of_unit_mean_diagonal():
    k = geodesic_gram(np.random.default_rng(7).normal(size=(40, 5))).matrix
    np.testing.assert_allclose(k, k.T, atol=1e-9)
    np.testing.assert_allclose(k.sum(axis=0), 0, atol=1e-9)
    assert np.trace(k) / 40 == pytest.approx(1)


def test_people_who_coincide_give_no_nan():
    x = np.repeat(np.random.default_rng(8).normal(size=(4, 3)), 12, axis=0)
    assert np.isfinite(geodesic_gram(x).matrix).all()


def test_eleven_people_are_too_few():
    with pytest.raises(BadCalibration, match="11 people; geodesic distances need at least 12"):
        geodesic_gram(np.random.default_rng(9).normal(size=(11, 4)))


def test_people_who_are_all_alike_are_an_error():
    with pytest.raises(BadCalibration, match="All people have the same embedding"):
        geodesic_gram(np.full((30, 4), 0.3))
