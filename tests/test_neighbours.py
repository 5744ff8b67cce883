"""The neighbour search against scikit-learn and exact differences."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from encsel.errors import BadCalibration
from encsel.metrics import neighbours as module
from encsel.metrics import search
from encsel.metrics.neighbours import nearest_neighbours, rows_to_search

K = 20


def people(n: int, dim: int, *, spread: float, offset: float = 0.0, dtype: type = np.float32) -> np.ndarray:
    """Rows of people, 8 each, that lie within `spread` of them."""
    rng = np.random.default_rng(n + dim)
    centres = rng.normal(size=(-(-n // 8), 12)) @ rng.normal(size=(12, dim)) + 0.3 * rng.normal(size=(-(-n // 8), dim))
    return (np.repeat(centres, 8, axis=0)[:n] + spread * rng.normal(size=(n, dim)) + offset).astype(dtype)


def exact(x: np.ndarray, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
    difference = x[index].astype(np.float64) - x[rows].astype(np.float64)[:, None]
    return np.sqrt(np.square(difference).sum(axis=2))


def kth(x: np.ndarray, k: int, rows: np.ndarray) -> np.ndarray:
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    return NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(centred).kneighbors(centred[rows])[0][:, 1:]


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DENSE", 0)
    monkeypatch.setattr(search, "TILE", (64, 128))


CLOUDS = {
    "loose": {"spread": 1.5}, "near": {"spread": 1e-2}, "nearly equal": {"spread": 1e-4},
    "far away": {"spread": 1.0, "offset": 300.0}, "float64": {"spread": 1.0, "dtype": np.float64},
}  # fmt: skip


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("some", [False, True])
def test_distances_are_exact_to_one_in_a_million(cloud, some):
    x = people(700, 48, **CLOUDS[cloud])
    rows = np.arange(3, 700, 7) if some else np.arange(700)
    found = nearest_neighbours(x, K, of=rows if some else None)
    np.testing.assert_array_equal(found.rows, rows)
    assert (found.index != rows[:, None]).all()
    assert all(len(set(one)) == K for one in found.index.tolist())
    assert (np.diff(found.distances, axis=1) >= 0).all()
    np.testing.assert_allclose(found.distances, exact(x, found.index, rows), rtol=1e-7)
    np.testing.assert_allclose(found.distances, kth(x, K, rows), rtol=1e-6 if cloud != "nearly equal" else 1e-5)


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize("cloud", ["loose", "nearly equal", "far away"])
def test_distances_in_many_dimensions_are_exact_to_one_in_a_million(cloud):
    x = people(200, 4096, **CLOUDS[cloud])
    found = nearest_neighbours(x, K)
    np.testing.assert_allclose(found.distances, exact(x, found.index, np.arange(200)), rtol=1e-6)
    truth = np.sqrt(np.square(x[:9, None].astype(np.float64) - x).sum(axis=2))
    np.testing.assert_allclose(found.distances[:9], np.sort(truth, axis=1)[:, 1 : K + 1], rtol=1e-6)


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_outside_the_range_of_float32_are_taken_in_float64(scale):
    x = people(300, 20, spread=1.0)
    found = nearest_neighbours((x * scale).astype(np.float32), K)
    np.testing.assert_allclose(found.distances / scale, nearest_neighbours(x, K).distances, rtol=1e-6)


@pytest.mark.usefixtures("tiled")
def test_rows_that_float32_cannot_tell_apart_are_searched_in_float64(monkeypatch):
    monkeypatch.setattr(search, "MAX_CANDIDATES", 3)
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(2, 24)), 200, axis=0) + 1e-5 * rng.normal(size=(400, 24))
    assert search.nearest_of_all(x, K) is None
    assert search.nearest_among(x, K, np.arange(50)) is None
    found = nearest_neighbours(x, K)
    np.testing.assert_allclose(found.distances, exact(x, found.index, np.arange(400)), rtol=1e-4)


@pytest.mark.usefixtures("tiled")
def test_more_rows_than_fit_beside_the_columns_are_searched_in_parts(monkeypatch):
    x = people(500, 16, spread=1.0)
    whole = nearest_neighbours(x, K, of=np.arange(0, 500, 2))
    monkeypatch.setattr(search._Candidates, "rows_that_fit", staticmethod(lambda n: 60))
    np.testing.assert_array_equal(nearest_neighbours(x, K, of=np.arange(0, 500, 2)).index, whole.index)


@pytest.mark.usefixtures("tiled")
def test_all_but_one_row_can_be_neighbours():
    x = people(30, 5, spread=1.0)
    assert sorted(nearest_neighbours(x, 29).index[4].tolist()) == [i for i in range(30) if i != 4]
    with pytest.raises(BadCalibration, match="30 distinct samples; 30 neighbours per sample need at least 31"):
        nearest_neighbours(x, 30)


def test_few_rows_are_searched_in_float64():
    x = people(300, 32, spread=1e-6, dtype=np.float64)
    found = nearest_neighbours(x, K)
    np.testing.assert_allclose(found.distances, exact(x, found.index, np.arange(300)), atol=1e-6)


def test_of_many_rows_a_sample_is_searched(monkeypatch):
    assert len(rows_to_search(20_000, seed=0)) == 20_000
    sampled = rows_to_search(20_001, seed=0)
    assert len(np.unique(sampled)) == module.N_SEARCHED
    assert (np.diff(sampled) > 0).all()
    assert not np.array_equal(sampled, rows_to_search(20_001, seed=1))


@pytest.mark.slow
def test_a_search_of_all_takes_no_more_than_its_products_and_half_again():
    """Ratio of CPU seconds to those of the float32 products of every pair of rows once, at one thread."""
    import time

    from threadpoolctl import threadpool_limits

    n, dim = 12_000, 1024
    x = people(n, dim, spread=1.5)
    with threadpool_limits(1):
        ratios = []
        for _ in range(3):
            start = time.process_time()
            for i in range(0, n, 512):
                x[i : i + 512] @ x[i:].T
            products = time.process_time() - start
            start = time.process_time()
            nearest_neighbours(x, K)
            ratios.append((time.process_time() - start) / products)
    print(f"CPU seconds of the search over those of its products: {sorted(ratios)}")
    assert sorted(ratios)[1] < 1.75
