from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from encsel.errors import BadCalibration
from encsel.matching.eer import auc_placements, eer, likelihood_ratio_eer


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


def test_no_scores_on_one_side_is_an_error():
    with pytest.raises(BadCalibration, match="0 genuine and 3 impostor"):
        eer(np.empty(0), np.ones(3))


def test_placements_average_to_the_auc_with_ties_half():
    placements = auc_placements(np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0]))
    assert placements == pytest.approx([1 / 6, 2 / 3, 1])


@pytest.mark.parametrize("correlations", [[0.5], [0.1], [0.9, 0.5, 0.3], [0.3] * 5, [0.05] * 12, [0.7, 0.6, 0.5, 0.1]])
def test_likelihood_ratio_eer_is_what_simulated_gaussians_give(correlations):
    rng = np.random.default_rng(0)
    r = np.array(correlations)
    x, z = rng.normal(size=(2, 200_000, len(r)))
    y = r * x + np.sqrt(1 - r**2) * rng.normal(size=x.shape)

    def ratio(a, b):
        return (-0.5 * np.log(1 - r**2) - (r**2 * (a**2 + b**2) - 2 * r * a * b) / (2 * (1 - r**2))).sum(axis=1)

    # The standard error of an EER from so many draws is 0.0011.
    assert likelihood_ratio_eer(r) == pytest.approx(eer(ratio(x, y), ratio(x, z)), abs=0.004)


def test_likelihood_ratio_eer_without_positive_correlation_is_chance():
    assert likelihood_ratio_eer(np.array([0.0, -0.3])) == 0.5
    assert likelihood_ratio_eer(np.zeros(0)) == 0.5


def test_likelihood_ratio_eer_falls_with_correlation():
    values = [likelihood_ratio_eer(np.array([r, 0.2])) for r in np.linspace(0, 1, 21)]
    assert (np.diff(values) < 0).sum() >= 19
    assert (np.diff(values) <= 0).all()
