from __future__ import annotations

import numpy as np
import pytest

from encsel.core import MODALITIES
from encsel.matching.crossval import MEASURED
from encsel.simulation.populations import KINDS, Population, TruthSizes, truth, unit_mean

SMALL = TruthSizes(n_train=(40, 80), n_test=30, n_samples=4, probes=(4, 1), n_splits=2)


USUAL = ("traits", "channel", "demographic", "weak-directions")


@pytest.fixture(scope="module", params=[k if k in USUAL else pytest.param(k, marks=pytest.mark.slow) for k in KINDS])
def world(request):
    return Population(request.param, 3, n_faces=2, n_voices=2)


def test_a_world_is_fixed_by_kind_and_seed(world):
    again = Population(world.kind, 3, n_faces=2, n_voices=2)
    one, other = (w.draw(12, 3, np.random.default_rng(0)) for w in (world, again))
    for modality in MODALITIES:
        for x, y in zip(one[modality], other[modality], strict=True):
            assert (x.centroids == y.centroids).all()
            assert (x.single == y.single).all()
    assert Population(world.kind, 4).encoders["face"][0].gains[0] != world.encoders["face"][0].gains[0]


def test_people_are_unit_vectors_of_the_stated_shape(world):
    drawn = world.draw(12, 3, np.random.default_rng(0))
    for modality in MODALITIES:
        for encoder, x in zip(world.encoders[modality], drawn[modality], strict=True):
            for rows in (x.centroids, x.single):
                assert rows.shape == (12, encoder.dim)
                assert np.linalg.norm(rows, axis=1) == pytest.approx(1)


def check_truth(world, sizes):
    eers = truth(world.draw, np.random.default_rng(0), sizes)
    assert eers.shape == (len(MEASURED), len(sizes.probes), len(sizes.n_train), 2, 2)
    assert ((eers >= 0) & (eers < 0.6)).all()
    return eers


def test_the_truth_lies_between_perfect_and_chance_and_is_worse_for_single_samples(world):
    means, single = check_truth(world, SMALL)[:, :, -1].mean(axis=(2, 3)).T
    assert (means < single + 0.02).all()
    assert means.mean() < single.mean() + 0.01


@pytest.mark.slow
def test_the_truth_at_the_reference_size_lies_between_perfect_and_chance(world):
    check_truth(world, TruthSizes(n_splits=2))


def test_the_truth_is_the_mean_over_splits():
    people = Population("traits", 3, n_faces=2, n_voices=2).draw(110, 4, np.random.default_rng(1))

    def same_people(n, m, rng):
        return people

    def eers(rng, n_splits):
        return truth(same_people, rng, TruthSizes(n_train=(80,), n_test=30, n_splits=n_splits))

    rng = np.random.default_rng(0)
    one, two, both = eers(rng, 1), eers(rng, 1), eers(np.random.default_rng(0), 2)
    assert (one + two) / 2 == pytest.approx(both)


def test_people_of_the_group_only_kind_share_nothing_but_their_class():
    world = Population("group-only", 0)
    people = world.people(4000, 2, np.random.default_rng(0))
    face, voice = (people.traits[m] for m in MODALITIES)
    assert world.n_shared == 0
    cross = np.corrcoef(face.T, voice.T)[: face.shape[1], face.shape[1] :]
    assert cross[0, 0] > 0.7
    cross[0, 0] = 0
    assert np.abs(cross).max() < 0.08


def test_faces_and_voices_of_one_occasion_share_the_channel():
    world = Population("channel", 0)
    people = world.people(5, 8, np.random.default_rng(0))
    assert len(people.channel["face"]) == 5
    many = world.people(2000, 1, np.random.default_rng(0)).channel
    shared = np.mean(
        [np.corrcoef(f, v)[0, 1] for f, v in zip(many["face"][:, 0].T, many["voice"][:, 0].T, strict=True)]
    )
    assert shared == pytest.approx(np.sqrt(world.channel_agreement), abs=0.03)
    assert all(e.channel_gain > 0 for m in MODALITIES for e in world.encoders[m])
    assert all(e.channel_gain == 0 for e in Population("traits", 0).encoders["face"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_fifth_population_shares_nothing_or_little(kind):
    worlds = [Population(kind, seed, n_faces=1, n_voices=1) for seed in range(10)]
    assert [world.link for world in worlds if world.link in (0, 1)] == [1, 1, 1, 1, 0, 1, 1, 1, 1]
    assert 0 < worlds[9].link < 0.5
    people = worlds[4].people(2000, 2, np.random.default_rng(0))
    face, voice = (people.traits[m][:, : 1 + worlds[4].n_shared] for m in MODALITIES)
    cross = np.corrcoef(face.T, voice.T)[: face.shape[1], face.shape[1] :]
    assert np.abs(cross).max() < 0.09
    assert (people.channel["face"] != people.channel["voice"]).any()


def test_identity_loss_like_people_are_tight_and_apart():
    tight, loose = Population("clustered", 0), Population("traits", 0)
    ratios = []
    for world in (tight, loose):
        rng = np.random.default_rng(0)
        samples = world.embed(world.encoders["face"][0], world.people(40, 6, rng), 6, rng)
        mean = samples.mean(axis=1)
        within = np.square(samples - mean[:, None]).sum(axis=2).mean()
        ratios.append(within / np.square(mean - mean.mean(axis=0)).sum(axis=1).mean())
    assert ratios[0] < 0.5 * ratios[1]


def test_an_unknown_kind_is_a_programming_error():
    with pytest.raises(ValueError, match="unknown kind"):
        Population("gaussian", 0)


def test_unit_mean_averages_before_it_normalises():
    samples = np.array([[[3.0, 0.0], [0.0, 4.0]]])
    assert unit_mean(samples) == pytest.approx(np.array([[0.6, 0.8]]))
