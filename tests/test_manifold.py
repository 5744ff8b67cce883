"""The whole geometry of an encoder and of a pair: reliability, halves, dimensions, curvature, alignment."""

from __future__ import annotations

import math

import numpy as np
import pytest
from toy import embeddings, people, population

from encsel.core import Embeddings
from encsel.errors import BadCalibration
from encsel.manifold import (
    Reliability,
    alignment,
    ceiling,
    curved,
    dimensions,
    gromov_wasserstein_of,
    half_of_samples,
    people_of,
    reliability,
    search,
    shared_halves,
    spectral_gap_of,
    spectrum_of,
)

N = 60


def without_noise(n=N, rows=4) -> Embeddings:
    """Samples of a person differ by a millionth."""
    rng = np.random.default_rng(0)
    person = rng.normal(size=(n, 1, 24))
    return embeddings("a", "face", (person + 1e-6 * rng.normal(size=(n, rows, 24))).astype(np.float32))


def pure_noise(n=N, rows=4) -> Embeddings:
    return embeddings("a", "face", np.random.default_rng(0).normal(size=(n, rows, 24)).astype(np.float32))


def clips(modality, of_person) -> tuple[Embeddings, np.ndarray]:
    """Two clips of each recording of each person, and the recording of each."""
    keys = [(person, r, c) for person, own in of_person.items() for r in own for c in range(2)]
    x = np.random.default_rng(0).normal(size=(len(keys), 5)).astype(np.float32)
    labels, recordings = np.array([k[0] for k in keys]), np.array([k[1] for k in keys])
    return Embeddings("toy", modality, x, labels, np.array([f"{r}/{c}" for _, r, c in keys])), recordings


def of_reliability(value) -> Reliability:
    return Reliability(value, "samples", N, 4)


# Halves and reliability


def test_split_half_reliability_is_one_without_noise_of_samples():
    found = reliability(without_noise(), None, seed=0)
    assert found.value == pytest.approx(1, abs=1e-4)
    assert (found.by, found.n_people, found.n_splits) == ("samples", N, 4)


def test_split_half_reliability_of_pure_noise_is_zero():
    # Debiased CKA of two unrelated halves at 60 people in 24 dimensions has a standard deviation near 0.02.
    assert reliability(pure_noise(), None, seed=0).value == pytest.approx(0, abs=0.06)


def test_split_half_reliability_lies_between_for_signal_with_noise():
    assert 0.2 < reliability(embeddings("a", "face", population(N)[0]), None, seed=0).value < 0.98


def test_reliability_does_not_depend_on_the_order_of_rows():
    one = embeddings("a", "face", population(N)[0])
    other = one.rows(np.random.default_rng(1).permutation(len(one.labels)))
    assert reliability(other, None, seed=0).value == pytest.approx(reliability(one, None, seed=0).value, rel=1e-9)


def test_reliability_of_more_than_400_people_takes_two_divisions():
    assert reliability(pure_noise(401, rows=2), None, seed=0).n_splits == 2


def test_reliability_of_fewer_than_ten_people_with_two_samples_says_so():
    with pytest.raises(BadCalibration, match=r"9 people have two samples or more; split halves need at least 10"):
        reliability(without_noise(9), None, seed=0)
    with pytest.raises(BadCalibration, match=r"0 people have two samples"):
        reliability(without_noise(20, rows=1), None, seed=0)


def test_halves_never_share_a_recording_and_each_person_has_both():
    one, recordings = clips("face", {p: [f"v{j}" for j in range(2 + i % 4)] for i, p in enumerate(people(20))})
    for seed in range(5):
        half, by = half_of_samples(one, recordings, seed=seed)
        assert by == "recordings"
        halves_of = {}
        for person, recording, side in zip(one.labels, recordings, half, strict=True):
            halves_of.setdefault((person, recording), set()).add(int(side))
        assert all(len(sides) == 1 for sides in halves_of.values())
        for person in people(20):
            assert set(half[one.labels == person]) == {0, 1}


def test_halves_of_samples_are_even_and_another_seed_divides_otherwise():
    one = without_noise(20)
    (half, by), (other, _) = (half_of_samples(one, None, seed=seed) for seed in (0, 1))
    assert by == "samples"
    assert all(half[one.labels == person].sum() == 2 for person in people(20))
    assert (half != other).any()


def test_person_with_one_recording_is_in_neither_half():
    one, recordings = clips("face", {p: ["v0"] if i == 0 else ["v0", "v1"] for i, p in enumerate(people(4))})
    half, _ = half_of_samples(one, recordings, seed=0)
    assert set(half[one.labels == "id0000"]) == {-1}
    assert set(half[one.labels == "id0001"]) == {0, 1}


def test_samples_are_halved_where_most_people_have_one_recording():
    one, recordings = clips("face", {p: ["v0", "v1"] if i == 0 else ["v0"] for i, p in enumerate(people(4))})
    half, by = half_of_samples(one, recordings, seed=0)
    assert by == "samples"
    assert all(set(half[one.labels == person]) == {0, 1} for person in people(4))


def test_reliability_says_that_recordings_were_divided():
    one, recordings = clips("face", {p: ["v0", "v1"] for p in people(12)})
    assert reliability(one, recordings, seed=0).by == "recordings"


# Halves that encoders share


def test_shared_halves_give_a_recording_the_same_half_in_every_encoder():
    everything = {p: [f"v{j}" for j in range(4)] for p in people(6)}
    face, of_face = clips("face", everything)
    order = np.random.default_rng(0).permutation(len(of_face))
    voice, of_voice = clips("voice", everything)
    voice, of_voice = voice.rows(order), of_voice[order]
    of_sample = {("face", "toy"): of_face, ("voice", "toy"): of_voice}
    found, halves = shared_halves([face], [voice], of_sample, seed=0)
    assert found == tuple(people(6))
    sides = [
        {
            key: int(side)
            for *key_parts, side in zip(e.labels, r, halves[m, "toy"], strict=True)
            for key in [tuple(key_parts)]
        }
        for m, e, r in (("face", face, of_face), ("voice", voice, of_voice))
    ]
    assert sides[0] == sides[1]
    for person in people(6):
        assert sorted(side for (p, _), side in sides[0].items() if p == person) == [0, 0, 1, 1]


def test_shared_halves_leave_out_what_an_encoder_lacks():
    face, of_face = clips("face", {"a": ["v0", "v1", "v2"], "b": ["v0", "v1"], "c": ["v0", "v1"]})
    voice, of_voice = clips("voice", {"a": ["v0", "v1"], "b": ["v1", "v2"], "d": ["v0", "v1"]})
    of_sample = {("face", "toy"): of_face, ("voice", "toy"): of_voice}
    found, halves = shared_halves([face], [voice], of_sample, seed=0)
    assert found == ("a",)
    of_a = face.labels == "a"
    assert set(halves["face", "toy"][~of_a]) == {-1}
    assert set(halves["face", "toy"][of_a & (of_face == "v2")]) == {-1}
    assert set(halves["face", "toy"][of_a & (of_face != "v2")]) == {0, 1}


# Ceiling


def test_ceiling_is_the_root_of_both_reliabilities():
    assert ceiling(of_reliability(0.9), of_reliability(0.4)) == pytest.approx(0.6)


def test_ceiling_is_never_below_zero_nor_undefined():
    assert ceiling(of_reliability(-0.1), of_reliability(0.4)) == 0
    assert ceiling(of_reliability(-0.1), of_reliability(-0.4)) == 0


# Dimensions and curvature


@pytest.mark.parametrize(("n_rows", "ks"), [(8, ["5"]), (12, ["5", "10"]), (30, ["5", "10", "20"]), (60, None)])
def test_dimensions_have_only_the_numbers_of_neighbours_that_rows_allow(n_rows, ks):
    _, found = search(without_noise(n_rows, rows=1), reference=False)
    got = dimensions(found)
    assert list(got.mle_median) == list(got.mle_harmonic) == (ks or ["5", "10", "20", "50"])
    assert got.n_rows == n_rows


def test_dimensions_of_a_plane_are_two():
    rng = np.random.default_rng(0)
    plane = (rng.uniform(size=(800, 1, 2)) @ rng.normal(size=(2, 10))).astype(np.float32)
    got = dimensions(search(embeddings("a", "face", plane), reference=False)[1])
    # Points near the edge lower the estimates a little; their spread over draws is about 0.1.
    assert (got.mle_median["20"], got.mle_harmonic["20"], got.two_nn) == pytest.approx((2, 2, 2), abs=0.3)


def test_repeated_rows_do_not_enter_the_search():
    one = without_noise(20, rows=1)
    doubled = embeddings("a", "face", np.repeat(one.vectors[:, None], 2, axis=1))
    rows, found = search(doubled, reference=False)
    assert len(rows) == 20
    assert (found.distances > 0).all()


def test_search_of_six_distinct_rows_says_how_many_are_needed():
    with pytest.raises(BadCalibration, match=r"6 distinct samples; neighbours need at least 7"):
        search(without_noise(6, rows=1), reference=False)
    assert search(without_noise(7, rows=1), reference=False)[1].distances.shape == (7, 6)


def test_curvature_has_a_flat_control_except_in_the_reference_form():
    one = embeddings("a", "face", population(40)[0])
    corrected, reference = (curved(*search(one, reference=r), reference=r, seed=0) for r in (False, True))
    assert reference.flat is None
    assert (corrected.encoder.form, reference.encoder.form) == ("corrected", "reference")
    assert corrected.flat.form == "corrected"
    assert corrected.flat.n_neighbours == corrected.encoder.n_neighbours


def test_sphere_is_more_curved_than_its_flat_control():
    x = np.random.default_rng(0).normal(size=(600, 1, 3))
    sphere = embeddings("a", "face", (x / np.linalg.norm(x, axis=2, keepdims=True)).astype(np.float32))
    found = curved(*search(sphere, reference=False), reference=False, seed=0)
    # A sphere of radius 1 has curvature 1; the cloud's normal direction is noise.
    assert found.encoder.mean_absolute_median == pytest.approx(1, abs=0.1)
    assert found.flat.mean_absolute_median < 0.8


# Pairs


def test_alignment_of_an_encoder_with_itself_is_one_everywhere():
    one = people_of(embeddings("a", "face", population(N)[0]))
    found = alignment(one, one)
    for part in (found.linear, found.geodesic):
        assert (part.biased, part.debiased, part.matched) == pytest.approx((1, 1, 1), abs=1e-9)
    assert found.mutual_knn == 1
    assert found.mutual_knn_chance == pytest.approx(10 / (N - 1))
    assert found.reasons == {}


def test_alignment_of_unrelated_encoders_is_near_chance():
    rng = np.random.default_rng(0)
    sides = [people_of(embeddings("a", m, rng.normal(size=(200, 1, 16)))) for m in ("face", "voice")]
    found = alignment(*sides)
    # Over 200 people debiased CKA has a standard deviation near 0.007, the share of neighbours near 0.005.
    assert found.linear.debiased == pytest.approx(0, abs=0.04)
    assert found.mutual_knn == pytest.approx(found.mutual_knn_chance, abs=0.025)


def test_alignment_of_too_few_people_says_what_is_missing_and_keeps_cka():
    face, voice = (people_of(embeddings("a", m, x)) for m, x in zip(("face", "voice"), population(8), strict=True))
    found = alignment(face, voice)
    assert (found.geodesic, found.mutual_knn) == (None, None)
    assert set(found.reasons) == {"geodesic", "mutual"}
    assert all(reason.startswith("8 people; ") for reason in found.reasons.values())
    assert 0 < found.linear.biased <= 1


def test_parts_that_were_not_wanted_are_skipped():
    one = people_of(embeddings("a", "face", population(N)[0]), geodesic=False, mutual=False)
    found = alignment(one, one)
    assert (found.geodesic, found.mutual_knn) == (None, None)
    assert found.reasons == {"geodesic": "skipped", "mutual": "skipped"}


def test_people_with_one_embedding_are_bad_calibration():
    with pytest.raises(BadCalibration, match="All identities have the same embedding"):
        people_of(embeddings("a", "face", np.ones((20, 2, 4), np.float32)))


def test_spectral_gap_of_an_encoder_with_itself_is_zero():
    one = spectrum_of(embeddings("a", "face", population(N)[0]))
    assert list(one.values) == sorted(one.values)
    assert spectral_gap_of(one, one) == 0


def test_gromov_wasserstein_of_an_encoder_with_itself_is_zero():
    x = people_of(embeddings("a", "face", population(30)[0]), geodesic=False, mutual=False).x
    found = gromov_wasserstein_of(x, x, reference=False, seed=0)
    assert (found.value, found.lower_bound) == pytest.approx((0, 0), abs=1e-6)
    assert math.isfinite(gromov_wasserstein_of(x, x, reference=True, seed=0).value)
