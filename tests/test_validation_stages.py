"""What single stages measure of an encoder and of a pair: split halves, dimensions, curvature, CKA, neighbours."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from test_stages import work_of
from threadpoolctl import threadpool_limits
from toy import embeddings, people, population

from encsel.core import Embeddings
from encsel.data.arrays import keep_usable
from encsel.data.sampling import limit_rows
from encsel.errors import BadCalibration
from encsel.metrics.distance_ratio import two_nn
from encsel.metrics.mle import mle_median
from encsel.metrics.neighbours import Neighbours, neighbour_distances
from encsel.metrics.topology import topology
from encsel.validation.shared import neighbours_of, neighbours_of_counted
from encsel.validation.stage import stages
from encsel.validation.stages import reliability as reliability_stage
from encsel.validation.stages.curvature import curved
from encsel.validation.stages.gw import gromov_wasserstein_of
from encsel.validation.stages.intrinsic import dimensions
from encsel.validation.stages.recordings import shared_halves
from encsel.validation.stages.reliability import Reliability, half_of_samples, reliability

N = 40


def noisy(noise: float, *, person: float = 1.0, n: int = N, rows: int = 4, dim: int = 16, seed: int = 0) -> Embeddings:
    rng = np.random.default_rng(seed)
    x = person * rng.normal(size=(n, 1, dim)) + noise * rng.normal(size=(n, rows, dim))
    return embeddings("a", "face", x.astype(np.float32))


def in_recordings(made: Embeddings, names: list[str]) -> np.ndarray:
    """The recording of each sample, the same names for every person."""
    return np.tile(np.array(names), len(made.labels) // len(names))


@pytest.fixture(autouse=True)
def _one_thread():
    """As stages compute; more threads take ten times longer on a busy machine."""
    with threadpool_limits(1):
        yield


def search(one: Embeddings, *, reference: bool = False) -> tuple[np.ndarray, Neighbours]:
    """Distinct rows of one encoder, and their neighbours."""
    work = work_of(None, (one,), protocol="reference" if reference else "crossval")
    return neighbours_of(work, [(one.modality, one.name)])[one.modality, one.name]


def pair_outcome(stage: str, field: str, face: np.ndarray, voice: np.ndarray, **options):
    """What a stage says of one pair, from (n, rows, dim) samples of the same people."""
    of = embeddings("a", "face", face), embeddings("b", "voice", voice)
    return stages()[stage].compute(work_of(None, of, **options))[("face", "a"), ("voice", "b")][field]


def samples_of(one: Embeddings) -> np.ndarray:
    n = len(one.identities)
    return one.vectors.reshape(n, len(one.labels) // n, -1)


# --- split halves


def test_reliability_without_sample_noise_is_one():
    # 1e-3 of noise in float32 moves CKA by about its square.
    assert reliability(noisy(1e-3), None, seed=0).value == pytest.approx(1, abs=1e-4)


def test_reliability_of_pure_noise_is_zero():
    # Debiased CKA of unrelated centroids, 40 people in 16 dimensions: standard deviation about 0.03 a split.
    values = [reliability(noisy(1.0, person=0.0, seed=seed), None, seed=0).value for seed in range(5)]
    assert np.mean(values) == pytest.approx(0, abs=0.05)
    assert np.abs(values).max() < 0.15


def test_reliability_falls_with_sample_noise():
    values = [reliability(noisy(noise), None, seed=0).value for noise in (0.1, 0.5, 1.0, 3.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.9
    assert values[-1] < 0.5


def test_reliability_does_not_depend_on_row_order():
    made = noisy(1.0)
    shuffled = made.rows(np.random.default_rng(1).permutation(len(made.labels)))
    assert reliability(shuffled, None, seed=0).value == pytest.approx(reliability(made, None, seed=0).value, rel=1e-9)


def test_reliability_says_what_it_is_made_of():
    made = noisy(1.0)
    found = reliability(made, None, seed=0)
    assert (found.by, found.n_people, found.n_splits) == ("samples", N, 4)
    assert reliability(made, in_recordings(made, ["u", "u", "v", "v"]), seed=0).by == "recordings"


def test_many_people_are_divided_fewer_times():
    assert reliability(noisy(1.0, n=401, rows=2, dim=4), None, seed=0).n_splits == 2


def test_what_a_recording_adds_does_not_count_as_reliable():
    # What two samples share is of the recording alone: halves of samples agree on it, halves of recordings do not.
    rng = np.random.default_rng(0)
    of_recording = np.repeat(rng.normal(size=(N, 2, 16)), 8, axis=1)
    made = embeddings("a", "face", (of_recording + 0.01 * rng.normal(size=(N, 16, 16))).astype(np.float32))
    names = in_recordings(made, ["u"] * 8 + ["v"] * 8)
    assert reliability(made, names, seed=0).value < 0.15
    assert reliability(made, None, seed=0).value > 0.4


@pytest.mark.parametrize("rows", [2, 3, 4, 5])
def test_each_person_has_samples_in_both_halves(rows):
    made = noisy(1.0, rows=rows)
    half, by = half_of_samples(made, None, seed=0)
    assert by == "samples"
    for person in people(N):
        counts = np.bincount(half[made.labels == person], minlength=2)
        assert counts.tolist() == [rows // 2, rows - rows // 2]


def test_halves_never_share_a_recording_and_each_person_has_both():
    made = noisy(1.0, rows=6)
    recordings = in_recordings(made, ["u", "u", "u", "v", "w", "w"])
    half, by = half_of_samples(made, recordings, seed=0)
    assert by == "recordings"
    assert set(half.tolist()) == {0, 1}
    for person in people(N):
        own = made.labels == person
        assert set(half[own].tolist()) == {0, 1}
        assert all(len(set(half[own & (recordings == r)].tolist())) == 1 for r in "uvw")


def test_halves_differ_between_seeds_and_not_between_calls():
    made = noisy(1.0)
    one, again, other = (half_of_samples(made, None, seed=seed)[0] for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()


def test_person_of_one_recording_is_in_neither_half():
    made = noisy(1.0)
    recordings = in_recordings(made, ["u", "u", "v", "v"])
    recordings[:4] = "u"
    half, _ = half_of_samples(made, recordings, seed=0)
    assert half[:4].tolist() == [-1] * 4
    assert (half[4:] >= 0).all()


def test_samples_are_divided_where_most_people_have_one_recording():
    made = noisy(1.0)
    recordings = in_recordings(made, ["u", "u", "v", "v"])
    recordings[: 4 * (N // 2 + 1)] = "u"
    assert half_of_samples(made, recordings, seed=0)[1] == "samples"


def test_reliability_of_too_few_people_says_how_many_are_needed():
    made = noisy(1.0, n=12)
    lone = made.rows(np.isin(made.labels, people(9)) | (made.samples == "s0"))
    with pytest.raises(BadCalibration, match="9 people have two samples or more; split halves need at least 10"):
        reliability(lone, None, seed=0)
    with pytest.raises(BadCalibration, match=r"^0 people have two samples"):
        reliability(noisy(1.0, rows=1), None, seed=0)


@pytest.mark.parametrize(
    ("face", "voice", "expected"), [(0.64, 0.25, 0.4), (1.0, 1.0, 1.0), (0.5, -0.1, 0.0), (-0.2, -0.2, 0.0)]
)
def test_ceiling_is_the_root_of_both_reliabilities_and_never_below_zero(monkeypatch, face, voice, expected):
    values = {"face": face, "voice": voice}
    monkeypatch.setattr(
        reliability_stage, "reliability", lambda e, *_, seed: Reliability(values[e.modality], "samples", 20, 4)
    )
    assert pair_outcome("reliability", "ceiling", *population(12)).value == pytest.approx(expected)


def test_pair_of_an_encoder_without_split_halves_has_no_ceiling():
    face, voice = population(12)
    assert pair_outcome("reliability", "ceiling", face, voice[:, :1]).value is None


# --- halves that encoders share


def two_sides() -> tuple[list[Embeddings], list[Embeddings], dict]:
    """Two face encoders and a voice encoder; people have recordings u, v, w, one encoder is without w of some."""
    faces = [embeddings(name, "face", population(12, rows=6)[0]) for name in ("f0", "f1")]
    voices = [embeddings("v0", "voice", population(12, rows=3)[1])]
    of_sample = {
        ("face", "f0"): in_recordings(faces[0], ["u", "u", "v", "v", "w", "w"]),
        ("face", "f1"): in_recordings(faces[1], ["w", "v", "u", "w", "v", "u"]),
        ("voice", "v0"): in_recordings(voices[0], ["u", "v", "w"]),
    }
    keep = ~(np.isin(faces[1].labels, people(4)) & (of_sample["face", "f1"] == "w"))
    faces[1] = faces[1].rows(keep)
    of_sample["face", "f1"] = of_sample["face", "f1"][keep]
    return faces, voices, of_sample


def test_shared_halves_put_a_recording_into_the_same_half_in_every_encoder():
    faces, voices, of_sample = two_sides()
    names, halves = shared_halves([*faces, *voices], of_sample, seed=0)
    assert names == tuple(people(12))
    half_of: dict[tuple[str, str], set[int]] = {}
    for one in (*faces, *voices):
        key = (one.modality, one.name)
        for person, recording, half in zip(one.labels, of_sample[key], halves[key], strict=True):
            half_of.setdefault((str(person), str(recording)), set()).add(int(half))
    assert all(len(found) == 1 for found in half_of.values())
    for person in names:
        assert {0, 1} <= {half for r in "uvw" for half in half_of[person, r]}


def test_recording_that_an_encoder_lacks_is_in_no_half():
    faces, voices, of_sample = two_sides()
    _, halves = shared_halves([*faces, *voices], of_sample, seed=0)
    voice = halves["voice", "v0"]
    lacking = np.isin(voices[0].labels, people(4)) & (of_sample["voice", "v0"] == "w")
    assert (voice[lacking] == -1).all()
    assert (voice[~lacking] >= 0).all()


def test_people_of_one_shared_recording_are_left_out():
    faces, voices, of_sample = two_sides()
    of_sample["voice", "v0"] = of_sample["voice", "v0"].copy()
    of_sample["voice", "v0"][:3] = "u"
    names, halves = shared_halves([*faces, *voices], of_sample, seed=0)
    assert names == tuple(people(12)[1:])
    assert (halves["face", "f0"][:6] == -1).all()


# --- one encoder


@pytest.mark.parametrize(("n_rows", "ks"), [(8, ["5"]), (11, ["5", "10"]), (30, ["5", "10", "20"]), (60, None)])
def test_dimensions_are_at_every_k_that_the_neighbours_allow(n_rows, ks):
    rows = np.random.default_rng(0).normal(size=(n_rows, 1, 16))
    _, found = search(embeddings("a", "face", rows[np.arange(max(n_rows, 12)) % n_rows]))
    known = dimensions(found, noisy(1.0))
    assert found.distances.shape[1] == min(50, n_rows - 1)
    assert list(known.mle_median) == list(known.mle_harmonic) == (ks or ["5", "10", "20", "50"])
    assert known.n_rows == n_rows


def test_dimensions_are_those_of_the_metrics():
    made = noisy(1.0, n=60, rows=1)
    _, found = search(made)
    known = dimensions(found, made)
    assert known.mle_median["20"] == mle_median(found.distances, k=20)
    assert (known.two_nn, known.two_nn_reference) == (two_nn(found.distances), two_nn(found.distances, discard=0.0))


def test_dimension_of_a_plane_is_two():
    # A plane in 8 dimensions, 400 points: the harmonic mean is within a tenth of 2.
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 8))
    one = embeddings("a", "face", plane[:, None].astype(np.float32))
    found = dimensions(search(one)[1], one)
    assert found.per_person is None
    assert found.mle_harmonic["20"] == pytest.approx(2, rel=0.1)


def test_dimension_per_person_is_that_of_each_person_alone():
    # Everybody's 40 samples lie on a plane of their own, and people differ in 16 dimensions; two people have too few.
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=(40, 2)) @ rng.normal(size=(2, 16)) + 9 * rng.normal(size=16) for _ in range(14)])
    made = embeddings("a", "face", x.astype(np.float32))
    made = made.rows(~np.isin(made.labels, people(2)) | np.isin(made.samples, [f"s{i}" for i in range(6)]))
    found = dimensions(search(made)[1], made).per_person
    each = [mle_median(neighbour_distances(made.vectors[made.labels == p], 5), k=5) for p in people(14)[2:]]
    assert found.n_people == 12
    assert (found.median, found.mean) == pytest.approx((np.median(each), np.mean(each)), rel=1e-6)
    assert found.quartiles == pytest.approx(tuple(np.quantile(each, [0.25, 0.75])), rel=1e-6)
    assert found.median == pytest.approx(2, rel=0.3)


def test_curvature_summary_is_that_of_the_points():
    rows, found = search(noisy(1.0, n=60, rows=1))
    for reference in (False, True):
        c = curved(rows, found, reference=reference, seed=0).encoder
        # Of 41 evenly spaced quantiles the 11th, the 21st and the 31st.
        spaced = [c.absolute_quantiles[i] for i in (10, 20, 30)]
        assert [c.mean_absolute_quartiles[0], c.mean_absolute_median, c.mean_absolute_quartiles[1]] == spaced
        assert c.mean_absolute_quartiles[0] < c.mean_absolute_mean < c.absolute_quantiles[-1]
        assert c.gaussian_std > 0
        assert c.gaussian_median < c.gaussian_mean
        assert (c.mean_quartiles is None) is not reference
        if c.mean_quartiles is not None:
            assert c.mean_quartiles[0] < c.mean_median < c.mean_quartiles[1]


# --- repeated rows


def repeated() -> Embeddings:
    """20 people whose first row is listed three times, at the end of the source."""
    x = population(20, rows=4)[0]
    listed = np.concatenate([x.reshape(-1, x.shape[2]), np.repeat(x[:, 0], 2, axis=0)])
    names = np.concatenate([np.repeat(people(20), 4), np.repeat(people(20), 2)])
    samples = np.array([f"s{i:03d}" for i in range(len(names))])
    made, skipped = keep_usable(Embeddings("a", "face", listed, names, samples))
    assert skipped == ()
    assert len(made.vectors) == 80
    return made


def test_rows_as_listed_are_those_of_the_source_in_its_order():
    made = repeated()
    source = made.as_listed()
    assert (len(source.vectors), source.listed) == (120, None)
    np.testing.assert_array_equal(source.vectors[80::2], made.vectors[::4])
    np.testing.assert_array_equal(source.labels[80:], np.repeat(people(20), 2))
    some = made.rows(np.isin(made.labels, people(3))).as_listed()
    np.testing.assert_array_equal(some.vectors, source.vectors[np.isin(source.labels, people(3))])
    reordered = made.rows(np.arange(80)[::-1]).as_listed()
    np.testing.assert_array_equal(reordered.vectors, source.vectors)
    assert limit_rows(made, 2, seed=0).listed is None
    assert embeddings("a", "face", population(4)[0]).as_listed().listed is None


def test_repeated_rows_count_in_the_reference_protocol_alone():
    made, key = repeated(), ("face", "a")
    corrected, reference = (work_of(None, (made,), protocol=protocol) for protocol in ("crossval", "reference"))
    np.testing.assert_array_equal(corrected.centroids(key), made.centroids)
    np.testing.assert_array_equal(reference.centroids(key), made.as_listed().centroids)
    assert corrected.content[key] != reference.content[key]
    assert corrected.content[key] == work_of(None, (replace(made, listed=None),)).content[key]
    measured = {work.protocol: neighbours_of_counted(work, [key])[key] for work in (corrected, reference)}
    assert [len(rows) for rows, _ in measured.values()] == [80, 120]
    assert len(neighbours_of(reference, [key])[key][0]) == 80
    # Four distinct rows a person are too few for the topology; six listed ones are not.
    found = [stages()["topology"].compute(work)[key]["topology"] for work in (corrected, reference)]
    assert "0 of 20 people have 5 samples" in found[0].reason
    source = made.as_listed()
    assert found[1].value == topology(source.vectors, source.labels, reference=True)


def test_repeated_rows_are_searched_once():
    x = population(20, rows=4)[0]
    rows, found = search(embeddings("a", "face", np.concatenate([x, x], axis=1)))
    assert len(rows) == len(found.distances) == 80
    assert (found.distances > 0).all()


def test_search_of_too_few_distinct_rows_says_how_many_are_needed():
    rows = np.random.default_rng(0).normal(size=(12, 1, 8))
    for n_distinct in (1, 6, 7):
        one = embeddings("a", "face", rows[np.arange(12) % n_distinct])
        if n_distinct == 7:
            assert len(search(one)[0]) == 7
            continue
        with pytest.raises(BadCalibration, match=f"{n_distinct} distinct samples; a neighbour search needs at least 7"):
            search(one)


def test_curvature_has_a_flat_control_in_the_corrected_form_alone():
    made = noisy(1.0, n=60, rows=1)
    rows, found = search(made)
    corrected = curved(rows, found, reference=False, seed=0)
    assert (corrected.encoder.form, corrected.flat.form) == ("corrected", "corrected")
    reference = curved(*search(made, reference=True), reference=True, seed=0)
    assert reference.encoder.form == "reference"
    assert reference.flat is None


def test_flat_control_reads_what_a_flat_cloud_reads():
    # Both are Gaussian clouds of one covariance; medians over 300 points. In 40 dimensions some are left for a normal.
    rows, found = search(noisy(1.0, n=300, rows=1, dim=40))
    both = curved(rows, found, reference=False, seed=0)
    assert both.encoder.mean_absolute_median == pytest.approx(both.flat.mean_absolute_median, rel=0.2)


def test_sphere_is_more_curved_than_its_flat_control():
    # Of radius 1, so of curvature 1, in 3 of 6 dimensions. So dense that 50 neighbours lie on nearly flat ground:
    # height must stay below the 5 % of variance that are no longer tangent.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 3))
    x = np.pad(x / np.linalg.norm(x, axis=1, keepdims=True), ((0, 0), (0, 3)))
    rows, found = search(embeddings("a", "face", x[:, None].astype(np.float32)))
    both = curved(rows, found, reference=False, seed=0)
    assert both.encoder.mean_absolute_median == pytest.approx(1, rel=0.1)
    assert both.flat.mean_absolute_median < 0.5 * both.encoder.mean_absolute_median


# --- a pair


def test_encoder_is_wholly_aligned_with_itself():
    own = samples_of(noisy(0.5))
    for stage in ("cka", "geodesic"):
        cka = pair_outcome(stage, stage, own, own).value
        assert (cka.biased, cka.debiased, cka.matched) == pytest.approx((1, 1, 1))
    mutual = pair_outcome("mutual", "mutual", own, own).value
    assert (mutual.value, mutual.chance) == (1, pytest.approx(10 / (N - 1)))
    assert pair_outcome("gw", "gromov_wasserstein", own, own).value.value == pytest.approx(0, abs=1e-6)
    assert pair_outcome("spectral", "spectral_gap", own, own).value == 0
    assert pair_outcome("intrinsic", "id_mismatch", own, own).value == 0


def test_unrelated_encoders_are_aligned_as_chance_has_it():
    # Debiased CKA of 40 people in 16 dimensions by chance: standard deviation about 0.03.
    face, voice = (samples_of(noisy(0.5, seed=seed)) for seed in (1, 2))
    assert pair_outcome("cka", "cka", face, voice).value.debiased == pytest.approx(0, abs=0.12)
    mutual = pair_outcome("mutual", "mutual", face, voice).value
    assert mutual.value == pytest.approx(mutual.chance, abs=0.1)


@pytest.mark.parametrize("reference", [False, True])
def test_gromov_wasserstein_lies_above_its_bound_in_either_form(reference):
    found = gromov_wasserstein_of(*(side.mean(axis=1) for side in population(24)), reference=reference, seed=0)
    assert found.squared is reference
    assert 0 <= found.lower_bound <= found.value
    assert math.isfinite(found.value)


@pytest.mark.parametrize(("n", "stage", "field"), [(11, "geodesic", "geodesic"), (11, "mutual", "mutual")])
def test_too_few_people_are_a_reason_with_the_number_needed_and_no_value(n, stage, field):
    outcome = pair_outcome(stage, field, *population(n))
    assert outcome.value is None
    assert str(outcome.reason).startswith(f"{n} people; ")
    assert f"at least {n + 1}" in str(outcome.reason)
    assert math.isfinite(pair_outcome("cka", "cka", *population(n)).value.debiased)


def test_encoder_of_too_few_people_has_no_spectrum_and_says_why():
    face, voice = population(21)
    work = work_of(None, (embeddings("a", "face", face), embeddings("b", "voice", voice)))
    outcomes = stages()["spectral"].compute(work)
    assert outcomes["face", "a"]["spectrum"].value is None
    assert outcomes["face", "a"]["spectrum"].reason.startswith("21 people; ")
    assert "at least 22" in outcomes["face", "a"]["spectrum"].reason
    assert outcomes[("face", "a"), ("voice", "b")]["spectral_gap"].value is None
