"""What every registered metric must do; metrics are found, not listed."""

from __future__ import annotations

import numpy as np
import pytest

from encsel.core import Metric
from encsel.errors import BadCalibration
from encsel.metrics.registry import metrics

METRICS = list(metrics().values())
N = 60


def value(metric: Metric, x: np.ndarray, y: np.ndarray, order: np.ndarray | None = None) -> float:
    """Of the first side alone, of it and whose rows they are (6 each), or of both."""
    if metric.of == "people":
        people = np.arange(len(x)) // 6
        return metric.compute(x, people if order is None else people[order])
    return metric.compute(x) if metric.of == "rows" else metric.compute(x, y)


@pytest.fixture(params=METRICS, ids=lambda m: m.name)
def metric(request: pytest.FixtureRequest) -> Metric:
    return request.param


@pytest.fixture
def sides() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(N, 5))
    return tuple(shared @ rng.normal(size=(5, d)) + rng.normal(size=(N, d)) for d in (12, 9))


def test_metric_describes_itself(metric):
    assert metric.name
    assert metric.version >= 1
    assert metric.direction.startswith(("larger", "smaller"))
    assert metric.source
    assert metric.range[0] < metric.range[1]


def test_metric_is_in_its_range(metric, sides):
    low, high = metric.range
    assert low <= value(metric, *sides) <= high


def test_metric_is_deterministic(metric, sides):
    assert value(metric, *sides) == value(metric, *sides)


@pytest.mark.parametrize("change", ["rotation", "shift", "scale"])
def test_metric_ignores_the_changes_it_says_it_ignores(metric, sides, change):
    if change not in metric.invariant_to:
        pytest.skip(f"{metric.name} does not claim to ignore {change}")
    x, y = sides
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(12, 12)))[0]
    moved = {"rotation": x @ rotation, "shift": x + 3, "scale": 7 * x}[change]
    assert value(metric, moved, y) == pytest.approx(value(metric, x, y), rel=1e-9)


def test_metric_ignores_the_order_of_people(metric, sides):
    x, y = sides
    order = np.random.default_rng(3).permutation(N)
    assert value(metric, x[order], y[order], order) == pytest.approx(value(metric, x, y), rel=1e-9)


def test_metric_takes_more_dimensions_than_people(metric):
    rng = np.random.default_rng(4)
    assert np.isfinite(value(metric, rng.normal(size=(30, 200)), rng.normal(size=(30, 150))))


def test_metric_takes_single_precision(metric, sides):
    x, y = (side.astype(np.float32) for side in sides)
    assert value(metric, x, y) == pytest.approx(value(metric, *sides), rel=1e-4)


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1e20])
def test_metric_takes_wildly_scaled_embeddings(metric, sides, scale):
    if "scale" not in metric.invariant_to:
        pytest.skip(f"{metric.name} goes with the scale")
    x, y = sides
    # Intrinsic dimension floors distances at 1e-10, as the reference does: only scales above that are its business.
    if metric.of == "rows" and scale < 1:
        pytest.skip("distances below the documented floor")
    assert value(metric, scale * x, y) == pytest.approx(value(metric, x, y), rel=1e-9)


def test_metric_of_constant_embeddings_is_an_error_that_says_so(metric, sides):
    with pytest.raises(BadCalibration):
        value(metric, np.full((N, 12), 0.3), sides[1])


def test_metric_of_too_few_rows_is_an_error_that_says_so(metric, sides):
    x, y = sides
    with pytest.raises(BadCalibration, match="at least"):
        value(metric, x[:2], y[:2])
