from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.stats import norm

from encsel.errors import BadCalibration
from encsel.matching.eer import auc_placements, eer, eer_of_sorted, nearest_eer


def test_separated_scores_have_eer_zero():
    assert eer(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 0


def test_inverted_scores_have_eer_one():
    assert eer(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1


def test_constant_scores_have_eer_one_half():
    assert eer(np.zeros(7), np.zeros(11)) == 0.5


def test_two_unit_gaussians_two_apart_have_eer_0_1587():
    quantiles = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    assert eer(quantiles + 2, quantiles) == pytest.approx(norm.cdf(-1), abs=1e-4)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_two_tied_levels_have_eer_p_over_one_plus_p(share):
    # Every genuine score is 1; a share p of impostors is 1, the rest 0: the ROC's last line runs from (p, 0) to (0, 1).
    impostor = (np.arange(1000) < 1000 * share).astype(float)
    assert eer(np.ones(10), impostor) == pytest.approx(share / (1 + share), rel=1e-12)


def test_eer_ignores_any_rising_map_of_scores():
    rng = np.random.default_rng(0)
    own, other = rng.normal(1, 1, 200), rng.normal(0, 1, 3000)
    assert eer(np.exp(own), np.exp(other)) == eer(own, other)


def test_swapping_sides_and_signs_changes_nothing_without_ties():
    rng = np.random.default_rng(1)
    own, other = rng.normal(1, 1, 300), rng.normal(0, 1, 200)
    assert eer(-other, -own) == pytest.approx(eer(own, other), abs=1e-12)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_nearest_point_of_two_tied_levels_is_half_of_p(share):
    # The ROC has no point between (p, 0) and (0, 1): the released code's rule takes the mean of p and 0.
    impostor = (np.arange(1000) < 1000 * share).astype(float)
    assert nearest_eer(np.ones(10), impostor) == pytest.approx(share / 2, rel=1e-12)


def test_nearest_point_leaves_out_points_on_a_straight_stretch():
    # By false accepts, the ROC falls to a miss rate of 1/2, stays there up to 3/4, and falls to 0: corners alone count.
    own, other = np.array([4.0, 0.5]), np.array([3.0, 2.0, 1.0, 0.0])
    assert eer(own, other) == 0.5
    assert nearest_eer(own, other) == pytest.approx((0.5 + 0.75) / 2)


def test_nearest_point_of_many_scores_is_the_eer():
    rng = np.random.default_rng(2)
    own, other = rng.normal(1, 1, 2000), rng.normal(0, 1, 20_000)
    assert nearest_eer(own, other) == pytest.approx(eer(own, other), abs=1e-3)


def test_no_scores_on_one_side_is_an_error():
    with pytest.raises(BadCalibration, match="0 genuine and 3 impostor"):
        eer(np.empty(0), np.ones(3))


def test_placements_average_to_the_auc_with_ties_half():
    placements = auc_placements(np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0]))
    assert placements == pytest.approx([1 / 6, 2 / 3, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_eer_of_many_scores_is_that_of_all_of_them_sorted(monkeypatch, dtype):
    rng = np.random.default_rng(3)
    monkeypatch.setattr(sys.modules[eer.__module__], "MANY", 1)
    for shift in (0, 0.5, 1, 2, 3, 5, 9, -2):
        for digits in (1, 6):
            genuine = np.round(rng.normal(size=300) + shift, digits).astype(dtype)
            impostor = np.round(rng.normal(size=2000), digits).astype(dtype)
            assert eer(genuine, impostor) == eer_of_sorted(np.sort(genuine), np.sort(impostor))
