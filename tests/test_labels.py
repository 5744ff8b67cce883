"""Samples that are not of the people they are named after: found where they are, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from toy import embeddings

from encsel.embedding.labels import ABLE, misplaced, notes_on_labels, twins_of

N, ROWS, DIM = 40, 10, 64


def clusters(seed: int = 0, *, n: int = N, rows: int = ROWS) -> np.ndarray:
    """(people, rows, DIM) of an encoder with a verification EER of about 0.02."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1, DIM)) + 0.8 * rng.normal(size=(n, rows, DIM))


def of(samples: np.ndarray, modality: str = "face"):
    return embeddings("toy", modality, samples.astype(np.float32))


def notes(face: np.ndarray, voice: np.ndarray) -> list[str]:
    return notes_on_labels([of(face), of(voice, "voice")])


def swapped() -> np.ndarray:
    samples = clusters()
    samples[[3, 7], :2] = samples[[7, 3], :2]
    samples[[20, 31], 0] = samples[[31, 20], 0]
    return samples


def test_sound_labels_are_not_doubted():
    found = misplaced(of(clusters()))
    assert (found.like_another, found.like_nobody, found.people) == (0, 0, ())
    assert twins_of(of(clusters())) == set()
    assert notes(clusters(), clusters(1)) == []


def test_samples_of_others_are_counted_and_their_people_numbered():
    found = misplaced(of(swapped()))
    assert found.like_another == pytest.approx(6 / (N * ROWS))
    assert found.people == (4, 8, 21, 32)
    (note,) = notes(swapped(), clusters(1))
    assert note.startswith("2 % of the face samples are like another person")
    assert "4, 8, 21, 32" in note


def test_samples_of_nobody_are_counted():
    samples, rng = clusters(), np.random.default_rng(5)
    samples[:, 0] = rng.normal(size=DIM) * 2 + 0.5 * rng.normal(size=(N, DIM))
    found = misplaced(of(samples))
    assert found.like_another == 0
    assert found.like_nobody == pytest.approx(0.1, abs=0.01)
    (note,) = notes(clusters(1), samples)
    assert note.startswith("10 % of the voice samples are like nobody")


def test_one_person_under_two_names_is_found_where_both_look_and_sound_alike():
    face, voice = clusters(), clusters(1)
    rng = np.random.default_rng(2)
    for side in (face, voice):
        side[11] = side[5].mean(axis=0) + 0.8 * rng.normal(size=(ROWS, DIM))
    assert twins_of(of(face)) == {(6, 12)}
    (note,) = notes(face, voice)
    assert "6 and 12" in note
    assert notes(face, clusters(1)) == []


def test_an_encoder_that_hardly_verifies_accuses_nobody():
    noisy = swapped() + 2.5 * np.random.default_rng(4).normal(size=(N, ROWS, DIM))
    assert misplaced(of(noisy)).eer > ABLE
    assert misplaced(of(noisy)).like_another > 0.01
    assert notes(noisy, noisy) == []


def test_people_of_few_samples_are_left_out():
    assert misplaced(of(clusters(rows=2))) is None
    assert twins_of(of(clusters(rows=5))) == set()
