"""Curvature of surfaces whose curvature is known, and the reference form against its features spelled out."""

from __future__ import annotations

import numpy as np
import pytest

from encsel.errors import BadCalibration
from encsel.metrics.curvature import (
    CLIP,
    N_POINTS,
    QUANTILES,
    REFERENCE_SEED,
    RIDGE,
    Curvature,
    K,
    curvature,
    curvature_points,
    flat_control,
)
from encsel.metrics.neighbours import nearest_neighbours
from encsel.metrics.registry import metrics


def rotated(x: np.ndarray, dim: int = 10, seed: int = 1) -> np.ndarray:
    """In `dim` dimensions, on axes at random."""
    return x @ np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, x.shape[1])))[0].T


def sphere(dim: int, radius: float, n: int = 2000, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, dim + 1))
    return rotated(radius * x / np.linalg.norm(x, axis=1, keepdims=True))


def curvature_of(x: np.ndarray, *, n_points: int = 300, k: int = K, reference: bool = False) -> Curvature:
    points = np.arange(min(n_points, len(x)))
    return curvature(x, points, nearest_neighbours(x, k).index[points], reference=reference)


@pytest.mark.parametrize("radius", [0.3, 1.0, 3.0])
def test_curvature_of_a_sphere_is_one_over_its_radius(radius):
    found = curvature_of(sphere(2, radius))
    assert found.mean_absolute_median == pytest.approx(1 / radius, rel=0.1)
    assert found.gaussian_median == pytest.approx(1 / radius**2, rel=0.2)
    assert found.tangent_dimension == 2
    assert found.form == "corrected"
    assert (found.n_points, found.n_neighbours) == (300, K)


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_curvature_of_small_caps_is_that_of_their_sphere_in_any_dimension(dim):
    rng = np.random.default_rng(12)
    # 100 poles, each with 50 neighbours uniform in a cap of 0.3 radians about it; without slopes five dimensions
    # would read a sixth too little.
    way = rng.normal(size=(100, K, dim))
    way *= (0.3 * rng.random((100, K)) ** (1 / dim) / np.linalg.norm(way, axis=2))[..., None]
    angle = np.linalg.norm(way, axis=2, keepdims=True)
    caps = 2 * np.concatenate([np.sin(angle) / angle * way, np.cos(angle)], axis=2)
    poles = np.broadcast_to(2 * np.eye(dim + 1)[dim], (100, 1, dim + 1))
    x = rotated(np.concatenate([poles, caps], axis=1).reshape(-1, dim + 1))
    rows = np.arange(100 * (K + 1)).reshape(100, K + 1)
    found = curvature(x, rows[:, 0], rows[:, 1:])
    assert found.tangent_dimension == dim
    assert found.mean_absolute_median == pytest.approx(1 / 2, rel=0.05)


def test_mean_curvature_of_a_cylinder_is_half_of_one_over_its_radius_and_its_gaussian_curvature_near_zero():
    rng = np.random.default_rng(2)
    angle, height = rng.uniform(0, 2 * np.pi, 4000), rng.uniform(-4, 4, 4000)
    # Points near the rim have neighbours on one side only.
    order = np.argsort(np.abs(height))
    x = rotated(np.stack([2 * np.cos(angle), 2 * np.sin(angle), height], axis=1)[order])
    found = curvature_of(x)
    assert found.mean_absolute_median == pytest.approx(0.25, rel=0.1)
    assert found.gaussian_median < 0.02


def test_a_plane_has_no_curvature():
    x = rotated(np.random.default_rng(3).normal(size=(500, 2)))
    # The height is the rounding of the third axis.
    assert curvature_of(x).mean_absolute_median < 1e-5


def naive_reference(x: np.ndarray, points: np.ndarray, neighbours: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean and Gaussian curvature and tangent dimension at each point, by a ridge on features that are formed."""
    means, gaussians, dims = [], [], []
    for point, near in zip(points, neighbours, strict=True):
        offsets = x[near] - x[point]
        _, sizes, axes = np.linalg.svd(offsets, full_matrices=False)
        share = np.cumsum(sizes**2) / np.sum(sizes**2)
        d = max(2, int(np.argmax(share >= 0.95)) + 1)
        tangent, height = offsets @ axes[:d].T, offsets @ axes[d]
        pairs = [(a, b) for a in range(d) for b in range(a, d)]
        features = np.stack([(1 if a == b else 2) * tangent[:, a] * tangent[:, b] for a, b in pairs], axis=1)
        weights = np.linalg.solve(features.T @ features + 1e-3 * np.eye(len(pairs)), features.T @ height)
        form = np.zeros((d, d))
        for (a, b), weight in zip(pairs, weights, strict=True):
            form[a, b] = form[b, a] = weight
        principal = np.clip(np.linalg.eigvalsh(form), -100, 100)
        means.append(principal.mean())
        first, second = np.sort(np.abs(principal))[-2:]
        gaussians.append(first * second)
        dims.append(d)
    return np.array(means), np.array(gaussians), np.array(dims)


# More points than are computed at once; at the smaller scale the ridge counts.
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_reference_form_is_the_ridge_on_explicit_quadratic_features(scale):
    x = scale * np.random.default_rng(4).normal(size=(230, 8)) * np.geomspace(2, 0.2, 8)
    points = np.arange(len(x))
    neighbours = nearest_neighbours(x, 18).index
    found = curvature(x, points, neighbours, reference=True)
    mean, gaussian, dims = naive_reference(x, points, neighbours)
    assert len(set(dims.tolist())) > 1
    assert found.mean_absolute_median == pytest.approx(np.median(np.abs(mean)), rel=1e-6)
    assert found.mean_median == pytest.approx(np.median(mean), rel=1e-6)
    assert found.mean_std == pytest.approx(mean.std(), rel=1e-6)
    assert found.gaussian_median == pytest.approx(np.median(gaussian), rel=1e-6)
    assert found.tangent_dimension == np.median(dims)
    np.testing.assert_allclose(found.absolute_quantiles, np.quantile(np.abs(mean), np.linspace(0, 1, 41)), rtol=1e-6)


def test_constants_of_the_reference_form_are_the_released_codes():
    assert (RIDGE, CLIP, REFERENCE_SEED, N_POINTS) == (1e-3, 100, 42, 1000)


def test_reference_form_reads_half_of_a_large_sphere():
    # It loses the 2 of the second derivative; on a large sphere its ridge is too small to count. It fits no slopes
    # either, which costs a few percent more.
    assert curvature_of(sphere(2, 30.0), reference=True).mean_absolute_median == pytest.approx(0.5 / 30, rel=0.1)


def test_the_ridge_of_the_reference_form_flattens_a_small_sphere():
    assert curvature_of(sphere(2, 0.3), reference=True).mean_absolute_median < 0.5 * (0.5 / 0.3)


def test_curvature_goes_with_one_over_the_scale():
    x = sphere(2, 1.0, n=600) + 0.02 * np.random.default_rng(5).normal(size=(600, 10))
    base = curvature_of(x)
    for scale in (1e-6, 7.0, 1e6):
        scaled = curvature_of(scale * x)
        assert scaled.mean_absolute_median == pytest.approx(base.mean_absolute_median / scale, rel=1e-9)
        assert scaled.gaussian_median == pytest.approx(base.gaussian_median / scale**2, rel=1e-9)


def test_curvature_ignores_rotation_and_shift():
    x = np.random.default_rng(6).normal(size=(300, 6)) * np.geomspace(2, 0.2, 6)
    moved = curvature_of(rotated(x, seed=7) + 3, k=20)
    assert moved.mean_absolute_median == pytest.approx(curvature_of(x, k=20).mean_absolute_median, rel=1e-9)


def test_flat_control_of_a_gaussian_cloud_is_the_curvature_of_that_cloud():
    x = np.random.default_rng(8).normal(size=(2000, 8)) * np.geomspace(2, 0.2, 8)
    own, control = curvature_of(x), flat_control(x, n_points=300, k=K, seed=0)
    # Medians over 300 points whose spread is about their median: the standard error of their ratio is about 0.1.
    assert control.mean_absolute_median == pytest.approx(own.mean_absolute_median, rel=0.3)
    assert control.gaussian_median == pytest.approx(own.gaussian_median, rel=0.3)
    assert control.tangent_dimension == pytest.approx(own.tangent_dimension, abs=1)
    assert (control.n_points, control.n_neighbours, control.form) == (300, K, "corrected")


def test_flat_control_depends_on_the_covariance_and_the_seed_alone():
    x = np.random.default_rng(9).normal(size=(200, 5)) * np.geomspace(2, 0.2, 5)
    control = flat_control(x, n_points=50, k=20, seed=0)
    assert flat_control(x, n_points=50, k=20, seed=0) == control
    assert flat_control(x, n_points=50, k=20, seed=1) != control
    shifted = flat_control(x[::-1] + 5, n_points=50, k=20, seed=0)
    # The cloud is drawn in single precision.
    assert shifted.mean_absolute_median == pytest.approx(control.mean_absolute_median, rel=1e-3)


def test_flat_control_takes_more_dimensions_than_rows():
    x = np.random.default_rng(10).normal(size=(60, 200))
    assert np.isfinite(flat_control(x, n_points=20, k=20, seed=0).mean_absolute_median)


def test_quantiles_run_from_the_smallest_to_the_largest_through_the_median():
    found = curvature_of(sphere(2, 1.0, n=400))
    assert len(found.absolute_quantiles) == QUANTILES
    assert list(found.absolute_quantiles) == sorted(found.absolute_quantiles)
    assert found.absolute_quantiles[QUANTILES // 2] == pytest.approx(found.mean_absolute_median, rel=1e-12)


def test_only_the_reference_form_has_signs():
    x = sphere(2, 1.0, n=300)
    assert curvature_of(x).mean_median is None
    assert curvature_of(x, reference=True).mean_median is not None


def test_points_are_the_released_codes_draw_of_a_thousand():
    expected = np.random.RandomState(42).choice(5000, 1000, replace=False)
    np.testing.assert_array_equal(curvature_points(5000), expected)
    assert sorted(curvature_points(30)) == list(range(30))


def test_metric_is_the_corrected_median_at_the_drawn_points():
    x = sphere(2, 1.0, n=300)
    points = curvature_points(300)
    expected = curvature(x, points, nearest_neighbours(x, K).index[points]).mean_absolute_median
    assert metrics()["mean_curvature"].compute(x) == pytest.approx(expected, rel=1e-12)


def test_neighbours_that_all_lie_on_the_point_are_an_error():
    x = np.ones((5, 3))
    with pytest.raises(BadCalibration, match="All neighbours lie on one point; curvature needs at least 2 that differ"):
        curvature(x, np.array([0]), np.array([[1, 2, 3, 4]]))


def test_curvature_of_few_samples_says_how_many_are_needed():
    with pytest.raises(BadCalibration, match="11 samples; curvature needs at least 12"):
        metrics()["mean_curvature"].compute(np.random.default_rng(11).normal(size=(11, 4)))
