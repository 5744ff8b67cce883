from __future__ import annotations

import numpy as np
import pytest
from toy import population

from encsel.errors import BadCalibration
from encsel.matching.crossval import held_out_evidence, sides
from encsel.matching.sensitivity import distance_error, distance_of_auc, distance_of_eer, eer_of_distance
from encsel.prediction.evidence import (
    COSTLY,
    FEATURES,
    FROM_GRAMS,
    cross_validated_features,
    encoder_evidence,
    evidence_folds,
    pair_evidence,
)
from encsel.prediction.shuffled import folds_of_shuffles, shuffled_features, shuffled_from_grams, shuffles
from encsel.simulation.populations import unit_mean


def centroids(n: int, *, shared: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, y = population(n, shared=shared, seed=seed)
    return unit_mean(x), unit_mean(y)


def shuffled(face, voice, folds, orders):
    """(orders, FEATURES)."""
    return shuffled_features([face], voice, folds_of_shuffles(folds), orders)[:, 0]


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
    found = shuffled(face, voice, folds, order[None])
    moved = encoder_evidence(y[order], folds)
    assert found == pytest.approx(shuffled(face, moved, folds, np.arange(40)[None]), abs=1e-5, nan_ok=True)
    # In the folds of the first repeat, what cross-validation of the shuffled set measures.
    first = folds[:1]
    validated = held_out_evidence(face.folds[:1], sides(y[order], first), first)
    direct = cross_validated_features(validated)
    for name, value in zip(FEATURES, found[0].tolist(), strict=True):
        if name in (*COSTLY, *FROM_GRAMS):
            assert np.isnan(value)
        else:
            assert value == pytest.approx(direct[name], abs=1e-6)


def test_evidence_of_shuffled_people_is_that_of_chance():
    face, voice, folds = of(*centroids(60, shared=2.0))
    orders = np.vstack([np.arange(60), shuffles(60, 40, seed=0)])
    reference = shuffled(face, voice, folds, orders)[:, list(FEATURES).index("d_reference")]
    assert reference[0] > reference[1:].max()
    assert abs(reference[1:].mean()) < 0.2
    cka = shuffled_from_grams([face], [voice], orders[1:], "root_cka")[:, 0, 0]
    assert cka[0] > cka[1:].max()


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
