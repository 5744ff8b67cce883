"""Health of an encoder: sound ones have no findings, each known kind of broken one has its own."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from toy import embeddings, people, population

from encsel.embedding import health
from encsel.embedding.health import (
    CONSTANT,
    DOES_NOT_VERIFY,
    NO_VERIFICATION,
    SHARED_ROWS,
    Health,
    examine,
)

N, ROWS, DIM = 30, 4, 64


def of(samples: np.ndarray, **options) -> Health:
    """Health of (people, rows, dim)."""
    return examine(embeddings("toy", "face", samples.astype(np.float32)), **options)


def clusters(spread: float, *, n: int = N, rows: int = ROWS, offset: float = 0.0, seed: int = 0) -> np.ndarray:
    """People about 1 from the origin in random directions, samples `spread` around them; all moved by `offset`."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n, 1, DIM)) / np.sqrt(DIM)
    samples = centres + spread * rng.normal(size=(n, rows, DIM)) / np.sqrt(DIM)
    samples[..., 0] += offset
    return samples


def test_sound_encoder_has_no_findings():
    found = of(clusters(0.3))
    assert found.findings == ()
    assert found.reason is None
    assert found.skipped == 0


def test_sound_encoder_of_a_population_has_no_findings():
    assert of(population(40)[0]).findings == ()


def test_eer_of_separable_people_is_zero():
    assert of(clusters(0.01)).unimodal_eer == 0


def test_eer_of_noise_is_chance():
    found = of(clusters(1.0, n=60) - clusters(0.0, n=60))
    # 360 genuine pairs: a standard error of 0.026.
    assert found.unimodal_eer == pytest.approx(0.5, abs=0.08)
    assert found.findings == (DOES_NOT_VERIFY,)


def test_eer_of_samples_least_like_their_own_person_is_one():
    axes = np.eye(4)
    # A person's two samples point apart, and those of different people are orthogonal.
    assert of(np.stack([axes, -axes], axis=1)).unimodal_eer == 1


def test_intra_and_inter_of_orthogonal_people():
    # Samples at +-60 degrees around their person's axis: the centroid is the axis, each sample 1 - cos 60 from it.
    samples = np.zeros((4, 2, 8))
    for person in range(4):
        samples[person, :, person] = np.cos(np.pi / 3)
        samples[person, 0, 4 + person] = np.sin(np.pi / 3)
        samples[person, 1, 4 + person] = -np.sin(np.pi / 3)
    found = of(samples)
    assert found.intra == pytest.approx(0.5, abs=1e-6)
    assert found.inter == pytest.approx(1, abs=1e-6)


def test_health_ignores_the_scale_and_the_order_of_rows():
    samples = clusters(0.5)
    one, scaled = of(samples), of(1000 * samples)
    order = np.random.default_rng(0).permutation(N * ROWS)
    shuffled = examine(embeddings("toy", "face", samples.astype(np.float32)).rows(order))
    for other in (scaled, shuffled):
        assert other.unimodal_eer == pytest.approx(one.unimodal_eer, abs=2e-3)  # ties fall apart by rounding
        assert (other.intra, other.inter) == pytest.approx((one.intra, one.inter), abs=1e-6)
        assert other.findings == one.findings


def test_health_is_the_same_for_the_same_seed():
    samples = clusters(0.8)
    assert of(samples, seed=3) == of(samples, seed=3)


def test_constant_encoder_is_found():
    found = of(np.ones((N, ROWS, DIM)))
    assert set(found.findings) == {CONSTANT, SHARED_ROWS, DOES_NOT_VERIFY}
    assert found.unimodal_eer == pytest.approx(0.5)


@pytest.mark.parametrize(("offset", "is_constant"), [(1e6, True), (1000.0, False)])
def test_vectors_that_differ_by_no_more_than_rounding_are_found(offset, is_constant):
    findings = of(clusters(0.3, offset=offset)).findings
    assert (CONSTANT in findings) == is_constant


@pytest.mark.parametrize("offset", [3.0, 30.0, 1000.0])
def test_vectors_that_all_point_the_same_way_are_sound_if_they_tell_people_apart(offset):
    """Not the distance between people counts, but that beside the distance within them."""
    found = of(clusters(0.3, offset=offset))
    assert found.findings == ()
    assert found.inter < 0.2


def test_rows_shared_by_different_people_are_found():
    samples = clusters(0.3)
    samples[5, 2] = samples[9, 0]
    assert of(samples).findings == (SHARED_ROWS,)


def test_a_few_shared_rows_among_many_are_named_and_no_finding():
    samples = clusters(0.3, rows=40)
    samples[5, 2] = samples[9, 0]
    whole = embeddings("toy", "face", samples.astype(np.float32))
    assert examine(whole).findings == ()
    assert health.few_shared_rows(whole) == [["id0005/s2", "id0009/s0"]]
    assert health.few_shared_rows(embeddings("toy", "face", samples[:, :4].astype(np.float32))) == []


def test_one_sample_a_person_cannot_be_verified_and_is_no_finding():
    found = of(clusters(0.3, rows=1))
    assert found.unimodal_eer is None
    assert found.reason == NO_VERIFICATION
    assert found.findings == ()
    assert found.intra == pytest.approx(0, abs=1e-9)


def test_one_person_with_two_samples_is_enough_to_verify():
    whole = embeddings("toy", "face", clusters(0.01, rows=2).astype(np.float32))
    kept = whole.rows((whole.samples == "s0") | (whole.labels == people(1)[0]))
    assert examine(kept).unimodal_eer == 0


@pytest.mark.parametrize(("n_skipped", "share"), [(0, 0), (N * ROWS, 0.5), (1, 1 / (N * ROWS + 1))])
def test_share_of_skipped_samples(n_skipped, share):
    assert of(clusters(0.3), n_skipped=n_skipped).skipped == pytest.approx(share)


def test_people_count_alike_whatever_their_number_of_samples():
    """`inter` is a mean over people: repeating one person's samples does not move it."""
    samples = clusters(0.3)
    whole = embeddings("toy", "face", samples.astype(np.float32))
    often = np.concatenate([np.arange(N * ROWS), *[np.arange(ROWS)] * 5])
    renamed = replace(whole.rows(often), samples=np.array([f"s{i}" for i in range(len(often))]))
    assert examine(renamed).inter == pytest.approx(examine(whole).inter, abs=1e-9)


@pytest.mark.parametrize(("n", "rows"), [(30, 3), (8, 40), (60, 2)])
def test_verification_scores_a_bounded_number_of_rows(monkeypatch, n, rows):
    monkeypatch.setattr(health, "MAX_ROWS", 40)
    scored = []

    def counting(genuine, impostor):
        scored.append((len(genuine), len(genuine) + len(impostor)))
        return 0.0

    monkeypatch.setattr(health, "eer", counting)
    assert of(clusters(0.3, n=n, rows=rows)).unimodal_eer == 0
    ((n_genuine, n_pairs),) = scored
    assert n_genuine > 0
    assert n_pairs <= 40 * 39 / 2


def test_verification_of_many_people_is_about_that_of_some_of_them(monkeypatch):
    samples = clusters(1.2, n=200)
    whole = of(samples).unimodal_eer
    monkeypatch.setattr(health, "MAX_ROWS", 200)
    # 100 people with 2 rows each: 100 genuine pairs, a standard error of 0.04.
    assert of(samples).unimodal_eer == pytest.approx(whole, abs=0.1)


def test_few_people_with_two_samples_among_many_with_one_are_verified(monkeypatch):
    monkeypatch.setattr(health, "MAX_ROWS", 20)
    whole = embeddings("toy", "face", clusters(0.01, n=60, rows=2).astype(np.float32))
    kept = whole.rows((whole.samples == "s0") | np.isin(whole.labels, people(60)[50:52]))
    assert examine(kept).unimodal_eer == 0


# --- what a set seems to be


def sides(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    return population(n, dims=(24, 24))


def number(n: int = 40) -> np.ndarray:
    """(people, rows, 1) number of each person."""
    return np.broadcast_to(np.arange(n)[:, None, None], (n, ROWS, 1)).astype(np.float32)


def one_hot(n: int = 40) -> np.ndarray:
    return np.eye(n, dtype=np.float32)[number(n)[..., 0].astype(int)]


def bits(n: int = 40) -> np.ndarray:
    return ((number(n).astype(int) >> np.arange(6)) & 1).astype(np.float32)


@pytest.mark.parametrize(
    "samples",
    [
        one_hot(), 3 * one_hot() + 1, one_hot() + 0.02 * sides()[0][..., :1], np.dstack([sides()[0], 5 * one_hot()]),
        np.dstack([sides()[0], number()]), np.dstack([sides()[0], 7 - number()]), np.dstack([sides()[0], bits()]),
        np.dstack([sides()[0], number()[np.random.default_rng(0).permutation(40)]]),
        np.dstack([sides()[0], one_hot() * np.abs(sides()[1][..., :1]) / 10]),
    ],
)  # fmt: skip
def test_labels_inside_vectors_are_found(samples):
    assert health.contains_labels(embeddings("toy", "face", samples))


def test_one_sample_a_person_with_a_number_is_found():
    assert health.contains_labels(embeddings("toy", "face", np.dstack([sides()[0], number()])[:, :1]))


@pytest.mark.parametrize("rows", [1, 4])
def test_sound_embeddings_contain_no_labels(rows):
    sparse = np.maximum(sides()[0] - 3, 0)
    sexes = np.dstack([sides()[0], number() % 2])
    constant = np.dstack([sides()[0], np.ones((40, ROWS, 2), np.float32)])
    for samples in (sides()[0], sparse, sexes, constant, clusters(0.3, n=40)):
        assert not health.contains_labels(embeddings("toy", "face", samples[:, :rows].astype(np.float32)))


def turned(x: np.ndarray) -> np.ndarray:
    return x @ np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))[0]


@pytest.mark.parametrize(
    "copy",
    [
        lambda x: x, lambda x: -7 * x, lambda x: (x / 3).astype(np.float16), turned, lambda x: x[..., ::-1],
        lambda x: (x - x.mean((0, 1))) / x.std((0, 1)), lambda x: np.dstack([x, np.zeros_like(x)]), lambda x: x[:, :2],
    ],
)  # fmt: skip
def test_the_same_vectors_on_both_sides_are_found(copy):
    face, voice = sides()
    copied, other = embeddings("b", "voice", copy(face)), embeddings("c", "voice", copy(voice))
    found = health.doubts_of_pairs([embeddings("a", "face", face), copied, other])
    assert found == {("a", "b"): (health.SAME_VECTORS,), ("a", "c"): ()}


@pytest.mark.parametrize("rename", [str.upper, lambda p: p.replace("id0", "id"), lambda p: p + "."])
def test_people_whose_names_hardly_differ_are_doubted(rename):
    face, voice = (embeddings(name, m, x) for name, m, x in zip("ab", ("face", "voice"), sides(), strict=True))
    twice = []
    for e in (face, voice):
        rows = zip(e.labels, e.samples, strict=True)
        twice.append(replace(e, labels=np.array([rename(p) if s in ("s0", "s1") else p for p, s in rows])))
    assert health.doubts_of_pairs(twice) == {("a", "b"): (health.SAME_PEOPLE,)}


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.ones((40, ROWS, 5)), "same embedding"),
        (np.abs(sides()[0][..., :1]) * np.ones(6), "same embedding"),
        (one_hot(), "not above its noise.*contain the labels"),
        (1.0 + np.eye(40)[:, None, :2] * np.ones((1, ROWS, 1)), "variation"),
    ],
)
def test_encoders_of_which_nothing_can_be_measured_say_why(samples, reason):
    assert re.search(reason, health.unmeasurable(embeddings("toy", "face", samples), seed=0))


def test_a_single_dimension_can_be_measured():
    assert health.unmeasurable(embeddings("toy", "face", sides()[0][..., :1]), seed=0) is None
