"""The likelihood-ratio scorer, and the cost of its ratios."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from encsel.errors import BadCalibration
from encsel.matching import Scorer, cross_validate
from encsel.matching.axes import project
from encsel.matching.cllr import cllr, min_cllr
from encsel.matching.likelihood import LARGEST_CORRELATION, LikelihoodRatio, likelihood_ratio
from encsel.matching.scorers import PairInFold


def paired(n: int, correlations=(0.8, 0.5), dims=(30, 20), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Faces and voices whose canonical correlations are those given, and otherwise unrelated."""
    rng = np.random.default_rng(seed)
    r = np.asarray(correlations)
    trait = rng.normal(size=(n, len(r)))
    sides = []
    for dim in dims:
        seen = np.sqrt(r) * trait + np.sqrt(1 - r) * rng.normal(size=trait.shape)
        sides.append(np.hstack([seen, rng.normal(size=(n, dim - len(r)))]))
    return sides[0], sides[1]


def test_ratio_is_that_of_the_gaussian_densities():
    r = np.array([0.7, 0.2])
    a, b = np.random.default_rng(0).normal(size=(2, 3, 2))
    found = LikelihoodRatio(np.eye(2), np.eye(2), r).score(a, b)
    for i, j in np.ndindex(3, 3):
        together = sum(
            multivariate_normal([0, 0], [[1, c], [c, 1]]).logpdf([a[i, k], b[j, k]]) for k, c in enumerate(r)
        )
        apart = multivariate_normal(np.zeros(4)).logpdf(np.concatenate([a[i], b[j]]))
        assert found[i, j] == pytest.approx(together - apart, abs=1e-12)


def test_held_out_correlations_are_those_of_the_population_and_not_those_of_the_training_people():
    x, y = paired(2000)
    sides = [project(side, np.arange(2000), np.arange(0), n_axes=200) for side in (x, y)]
    found = likelihood_ratio(*(side.whitened for side in sides)).correlations
    assert found[:2] == pytest.approx([0.8, 0.5], abs=0.04)
    assert (found[2:] < 0.1).all()
    few = [project(side, np.arange(60), np.arange(0), n_axes=200) for side in (x, y)]
    found = likelihood_ratio(*(side.whitened for side in few)).correlations
    assert found[4:].max() < 0.5
    assert (np.diff(found) <= 0).all()


def test_scores_are_calibrated_and_nearly_as_good_as_those_of_the_true_ratio():
    x, y = paired(1200)
    true = LikelihoodRatio(np.eye(30)[:, :2], np.eye(20)[:, :2], np.array([0.8, 0.5])).score(x[1000:], y[1000:])
    found = Scorer("likelihood").fit(x[:1000], y[:1000]).score(x[1000:], y[1000:])
    own = np.eye(200, dtype=bool)
    costs = {name: cllr(s[own], s[~own]) for name, s in (("true", true), ("found", found))}
    assert costs["found"] == pytest.approx(costs["true"], abs=0.05)
    assert costs["found"] - min_cllr(found[own], found[~own]) < 0.1


def test_a_person_in_both_is_no_surprise_where_nothing_is_shared():
    x, y = paired(200, correlations=(0.0,))
    measured = cross_validate(x, y, scorer="likelihood")
    assert measured.cllr == pytest.approx(1, abs=0.05)
    assert measured.eer > 0.42


def test_the_very_same_vectors_have_bounded_ratios():
    x, _ = paired(100)
    sides = project(x, np.arange(100), np.arange(0), n_axes=200), project(x, np.arange(100), np.arange(0), n_axes=200)
    assert likelihood_ratio(*(side.whitened for side in sides)).correlations.max() == LARGEST_CORRELATION


def test_an_encoder_is_whitened_once_for_all_its_pairs():
    x, y = paired(60)
    side = project(x, np.arange(60), np.arange(0))
    before = side.whitened
    assert sum(map(len, before.held_out)) == 60
    for other in (y, y * 2):
        PairInFold(side, project(other, np.arange(60), np.arange(0))).scores("likelihood")
    assert side.whitened is before


def test_variates_have_unit_variance_over_everybody_and_over_the_people_left_by_each_fold():
    x, _ = paired(60)
    whitened = project(x, np.arange(60), np.arange(0)).whitened
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 30)))[0]
    for left, of in zip((np.zeros(0, int), *whitened.held_out), whitened.unit(turned[None]), strict=True):
        rest = np.delete(whitened.x, left, axis=0)
        assert (rest @ of).std(axis=0, ddof=1) == pytest.approx(1, abs=1e-9)


# Cost of log likelihood ratios


def test_costs_are_those_of_another_implementation():
    rng = np.random.default_rng(0)
    # Rounded, so that many are equal.
    genuine, impostor = np.round(rng.normal(1.2, 1.5, 40), 1), np.round(rng.normal(-1, 1.5, 300), 1)
    # By `cllr` and `cllr_min` of lir 1.3.1, the Netherlands Forensic Institute's library.
    assert cllr(genuine, impostor) == pytest.approx(0.6568721289949921, abs=1e-9)
    assert min_cllr(genuine, impostor) == pytest.approx(0.5852556640184443, abs=1e-9)


def test_least_cost_ignores_every_increasing_function_and_is_not_above_the_cost():
    rng = np.random.default_rng(1)
    genuine, impostor = rng.normal(1, 1, 50), rng.normal(0, 1, 500)
    assert min_cllr(np.exp(genuine), np.exp(impostor)) == pytest.approx(min_cllr(genuine, impostor), abs=1e-12)
    assert min_cllr(genuine, impostor) < cllr(genuine, impostor)


@pytest.mark.parametrize("cost", [cllr, min_cllr])
def test_a_cost_needs_scores_of_both_kinds(cost):
    with pytest.raises(BadCalibration, match="0 genuine and 3 impostor scores"):
        cost(np.zeros(0), np.zeros(3))


@pytest.mark.parametrize("cost", [cllr, min_cllr])
def test_a_cost_of_scores_that_are_no_numbers_is_refused(cost):
    with pytest.raises(BadCalibration, match="NaN"):
        cost(np.array([1.0, np.nan]), np.zeros(3))
