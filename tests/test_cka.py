from __future__ import annotations

import itertools

import numpy as np
import pytest
from toy import population

from encsel.errors import BadCalibration
from encsel.metrics import linear_cka
from encsel.metrics.linear_cka import cka_of_grams, gram, matched_standard_error, null_of_matched


def centroids(x: np.ndarray) -> np.ndarray:
    means = x.astype(np.float64).mean(axis=1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def test_biased_cka_is_the_normalised_inner_product_of_covariances():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5)), rng.normal(size=(20, 3))
    xc, yc = x - x.mean(0), y - y.mean(0)
    closed = np.linalg.norm(xc.T @ yc) ** 2 / (np.linalg.norm(xc.T @ xc) * np.linalg.norm(yc.T @ yc))
    assert cka_of_grams(gram(x), gram(y)).biased == pytest.approx(closed, rel=1e-12)


def test_debiased_cka_is_the_u_statistic_over_distinct_people():
    # HSIC without bias is the mean over ordered 4-tuples of distinct people of
    # K_ij L_ij + K_ij L_qr - 2 K_ij L_iq (Song et al. 2012, theorem 2), here spelled out.
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    x[:, 0] += y[:, 0]
    k, q = x @ x.T, y @ y.T

    def hsic(a, b):
        return np.mean(
            [
                a[i, j] * b[i, j] + a[i, j] * b[s, t] - 2 * a[i, j] * b[i, s]
                for i, j, s, t in itertools.permutations(range(7), 4)
            ]
        )

    expected = hsic(k, q) / np.sqrt(hsic(k, k) * hsic(q, q))
    assert cka_of_grams(gram(x), gram(y)).debiased == pytest.approx(expected, rel=1e-9)


def test_cka_with_itself_is_one_in_every_form():
    x = np.random.default_rng(2).normal(size=(25, 8))
    values = cka_of_grams(gram(x), gram(x))
    assert (values.biased, values.debiased, values.matched) == pytest.approx((1, 1, 1))


def test_unrelated_embeddings_have_debiased_cka_zero_and_biased_cka_far_from_it():
    rng = np.random.default_rng(3)
    values = [cka_of_grams(gram(rng.normal(size=(40, 60))), gram(rng.normal(size=(40, 60)))) for _ in range(200)]
    assert abs(np.mean([v.debiased for v in values])) < 0.005
    assert np.mean([v.biased for v in values]) > 0.5


def test_matched_cka_at_70_people_is_on_average_the_biased_cka_at_1249():
    faces, voices = (centroids(side) for side in population(1249, shared=0.7, rows=4, dims=(96, 64), seed=4))
    target = cka_of_grams(gram(faces), gram(voices)).biased
    rng = np.random.default_rng(5)
    draws = [rng.choice(1249, 70, replace=False) for _ in range(300)]
    values = [cka_of_grams(gram(faces[d]), gram(voices[d])) for d in draws]
    # The mean of 300 draws has a standard error of about 0.001 here.
    assert np.mean([v.matched for v in values]) == pytest.approx(target, abs=0.004)
    assert np.mean([v.biased for v in values]) > target + 0.02


def test_matched_cka_at_its_own_size_is_near_the_biased_value():
    x, y = (centroids(side) for side in population(400, seed=6))
    values = cka_of_grams(gram(x), gram(y), matched_to=400)
    assert values.matched == pytest.approx(values.biased, abs=0.001)


def test_null_recomputes_what_shuffled_gram_matrices_give():
    x, y = (centroids(side) for side in population(40, seed=7))
    rng = np.random.default_rng(11)
    orders = np.array([rng.permutation(40) for _ in range(5)])
    null = null_of_matched([gram(x)], [gram(y)], permutations=orders)
    for i in range(5):
        shuffled = cka_of_grams(gram(x[orders[i]]), gram(y)).matched
        assert null[i, 0, 0] == pytest.approx(shuffled, abs=1e-6)


def test_null_p_is_uniform_when_nothing_is_shared():
    ps = []
    for seed in range(200):
        x, y = (centroids(side) for side in population(30, shared=0.0, rows=2, seed=seed))
        observed = cka_of_grams(gram(x), gram(y)).matched
        rng = np.random.default_rng(seed)
        orders = np.array([rng.permutation(30) for _ in range(99)])
        null = null_of_matched([gram(x)], [gram(y)], permutations=orders)
        ps.append((1 + (null >= observed).sum()) / 100)
    # 200 draws: 10 expected at or below 0.05, 99 % of the time between 3 and 18.
    assert 3 <= np.sum(np.array(ps) <= 0.05) <= 18


def test_gram_matrices_of_different_people_are_refused():
    rng = np.random.default_rng(8)
    with pytest.raises(BadCalibration, match="10 identities on one side and 9"):
        cka_of_grams(gram(rng.normal(size=(10, 3))), gram(rng.normal(size=(9, 3))))


def test_an_encoder_in_which_only_one_person_differs_has_no_variation_above_its_noise():
    x = np.zeros((12, 4))
    x[0] = 1
    with pytest.raises(BadCalibration, match="own variation is not above its noise"):
        cka_of_grams(gram(x), gram(np.random.default_rng(9).normal(size=(12, 4))))


def test_jackknife_error_is_that_of_leaving_each_person_out():
    x, y = (centroids(side) for side in population(20))
    values = [
        cka_of_grams(gram(np.delete(x, i, axis=0)), gram(np.delete(y, i, axis=0)), matched_to=300).matched
        for i in range(20)
    ]
    expected = np.sqrt(19 * np.mean((values - np.mean(values)) ** 2))
    assert matched_standard_error(gram(x), gram(y), matched_to=300) == pytest.approx(expected, rel=1e-8)


def test_jackknife_interval_of_90_percent_holds():
    big = [centroids(side) for side in population(4000, seed=1)]
    truth = cka_of_grams(gram(big[0]), gram(big[1]), matched_to=1249).matched
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        some = rng.choice(4000, 60, replace=False)
        k, q = gram(big[0][some]), gram(big[1][some])
        hits += abs(cka_of_grams(k, q).matched - truth) <= 1.645 * matched_standard_error(k, q)
    # The standard error of a coverage over 200 sets is .02.
    assert 0.84 <= hits / 200 <= 1


def test_jackknife_needs_five_people():
    x, y = (centroids(side) for side in population(4))
    with pytest.raises(BadCalibration, match="at least 5"):
        matched_standard_error(gram(x), gram(y))


@pytest.mark.parametrize(("n", "dims"), [(40, (6, 9)), (40, (60, 9)), (300, (8, 5)), (300, (64, 48))])
def test_from_rows_and_from_gram_matrices_everything_is_equal(n, dims, monkeypatch):
    rng = np.random.default_rng(n)
    trait = rng.normal(size=(n, 3))
    x, y = (trait @ rng.normal(size=(3, d)) + rng.normal(size=(n, d)) for d in dims)
    orders = np.stack([rng.permutation(n) for _ in range(7)])
    found = []
    for by_rows in (True, False):
        monkeypatch.setattr(linear_cka, "_is_faster_by_rows", lambda k, q, by_rows=by_rows: by_rows)
        k, q = gram(x), gram(y)
        found.append(
            [
                *vars(cka_of_grams(k, q)).values(), matched_standard_error(k, q), k.times(q.diagonal)[0],
                *null_of_matched([k], [q], permutations=orders).ravel(),
            ]
        )  # fmt: skip
    assert found[0][:5] == pytest.approx(found[1][:5], rel=1e-9)
    # Shuffled Gram matrices are in float32.
    assert found[0][5:] == pytest.approx(found[1][5:], abs=1e-6)


def test_more_people_than_gram_matrices_are_held_for_are_compared_by_rows(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 90)), rng.normal(size=(200, 80))
    expected = cka_of_grams(gram(x), gram(y))
    monkeypatch.setattr(linear_cka, "MAX_MATRIX", 100)
    k, q = gram(x), gram(y)
    assert vars(cka_of_grams(k, q)) == pytest.approx(vars(expected), rel=1e-9)
    assert "matrix" not in vars(k)


def test_with_fewer_voices_than_faces_the_voices_are_shuffled_to_the_same_effect():
    rng = np.random.default_rng(1)
    ks, qs = ([gram(rng.normal(size=(150, 30))) for _ in range(count)] for count in (3, 2))
    orders = np.stack([rng.permutation(150) for _ in range(5)])
    null = null_of_matched(ks, qs, permutations=orders)
    for i, k in enumerate(ks):
        for j, q in enumerate(qs):
            one = null_of_matched([k], [q], permutations=orders)[:, 0, 0]
            np.testing.assert_allclose(null[:, i, j], one, atol=1e-6)
