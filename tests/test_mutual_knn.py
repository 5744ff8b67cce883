"""Share of nearest people that two encoders agree on."""

from __future__ import annotations

import numpy as np
import pytest

from encsel.errors import BadCalibration
from encsel.metrics.mutual_neighbours import K, mutual_knn, nearest_people
from encsel.metrics.registry import metrics


def naive(x: np.ndarray, y: np.ndarray) -> float:
    shares = []
    for i in range(len(x)):
        near = []
        for side in (x, y):
            distances = np.linalg.norm(side - side[i], axis=1)
            near.append(set([j for j in np.argsort(distances).tolist() if j != i][:10]))
        shares.append(len(near[0] & near[1]) / 10)
    return float(np.mean(shares))


def test_an_encoder_agrees_with_itself_on_everybody():
    x = np.random.default_rng(0).normal(size=(40, 6))
    assert mutual_knn(nearest_people(x), nearest_people(x)) == 1


def test_mutual_knn_is_the_share_of_neighbours_in_both_sets():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 6))
    y = x[:, :4] + rng.normal(size=(50, 4))
    assert metrics()["mutual_knn"].compute(x, y) == pytest.approx(naive(x, y), rel=1e-12)


def test_two_lists_with_half_in_common_share_one_half_in_whatever_order():
    face = np.tile(np.arange(10), (3, 1))
    voice = np.tile(np.arange(5, 15)[::-1], (3, 1))
    assert mutual_knn(face, voice) == 0.5
    assert mutual_knn(face, voice + 100) == 0


def test_unrelated_encoders_share_ten_of_all_others_by_chance():
    rng = np.random.default_rng(2)
    n = 101
    values = [
        mutual_knn(nearest_people(rng.normal(size=(n, 5))), nearest_people(rng.normal(size=(n, 8)))) for _ in range(40)
    ]
    # The mean of 40 has a standard error of about 0.0015.
    assert np.mean(values) == pytest.approx(10 / (n - 1), abs=0.006)


def test_mutual_knn_ignores_rotation_shift_and_scale():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 40, 6))
    moved = 5 * x @ np.linalg.qr(rng.normal(size=(6, 6)))[0] - 2
    assert mutual_knn(nearest_people(moved), nearest_people(y)) == mutual_knn(nearest_people(x), nearest_people(y))


def test_nobody_is_his_own_neighbour_even_where_people_coincide():
    x = np.repeat(np.random.default_rng(4).normal(size=(8, 3)), 4, axis=0)
    near = nearest_people(x)
    assert near.shape == (32, K)
    assert not (near == np.arange(32)[:, None]).any()


def test_eleven_people_are_too_few():
    with pytest.raises(BadCalibration, match="11 people; 10 mutual neighbours need at least 12"):
        nearest_people(np.random.default_rng(5).normal(size=(11, 4)))


def test_people_who_are_all_alike_are_an_error():
    with pytest.raises(BadCalibration, match="All people have the same embedding"):
        nearest_people(np.full((30, 4), 0.3))
