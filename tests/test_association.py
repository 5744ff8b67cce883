"""Rank association of one number per pair with the EER."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr
from scipy.stats import t as student_t

from encsel.regression import association
from encsel.regression.association import associate, bootstrap_interval, correlate, crossed_p, spearman


def grid(n_face: int, n_voice: int, data_set: str = "a") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    face, voice = zip(
        *itertools.product([f"f{i}" for i in range(n_face)], [f"v{i}" for i in range(n_voice)]), strict=True
    )
    return np.array(face), np.array(voice), np.full(n_face * n_voice, data_set)


def by_relabelling(x: np.ndarray, y: np.ndarray, face: np.ndarray, voice: np.ndarray, data_set: np.ndarray) -> float:
    """The crossed p written out: rename the encoders of y in every way, look every pair up again."""
    measured = dict(zip(zip(data_set, face, voice, strict=True), y, strict=True))
    orders = []
    for name in np.unique(data_set):
        faces, voices = (np.unique(labels[data_set == name]).tolist() for labels in (face, voice))
        orders.append(
            [
                {(name, f, v): (name, p[faces.index(f)], q[voices.index(v)]) for f in faces for v in voices}
                for p in itertools.permutations(faces)
                for q in itertools.permutations(voices)
            ]
        )
    found = []
    for chosen in itertools.product(*orders):
        renamed = {old: new for one in chosen for old, new in one.items()}
        found.append(spearmanr(x, [measured[renamed[key]] for key in zip(data_set, face, voice, strict=True)])[0])
    return float(np.mean(np.abs(found) >= abs(spearmanr(x, y)[0]) - 1e-9))


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_correlation_and_its_p_equal_the_formula_with_ties(method: str) -> None:
    random = np.random.default_rng(0)
    x, y = random.integers(5, size=20).astype(float), random.integers(5, size=20).astype(float)
    found = correlate(method, x, y)
    a, b = (x, y) if method == "pearson" else (rankdata(x), rankdata(y))
    r = np.corrcoef(a, b)[0, 1]
    assert found.value == pytest.approx(r, abs=1e-12)
    assert found.p == pytest.approx(2 * student_t.sf(abs(r) * np.sqrt(18 / (1 - r * r)), 18), abs=1e-12)


def test_spearman_depends_on_order_only() -> None:
    x, y = np.random.default_rng(1).random((2, 15))
    assert spearman(np.log(x), y**3) == spearman(x, y)


def test_correlation_of_a_perfect_order_has_p_zero_and_of_two_pairs_none() -> None:
    x = np.arange(12.0)
    assert correlate("spearman", x, -x).p == pytest.approx(0, abs=1e-12)
    assert correlate("spearman", x[:2], x[:2]).p is None


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_correlation_of_a_constant_or_empty_column_is_missing(method: str) -> None:
    for x in (np.ones(5), np.array([])):
        found = correlate(method, x, np.arange(float(len(x))))
        assert (found.value, found.p) == (None, None)


@pytest.mark.parametrize("seed", range(4))
def test_crossed_p_equals_relabelling_by_hand(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = grid(3, 2, "a"), grid(2, 3, "b")
    face, voice, data_set = (np.concatenate(both) for both in zip(first, second, strict=True))
    x, y = random.random((2, 12)).round(1)
    shuffled = random.permutation(12)
    found = crossed_p(*(part[shuffled] for part in (x, y, face, voice, data_set)), seed=0)
    assert found.p == pytest.approx(by_relabelling(x, y, face, voice, data_set), abs=1e-12)
    assert (found.how, found.n_orders) == ("exact", 12 * 12)


def test_crossed_p_of_one_order_among_all_is_its_floor() -> None:
    # No order but the given one repeats these ranks, and none reverses them.
    face, voice, data_set = grid(3, 3)
    x = np.array([1.0, 2, 3, 4, 6, 5, 7, 9, 8])
    assert crossed_p(x, -x, face, voice, data_set, seed=0).p == pytest.approx(1 / 36)


def test_crossed_p_is_two_sided() -> None:
    face, voice, data_set = grid(4, 3)
    x, y = np.random.default_rng(2).random((2, 12))
    assert crossed_p(x, y, face, voice, data_set, seed=0) == crossed_p(-x, y, face, voice, data_set, seed=0)


def test_crossed_p_by_monte_carlo_is_near_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    face, voice, data_set = grid(4, 3)
    x, y = np.random.default_rng(3).random((2, 12))
    exact = crossed_p(x, y, face, voice, data_set, seed=0)
    monkeypatch.setattr(association, "MAX_EXACT", 1)
    drawn = crossed_p(x, y, face, voice, data_set, seed=0)
    assert (drawn.how, drawn.n_orders) == ("monte_carlo", 9999)
    # 9999 draws: a standard error of at most 0.005.
    assert drawn.p == pytest.approx(exact.p, abs=0.02)
    assert drawn == crossed_p(x, y, face, voice, data_set, seed=0)
    assert drawn != crossed_p(x, y, face, voice, data_set, seed=1)


def test_crossed_p_by_monte_carlo_is_never_zero() -> None:
    face, voice, data_set = grid(9, 9)
    x = np.arange(81.0)
    found = crossed_p(x, x, face, voice, data_set, seed=0)
    assert found.how == "monte_carlo"
    assert found.p == pytest.approx(1 / 10_000)


def test_crossed_p_needs_every_pair_and_says_so() -> None:
    face, voice, data_set = (labels[:-1] for labels in grid(4, 3))
    x, y = np.random.default_rng(4).random((2, 11))
    found = crossed_p(x, y, face, voice, data_set, seed=0)
    assert (found.p, found.how) == (None, "none")
    assert found.reason is not None
    assert "11 of the 12 pairs" in found.reason


def test_bootstrap_interval_holds_the_estimate_and_repeats_with_its_seed() -> None:
    random = np.random.default_rng(5)
    x = random.random(30)
    y = x + 0.3 * random.random(30)
    low, high = bootstrap_interval(x, y, seed=0)
    assert -1 <= low < spearman(x, y) < high <= 1
    assert bootstrap_interval(x, y, seed=0) == (low, high)
    assert bootstrap_interval(x, y, seed=1) != (low, high)


def test_association_of_a_constant_column_is_missing_with_a_reason() -> None:
    face, voice, data_set = grid(2, 2)
    found = associate(np.ones(4), np.arange(4.0), face, voice, data_set, seed=0)
    assert (found.spearman, found.p, found.interval, found.crossed.p) == (None, None, None, None)
    assert found.reason is not None
    assert "is constant" in found.reason


def test_association_of_a_column_that_varies_once_has_no_interval() -> None:
    assert bootstrap_interval(np.array([0.0, 1.0]), np.array([0.0, 1.0]), seed=0) is not None
    face, voice, data_set = grid(1, 3)
    found = associate(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]), face, voice, data_set, seed=0)
    assert found.spearman == pytest.approx(0.5)
