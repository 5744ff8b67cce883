"""Matchers on people they were not fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr
from toy import embeddings, population

from encsel.core import Embeddings
from encsel.data.groups import PersonGroups
from encsel.errors import BadCalibration
from encsel.matching.axes import project
from encsel.matching.evaluate import eer_by_axes, measure_centroids, measure_pair, plain_cosine
from encsel.matching.folds import folds_of, protocol_folds
from encsel.matching.learning_curve import curve_projections, curve_sizes, extrapolate, learning_curve
from encsel.matching.probe import centred_within, group_probe
from encsel.matching.projections import Fold, project_encoder
from encsel.matching.recordings import compare_recordings, halves
from encsel.matching.scorers import SCORERS

N = 60


def pair(n: int = N, **options) -> tuple[Embeddings, Embeddings]:
    faces, voices = population(n, **options)
    return embeddings("face", "face", faces), embeddings("voice", "voice", voices)


def projected(one: Embeddings, folds, **options):
    return project_encoder(one, one.centroids, folds, seed=0, **options)


def test_the_reference_protocol_splits_as_the_released_code_does():
    ((train, test),) = protocol_folds(100, "reference", seed=5)[0]
    order = np.random.RandomState(42).permutation(100)
    assert train.tolist() == order[:80].tolist()
    assert test.tolist() == order[80:].tolist()


def test_cross_validation_tests_everybody_once_a_repeat_and_never_a_training_person():
    for repeat in protocol_folds(N, "crossval", seed=0):
        assert sorted(np.concatenate([test for _, test in repeat]).tolist()) == list(range(N))
        assert all(not set(train) & set(test) for train, test in repeat)


def test_too_few_people_to_test_are_an_error_in_either_protocol():
    for protocol in ("crossval", "reference"):
        with pytest.raises(BadCalibration, match="at least 10"):
            protocol_folds(9, protocol, seed=0)


def test_projection_of_centroids_and_samples_is_that_of_the_full_space():
    face, _ = pair(rows=3, dims=(200, 16))
    folds = protocol_folds(N, "crossval", seed=0)
    fold = projected(face, folds)[0][0]
    train, test = folds[0][0]
    x = face.centroids
    centre = x[train].mean(axis=0)
    axes = np.linalg.svd(x[train] - centre, full_matrices=False)[2][: len(fold.side.sd)]
    np.testing.assert_allclose(np.abs(fold.side.test), np.abs((x[test] - centre) @ axes.T), atol=1e-8)
    rows = face.vectors / np.linalg.norm(face.vectors, axis=1, keepdims=True)
    own = np.isin(np.repeat(np.arange(N), 3), test)
    np.testing.assert_allclose(np.abs(fold.rows), np.abs((rows[own] - centre) @ axes.T), atol=1e-5)
    assert sorted(set(fold.owners.tolist())) == sorted(test.tolist())


def test_nothing_fitted_changes_when_test_people_change():
    face, voice = pair()
    folds = protocol_folds(N, "reference", seed=0)
    train, test = folds[0][0]
    changed = face.vectors.copy()
    changed[np.isin(np.repeat(np.arange(N), 4), test)] += 5
    other = Embeddings("face", "face", changed, face.labels, face.samples)
    before, after = (projected(one, folds)[0][0].side for one in (face, other))
    np.testing.assert_allclose(np.abs(before.train), np.abs(after.train), atol=1e-6)
    np.testing.assert_allclose(before.sd, after.sd, rtol=1e-9)
    assert not np.allclose(np.abs(before.test), np.abs(after.test))
    assert len(voice.vectors) == 4 * N
    assert len(train) == 48


def test_single_samples_match_worse_than_centroids():
    face, voice = pair(200, shared=3.0)
    folds = protocol_folds(200, "crossval", seed=0)
    measured = measure_pair(projected(face, folds), projected(voice, folds), folds)
    for scorer in SCORERS:
        assert measured.levels["identity"][scorer].eer < measured.levels["sample"][scorer].eer < 0.5
    assert (measured.n_train, measured.n_test, measured.n_repeats) == (160, 40, len(folds))


def test_means_of_more_samples_match_better_and_more_than_people_have_are_not_measured():
    face, voice = pair(200, shared=3.0)
    folds = protocol_folds(200, "crossval", seed=0)
    eers = measure_pair(projected(face, folds), projected(voice, folds), folds).eer_by_samples
    for scorer in SCORERS:
        assert eers["all"][scorer] <= eers["3"][scorer] < eers["1"][scorer]
        assert eers["10"][scorer] is None  # everybody has 4


def test_unrelated_people_match_at_chance():
    faces, voices = population(100, shared=2.0, seed=1)
    matching = measure_centroids(
        embeddings("f", "face", faces).centroids,
        embeddings("v", "voice", np.roll(voices, 1, axis=0)).centroids,
        seed=0,
    )
    for found in matching.values():
        assert found.interval is not None
        assert 0.4 < found.eer < 0.6


def sexes(n: int) -> PersonGroups:
    return PersonGroups("sex", ("f", "m"), np.arange(n) % 2)


def sex_only(n: int, seed: int = 0) -> tuple[Embeddings, Embeddings]:
    """Faces and voices that share whether a person is female or male, and nothing else."""
    rng = np.random.default_rng(seed)
    sides = []
    for name, modality in (("face", "face"), ("voice", "voice")):
        own = rng.normal(size=(n, 1, 20))
        own[:, :, 0] += 4 * (np.arange(n) % 2)[:, None] - 2
        sides.append(embeddings(name, modality, (own + 0.5 * rng.normal(size=(n, 4, 20))).astype(np.float32)))
    return sides[0], sides[1]


def test_a_pair_that_only_tells_the_sexes_apart_is_at_chance_within_them():
    face, voice = sex_only(120)
    folds = protocol_folds(120, "crossval", seed=0)
    measured = measure_pair(projected(face, folds), projected(voice, folds), folds, [sexes(120)])
    (within,) = measured.within
    assert measured.levels["identity"]["likelihood"].eer < 0.4
    assert within.matching["likelihood"].eer == pytest.approx(0.5, abs=0.05)
    assert set(within.eer_of) == {"f", "m"}


def test_the_floor_of_a_group_is_the_share_of_impostors_in_it():
    face, voice = sex_only(200)
    folds = protocol_folds(200, "crossval", seed=0)
    (within,) = measure_pair(projected(face, folds), projected(voice, folds), folds, [sexes(200)]).within
    share = 0.487  # 20 and 20 of 40 on average, 19 others of one's own among 39
    assert within.floor == pytest.approx(share / (1 + share), abs=0.01)


def test_people_without_a_group_are_left_out_of_it():
    face, voice = sex_only(80)
    folds = protocol_folds(80, "crossval", seed=0)
    index = np.where(np.arange(80) < 60, np.arange(80) % 2, -1)
    groups = PersonGroups("sex", ("f", "m"), index)
    (within,) = measure_pair(projected(face, folds), projected(voice, folds), folds, [groups]).within
    assert within.matching["reference"].n_people == 60


def test_group_means_are_gone_after_centring():
    face, _ = sex_only(80)
    rows, known = centred_within(face.centroids, sexes(80))
    assert known.tolist() == list(range(80))
    for value in (0, 1):
        np.testing.assert_allclose(rows[np.arange(80) % 2 == value].mean(axis=0), 0, atol=1e-12)


def test_a_probe_tells_the_sex_that_an_encoder_holds_and_not_one_that_it_does_not():
    face, _ = sex_only(80)
    assert group_probe(face.centroids, sexes(80), seed=0) > 0.85
    other = PersonGroups("sex", ("f", "m"), np.random.default_rng(0).permutation(np.arange(80) % 2))
    assert group_probe(face.centroids, other, seed=0) == pytest.approx(0.5, abs=0.17)


def test_principal_axes_are_nested():
    face, _ = pair(dims=(70, 16))
    folds = protocol_folds(N, "crossval", seed=0)[:1]
    few, many = project(face.centroids, *folds[0][0], n_axes=20), projected(face, folds)[0][0].side
    assert len(many.sd) > 20
    np.testing.assert_allclose(np.abs(many.first(20).test), np.abs(few.test), atol=1e-8)
    assert many.first(20) is many.first(20)
    assert many.first(100) is many


def test_eer_by_axes_is_missing_where_there_are_fewer():
    face, voice = pair(70, dims=(120, 54))
    folds = protocol_folds(70, "crossval", seed=0)[:1]
    found = eer_by_axes(projected(face, folds), projected(voice, folds), folds)
    assert found["100"] == dict.fromkeys(SCORERS)
    assert set(found) == {"20", "50", "100", "200"}
    assert all(0 < value < 0.6 for value in found["50"].values())


def test_a_learning_curve_falls_and_ends_at_the_whole_training_part():
    face, voice = pair(200, shared=3.0)
    folds = protocol_folds(200, "crossval", seed=0)[:1]
    sides = [curve_projections(one.centroids, folds, seed=0) for one in (face, voice)]
    curve = learning_curve(*sides, folds)
    assert [p.n_train for p in curve.points] == curve_sizes(folds)
    assert curve.points[-1].n_train == 160
    assert curve.points[-1].eer["likelihood"] < curve.points[0].eer["likelihood"]
    whole = measure_centroids(face.centroids, voice.centroids, seed=0)
    assert curve.points[-1].eer["reference"] == pytest.approx(whole["reference"].eer, abs=0.04)


def test_extrapolation_finds_the_end_of_a_curve_of_its_own_form():
    n = np.array([15, 30, 60, 120, 240])
    d = 2.0 * np.sqrt(n / (n + 80))
    found = extrapolate(n.tolist(), ndtr(d / np.sqrt(2)).tolist(), 0.02)
    assert found.eer == pytest.approx(ndtr(-np.sqrt(999 / 1079)), abs=0.003)
    assert found.plateau == pytest.approx(ndtr(-1.0), abs=0.004)
    assert found.interval is not None
    assert found.interval[0] < found.eer < found.interval[1]


def test_where_points_say_little_extrapolation_rests_on_the_prior():
    n, d = [15, 20, 25, 33, 43, 56], np.array([0.9, 1.1, 1.0, 1.05, 0.95, 1.1])
    found = extrapolate(n, ndtr(d / np.sqrt(2)).tolist(), 0.25)
    expected = 1.1 * np.sqrt((1 + 10 / 56) / (1 + 10 / 999))
    assert found.eer == pytest.approx(ndtr(-expected / 2), abs=0.02)


def test_a_curve_at_chance_is_not_carried_on():
    found = extrapolate([15, 30, 60], [0.5, 0.49, 0.51], 0.1)
    assert found.eer is None
    assert "not above chance" in str(found.reason)


def test_two_points_make_no_curve():
    assert "at least 3" in str(extrapolate([15, 30], [0.6, 0.7], 0.01).reason)


def with_recordings(n: int, leak: float, seed: int = 0) -> tuple[list[Embeddings], np.ndarray]:
    """Four recordings a person; `leak` is how much face and voice share of the recording beyond the person."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 1, 8)) + leak * rng.normal(size=(n, 4, 8))
    sides = [
        embeddings(m, m, (shared @ rng.normal(size=(8, 20)) + rng.normal(size=(n, 4, 20))).astype(np.float32))
        for m in ("face", "voice")
    ]
    return sides, np.tile([0, 0, 1, 1], n)


@pytest.mark.parametrize(("leak", "gap"), [(0.0, 0.0), (2.0, 0.05)])
def test_a_shared_recording_shows_as_a_gap_between_same_and_other_recordings(leak, gap):
    sides, half = with_recordings(80, leak)
    folds = protocol_folds(80, "crossval", seed=0)[:2]
    found = compare_recordings(*(halves(one, [half, half], folds) for one in sides), folds)
    difference = found.other_eer["likelihood"] - found.same_eer["likelihood"]
    assert difference == pytest.approx(0, abs=0.03) if gap == 0 else difference > gap
    assert found.n_people == 80
    assert (found.same_cka["debiased"] - found.other_cka["debiased"] > 0.1) == (leak > 0)


def test_plain_cosine_fits_nothing():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3, 12)).astype(np.float32)
    face, voice = embeddings("f", "face", x), embeddings("v", "voice", x + 0.01)
    found = plain_cosine(face, voice, seed=0)
    assert found["identity"].eer == 0
    assert found["identity"].n_people == 40
    assert found["sample"].n_genuine == 40 * 9


@pytest.mark.parametrize(("n", "in_second"), [(40, True), (251, False)])
def test_single_samples_are_scored_in_every_repeat_of_a_small_set_alone(n, in_second):
    face, _ = pair(n, rows=2, dims=(6, 6))
    first, second = projected(face, folds_of(n, n_repeats=2, seed=0))
    assert all(isinstance(fold, Fold) and len(fold.rows) == len(fold.owners) > 0 for fold in first)
    assert {len(fold.rows) > 0 for fold in second} == {in_second}
