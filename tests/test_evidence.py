from __future__ import annotations

import numpy as np
import pytest
from toy import population

from encsel.errors import BadCalibration
from encsel.matching.sensitivity import distance_error, distance_of_auc, distance_of_eer, eer_of_distance
from encsel.prediction.evidence import (
    COSTLY,
    FEATURES,
    FROM_GRAMS,
    encoder_evidence,
    evidence_folds,
    pair_evidence,
    shuffled_evidence,
    shuffled_from_grams,
    shuffles,
)
from encsel.simulation.populations import unit_mean


def centroids(n: int, *, shared: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, y = population(n, shared=shared, seed=seed)
    return unit_mean(x), unit_mean(y)


def shuffled(face, voice, folds, orders):
    from_grams = {name: shuffled_from_grams([face], [voice], orders, name)[:, 0, 0] for name in FROM_GRAMS}
    return shuffled_evidence(face, voice, folds, orders, from_grams)


def of(x: np.ndarray, y: np.ndarray, *, seed: int = 0):
    folds = evidence_folds(len(x), seed=seed)
    face, voice = encoder_evidence(x, folds), encoder_evidence(y, folds)
    return face, voice, folds


def test_every_feature_is_finite_and_grows_with_what_is_shared():
    found = []
    for shared in (0.0, 2.0):
        face, voice, folds = of(*centroids(80, shared=shared))
        found.append(pair_evidence(face, voice, folds).values)
    assert list(found[0]) == list(FEATURES)
    assert np.isfinite([list(f.values()) for f in found]).all()
    for name in FEATURES:
        assert found[1][name] > found[0][name] + 0.1, name


def test_unit_gaussians_d_apart_have_the_eer_and_auc_of_that_distance():
    for d in (0.0, 0.7, 2.0):
        assert distance_of_eer(eer_of_distance(d)) == pytest.approx(d)
    # AUC = Phi(d / sqrt 2): two unit Gaussians 1 apart.
    assert distance_of_auc(0.7602499389) == pytest.approx(1.0, abs=1e-6)


def test_an_auc_of_a_few_people_is_no_finer_than_half_of_one_of_them():
    assert distance_error(0.9, None, 50) == distance_error(0.9, 0.0, 50) == distance_error(0.9, 0.01, 50) > 0
    assert distance_error(0.9, 0.02, 50) == pytest.approx(2 * distance_error(0.9, 0.01, 50))


def test_shuffles_keep_groups_and_leave_few_people_their_own_voice():
    groups = np.arange(40) % 2
    found = shuffles(40, 200, seed=0, groups=groups)
    for order in found:
        assert sorted(order.tolist()) == list(range(40))
        assert (groups[order] == groups).all()
    assert len({tuple(o) for o in found.tolist()}) == 200
    # One of the 20 of each group, on average.
    assert (found == np.arange(40)).mean() == pytest.approx(1 / 20, abs=0.01)


def test_a_shuffle_gives_what_measuring_the_shuffled_set_gives():
    x, y = centroids(40, shared=1.5)
    face, voice, folds = of(x, y)
    (order,) = shuffles(40, 1, seed=3)
    found = shuffled(face, voice, folds, order[None]).values[0]
    moved = encoder_evidence(y[order], folds)
    direct = shuffled(face, moved, folds, np.arange(40)[None]).observed
    assert found == pytest.approx(direct, abs=1e-5, nan_ok=True)


def test_costly_features_are_measured_in_the_first_shuffles_alone():
    face, voice, folds = of(*centroids(40))
    orders = shuffles(40, 3, seed=3)
    from_grams = {name: shuffled_from_grams([face], [voice], orders, name)[:, 0, 0] for name in FROM_GRAMS}
    values = shuffled_evidence(face, voice, folds, orders, from_grams, n_complete=2).values
    is_costly = np.array([name in COSTLY for name in FEATURES])
    assert np.isfinite(values[:2]).all()
    assert np.isnan(values[2]).tolist() == is_costly.tolist()


def test_evidence_of_shuffled_people_is_that_of_chance():
    face, voice, folds = of(*centroids(60, shared=2.0))
    found = shuffled(face, voice, folds, shuffles(60, 40, seed=0))
    reference = list(FEATURES).index("d_reference")
    assert found.observed[reference] > found.values[:, reference].max()
    assert abs(found.values[:, reference].mean()) < 0.2


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_evidence_does_not_depend_on_the_scale_of_an_encoder(scale):
    x, y = centroids(40)
    one, other = (pair_evidence(*of(a, y)) for a in (x, scale * x))
    assert list(one.values.values()) == pytest.approx(list(other.values.values()), abs=1e-6)


def test_duplicates_of_people_are_defined():
    x, y = centroids(30)
    found = pair_evidence(*of(np.repeat(x[:15], 2, axis=0), np.repeat(y[:15], 2, axis=0)))
    assert np.isfinite(list(found.values.values())).all()


def test_constant_embeddings_and_too_few_people_are_errors():
    x, y = centroids(30)
    with pytest.raises(BadCalibration, match="same embedding"):
        of(np.ones_like(x), y)
    for n in (1, 2):
        with pytest.raises(BadCalibration, match="cross-validation"):
            of(x[:n], y[:n])
