"""How samples cluster by person, by hand and pair by pair."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cosine

from encsel.errors import BadCalibration
from encsel.metrics.registry import metrics
from encsel.metrics.topology import topology

# Ann's samples lie about (1, 0), two of them 45 degrees off; Bob's on (0, 1), Cid's on (-1, 0).
BY_HAND = np.array([[1, 0], [1, 0], [1, 0], [1, 1], [1, -1]] + [[0, 2]] * 5 + [[-3, 0]] * 5, dtype=float)
NAMES = np.repeat(["ann", "bob", "cid"], 5)


def clustered(n: int = 12, rows: int = 6, dim: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.normal(size=(n, dim)), rows, axis=0) + rng.normal(size=(n * rows, dim))
    return x, np.repeat(np.arange(n), rows)


def test_topology_of_three_people_is_that_by_hand():
    found = topology(BY_HAND, NAMES)
    # Of 15 samples two lie 45 degrees from their centroid; two pairs of people at right angles, one opposite.
    assert found.intra == pytest.approx(2 * (1 - np.sqrt(0.5)) / 15, abs=1e-15)
    assert found.inter == pytest.approx((1 + 1 + 2) / 3)
    assert found.gap == found.inter - found.intra
    assert found.n_people == 3


def test_topology_is_the_mean_over_samples_and_over_pairs_of_people():
    x, people = clustered()
    people[:3] = 1  # People with 3 and with 9 samples.
    kept = [p for p in np.unique(people) if (people == p).sum() >= 5]
    assert len(kept) == 11
    middle = {p: x[people == p].mean(axis=0) for p in kept}
    intra = np.mean([cosine(row, middle[p]) for row, p in zip(x, people, strict=True) if p in middle])
    inter = np.mean([cosine(middle[a], middle[b]) for a, b in itertools.combinations(kept, 2)])
    found = topology(x, people)
    assert found.intra == pytest.approx(intra, rel=1e-12)
    assert found.inter == pytest.approx(inter, rel=1e-12)
    assert found.n_people == 11


def test_people_with_fewer_than_five_samples_do_not_count():
    few = np.concatenate([BY_HAND, [[0.0, -1.0]] * 4])
    assert topology(few, np.concatenate([NAMES, ["dan"] * 4])) == topology(BY_HAND, NAMES)
    five = np.concatenate([BY_HAND, [[0.0, -1.0]] * 5])
    assert topology(five, np.concatenate([NAMES, ["dan"] * 5])).n_people == 4


def test_fewer_samples_are_enough_when_asked():
    people = np.array(["a", "a", "b", "b"])
    found = topology(np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]]), people, min_samples=2)
    assert (found.intra, found.inter) == pytest.approx((0, 1), abs=1e-12)


def test_people_far_apart_have_a_gap_and_shuffled_people_none():
    x, people = clustered(rows=20)
    x = x + 5 * np.eye(7)[people % 7]
    assert topology(x, people).gap > 0.5
    shuffled = np.random.default_rng(1).permutation(people)
    assert topology(x, shuffled).gap < 0.1


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_topology_ignores_rotation_scale_and_names(scale):
    x, people = clustered()
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(7, 7)))[0]
    found = topology(scale * x @ rotation, np.array([f"p{99 - p}" for p in people]))
    expected = topology(x, people)
    assert (found.intra, found.inter) == pytest.approx((expected.intra, expected.inter), rel=1e-9)


def test_a_person_whose_samples_cancel_gives_no_nan():
    x = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1], [0, 0]] + [[1, 1]] * 5)
    found = topology(x, np.repeat([0, 1], 5))
    assert np.isfinite([found.intra, found.inter]).all()


def test_fewer_than_two_people_with_enough_samples_are_an_error():
    people = np.array([0] * 5 + [1] * 4 + [2] * 4)
    with pytest.raises(BadCalibration, match="1 of 3 people have 5 samples or more; cluster topology needs at least 2"):
        topology(np.random.default_rng(3).normal(size=(13, 4)), people)


def test_samples_that_are_all_alike_are_an_error():
    with pytest.raises(BadCalibration, match="All samples have the same embedding"):
        topology(np.full((10, 3), 0.1), np.repeat([0, 1], 5))
    with pytest.raises(BadCalibration, match="All samples have the same embedding"):
        topology(np.zeros((10, 3)), np.repeat([0, 1], 5))


def test_reference_form_averages_rows_of_unit_length():
    # Ann's two directions count alike there; as given, the longer row draws the centroid to itself.
    x = np.array([[3.0, 0], [0, 1]] + [[-1, -1]] * 2)
    people = np.repeat(["ann", "bob"], 2)
    reference = topology(x, people, min_samples=2, reference=True)
    assert reference.intra == pytest.approx((1 - np.sqrt(0.5)) / 2)
    assert reference.inter == pytest.approx(2)
    given = topology(x, people, min_samples=2)
    assert given.intra == pytest.approx((2 - 4 / np.sqrt(10)) / 4)
    assert given.intra != pytest.approx(reference.intra, abs=0.01)


def test_metric_is_the_gap():
    assert metrics()["compactness_gap"].compute(BY_HAND, NAMES) == topology(BY_HAND, NAMES).gap
