"""Gromov-Wasserstein distance of people's distances, its bound, and the draws of the released code."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from encsel.errors import BadCalibration
from encsel.metrics import transport as module
from encsel.metrics.registry import metrics
from encsel.metrics.transport import (
    N_PEOPLE,
    drawn_people,
    gromov_wasserstein,
    gromov_wasserstein_reference,
    people_distances,
    reference_draws,
    sorted_distance_bound,
)

RIGHT_ANGLES = np.eye(4)
CROSS = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])


def space(n: int = 40, dim: int = 6, seed: int = 0) -> np.ndarray:
    return people_distances(np.random.default_rng(seed).normal(size=(n, dim)))


def test_people_distances_are_cosine_distances_over_the_largest():
    half = [[0, 1, 0.5, 0.5], [1, 0, 0.5, 0.5], [0.5, 0.5, 0, 1], [0.5, 0.5, 1, 0]]
    np.testing.assert_allclose(people_distances(3 * CROSS), half, atol=1e-15)
    np.testing.assert_allclose(people_distances(RIGHT_ANGLES), 1 - np.eye(4), atol=1e-15)


def test_distance_of_right_angles_to_a_cross_is_one_over_root_eight():
    # Every matching of the four sees 8 of 16 entries differ by 1/2, and so do the sorted entries: bound and value meet.
    face, voice = people_distances(RIGHT_ANGLES), people_distances(CROSS)
    found = gromov_wasserstein(face, voice)
    assert found.value == pytest.approx(np.sqrt(1 / 8), abs=1e-9)
    assert found.lower_bound == pytest.approx(np.sqrt(1 / 8), abs=1e-9)
    assert not found.squared
    assert found.n_people == 4


@pytest.mark.parametrize("seed", range(3))
def test_identical_spaces_are_zero_apart(seed):
    found = gromov_wasserstein(space(seed=seed), space(seed=seed))
    # The root of rounding in a value of squares.
    assert found.value < 1e-7
    assert found.lower_bound <= found.value
    assert found.converged


@pytest.mark.parametrize("seed", range(3))
def test_a_copy_with_people_in_another_order_is_near_zero_apart(seed):
    face = space(seed=seed)
    order = np.random.default_rng(seed + 50).permutation(len(face))
    voice = face[np.ix_(order, order)]
    assert gromov_wasserstein(face, voice).value < 0.01
    assert sorted_distance_bound(face, voice) == 0


@pytest.mark.parametrize("seed", range(5))
def test_bound_is_never_above_the_value(seed):
    face, voice = space(25, 3 + 4 * seed, seed), space(25, 8, seed + 10)
    found = gromov_wasserstein(face, voice)
    # The bound as it comes, before it is held to the value that the optimiser found.
    assert sorted_distance_bound(face, voice) <= found.value**2 + 1e-12
    assert 0 < found.lower_bound <= found.value <= 1


def test_bound_is_the_mean_square_between_sorted_distances():
    face, voice = space(seed=1), space(seed=2)
    pairs = zip(sorted(face.ravel().tolist()), sorted(voice.ravel().tolist()), strict=True)
    assert sorted_distance_bound(face, voice) == pytest.approx(np.mean([(a - b) ** 2 for a, b in pairs]), rel=1e-12)


def test_value_is_not_above_what_matching_people_to_themselves_costs():
    face, voice = space(30, 6, 3), space(30, 6, 3) * 0.8 + 0.2 * space(30, 6, 4)
    assert gromov_wasserstein(face, voice).value ** 2 <= np.mean((face - voice) ** 2) + 1e-12


def test_reference_form_is_the_squared_value(monkeypatch):
    face, voice = space(30, 6, 5), space(30, 9, 6)
    # With one start the two forms take the same path.
    monkeypatch.setattr(module, "STARTS", ("independent",))
    found, reference = gromov_wasserstein(face, voice), gromov_wasserstein_reference(face, voice)
    assert reference.value == pytest.approx(found.value**2, rel=1e-12)
    assert reference.lower_bound == pytest.approx(found.lower_bound**2, rel=1e-12)
    assert reference.squared
    assert (found.start, reference.start) == ("independent", "independent")


def test_two_starts_are_never_worse_than_one(monkeypatch):
    pairs = [(space(24, 5, seed), space(24, 9, seed + 30)) for seed in range(4)]
    both = [gromov_wasserstein(*pair).value for pair in pairs]
    monkeypatch.setattr(module, "STARTS", ("independent",))
    one = [gromov_wasserstein(*pair).value for pair in pairs]
    assert all(a <= b for a, b in zip(both, one, strict=True))


def test_distance_of_encoders_that_agree_does_not_jump_with_the_number_of_people():
    rng = np.random.default_rng(7)
    z, a, b = rng.normal(size=(330, 8)), rng.normal(size=(8, 64)), rng.normal(size=(8, 48))
    x, y = z @ a + 0.5 * rng.normal(size=(330, 64)), z @ b + 0.5 * rng.normal(size=(330, 48))
    found = [gromov_wasserstein(people_distances(x[:n]), people_distances(y[:n])) for n in (150, 250, 251, 330)]
    assert {one.start for one in found} == {"same people"}
    assert found[2].value == pytest.approx(found[1].value, rel=0.02)
    # Distances are divided by the largest, which grows with people.
    assert found[3].value == pytest.approx(found[0].value, rel=0.2)


def test_distance_ignores_who_is_face_and_who_is_voice():
    face, voice = space(30, 6, 7), space(30, 9, 8)
    there, back = gromov_wasserstein(face, voice), gromov_wasserstein(voice, face)
    # Both end at local minima, which need not be one.
    assert there.value == pytest.approx(back.value, rel=0.05)
    assert there.lower_bound == pytest.approx(back.lower_bound, rel=1e-9)


def test_an_optimiser_that_warns_has_not_converged(monkeypatch):
    import ot

    solve = ot.gromov.gromov_wasserstein2

    def complaining(*arguments, **options):
        warnings.warn("numItermax reached", stacklevel=1)
        return solve(*arguments, **options)

    monkeypatch.setattr(ot.gromov, "gromov_wasserstein2", complaining)
    assert not gromov_wasserstein(space(10), space(10, seed=1)).converged


def test_reference_draws_are_two_choices_of_one_generator():
    random = np.random.RandomState(42)
    for drawn in reference_draws(700):
        np.testing.assert_array_equal(drawn, random.choice(700, 500, replace=False))
    faces, voices = reference_draws(60)
    assert sorted(faces) == sorted(voices) == list(range(60))
    assert faces.tolist() != voices.tolist()


def test_drawn_people_are_ascending_and_go_with_the_seed():
    drawn = drawn_people(700, seed=3)
    assert len(set(drawn.tolist())) == N_PEOPLE
    assert drawn.tolist() == sorted(drawn.tolist())
    np.testing.assert_array_equal(drawn, drawn_people(700, seed=3))
    assert drawn.tolist() != drawn_people(700, seed=4).tolist()


def test_everybody_is_drawn_where_people_are_few():
    assert drawn_people(N_PEOPLE, seed=3).tolist() == list(range(N_PEOPLE))


def test_metrics_are_the_root_value_and_the_root_bound():
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(20, 5)), rng.normal(size=(20, 4))
    face, voice = people_distances(x), people_distances(y)
    assert metrics()["gromov_wasserstein"].compute(x, y) == gromov_wasserstein(face, voice).value
    bound = metrics()["gromov_wasserstein_bound"].compute(x, y)
    assert bound == pytest.approx(np.sqrt(sorted_distance_bound(face, voice)), rel=1e-12)


def test_a_person_without_direction_gives_no_nan():
    x = np.random.default_rng(10).normal(size=(12, 3))
    x[4] = 0
    assert np.isfinite(people_distances(x)).all()


def test_three_people_are_too_few():
    with pytest.raises(BadCalibration, match="3 people; Gromov-Wasserstein needs at least 4"):
        people_distances(np.eye(3))


def test_people_who_are_all_alike_are_an_error():
    for x in (np.full((6, 3), 0.3), np.outer(np.arange(1, 7), [1.0, 2.0])):
        with pytest.raises(BadCalibration, match="All people have the same embedding"):
            people_distances(x)


def test_people_who_are_all_zero_are_an_error():
    with pytest.raises(BadCalibration, match="All people have the same embedding"):
        people_distances(np.zeros((6, 3)))
