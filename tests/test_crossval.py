from __future__ import annotations

import numpy as np
import pytest
from toy import population

from encsel.errors import BadCalibration
from encsel.matching.crossval import CrossValidated, held_out_evidence, reduced, sides
from encsel.matching.folds import Folds, fitted, folds_of, repeats_for
from encsel.simulation.populations import unit_mean


def validated(x: np.ndarray, y: np.ndarray, *, seed: int = 0, n_repeats: int = 2) -> CrossValidated:
    folds = folds_of(len(x), n_repeats=n_repeats, seed=seed)
    return held_out_evidence(sides(x, folds), sides(y, folds), folds)


def centroids(n: int, *, shared: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, y = population(n, shared=shared, seed=seed)
    return unit_mean(x), unit_mean(y)


def test_every_person_is_held_out_once_a_repeat_and_never_trains_then():
    for repeat in folds_of(23, n_repeats=3, seed=1):
        assert np.sort(np.concatenate([test for _, test in repeat])).tolist() == list(range(23))
        for train, test in repeat:
            assert not set(train) & set(test)
            assert len(train) + len(test) == 23


def test_shared_structure_scores_above_chance_and_none_scores_at_it():
    good = validated(*centroids(100, shared=2.0))
    for scored in good.scored.values():
        assert scored.auc > 0.8
        assert scored.eer < 0.3
    assert good.correlations[0] > 0.5
    x, y = centroids(100, shared=2.0)
    none = validated(x, y[np.random.default_rng(0).permutation(100)])
    for scored in none.scored.values():
        assert scored.auc == pytest.approx(0.5, abs=4 * scored.auc_se)


def test_the_costly_scorer_is_measured_in_half_of_the_repeats():
    x, y = centroids(30)
    many, half = validated(x, y, n_repeats=6), validated(x, y, n_repeats=3)
    assert many.n_repeats == {"reference": 6, "likelihood": 3}
    assert half.n_repeats == {"reference": 3, "likelihood": 2}
    assert validated(x, y, n_repeats=1).n_repeats == {"reference": 1, "likelihood": 1}
    three = held_out_likelihood(x, y, folds_of(30, n_repeats=6, seed=0)[:3])
    assert many.scored["likelihood"].auc == pytest.approx(three, abs=1e-12)


def held_out_likelihood(x: np.ndarray, y: np.ndarray, folds: Folds) -> float:
    aucs = []
    for _, pair in fitted(sides(x, folds), sides(y, folds), folds):
        scores = pair.scores("likelihood")
        genuine, impostor = np.diag(scores), scores[~np.eye(len(scores), dtype=bool)]
        above = (genuine[:, None] > impostor).mean() + (genuine[:, None] == impostor).mean() / 2
        aucs.append(float(above))
    return float(np.mean(aucs))


def test_result_ignores_rotation_and_scale_and_the_scale_of_the_other():
    x, y = centroids(40)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(24, 24)))[0]
    one, other = validated(x, y), validated(3 * x @ turn, 1e-6 * y)
    assert one.scored["reference"].auc == pytest.approx(other.scored["reference"].auc, abs=1e-9)
    assert one.correlations == pytest.approx(other.correlations, abs=1e-6)


def test_reduction_keeps_distances_and_drops_empty_dimensions():
    x = np.random.default_rng(0).normal(size=(12, 40)) + 5
    small = reduced(x)
    assert small.shape == (12, 11)
    gram = (x - x.mean(0)) @ (x - x.mean(0)).T
    assert small @ small.T == pytest.approx(gram, abs=1e-9)


@pytest.mark.parametrize("dims", [(3, 2), (400, 300)])
def test_fewer_and_more_dimensions_than_people_are_both_defined(dims):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, dims[0])), rng.normal(size=(30, dims[1]))
    found = validated(x, y)
    assert np.isfinite(found.correlations).all()
    assert all(0 <= s.auc <= 1 and 0 <= s.eer <= 1 for s in found.scored.values())


def test_duplicated_people_and_wild_scales_give_finite_answers():
    x, y = centroids(30)
    x, y = np.repeat(x[:15], 2, axis=0), np.repeat(y[:15], 2, axis=0)
    found = validated(1e12 * x, 1e-12 * y)
    assert np.isfinite(found.correlations).all()
    assert np.isfinite([s.auc for s in found.scored.values()]).all()


def test_constant_embeddings_are_an_error():
    x, y = centroids(30)
    with pytest.raises(BadCalibration, match="same embedding"):
        validated(np.ones_like(x), y)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_too_few_people_are_an_error_that_says_so(n):
    with pytest.raises(BadCalibration, match=f"{n} people; cross-validation"):
        folds_of(n, n_repeats=1, seed=0)


def test_repeats_get_fewer_as_people_get_more():
    assert [repeats_for(n) for n in (30, 200, 1000)] == [6, 4, 2]
