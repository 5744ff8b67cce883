"""Choosing people and samples by seed and name."""

from __future__ import annotations

import numpy as np
import pytest

from encsel.core import Embeddings, Modality
from encsel.data.sampling import limit_rows, pick

NAMES = [f"p{i:03d}" for i in range(50)]


def embeddings(
    labels: list[str], samples: list[str], *, name: str = "toy", modality: Modality = "face", dim: int = 3
) -> Embeddings:
    vectors = np.random.default_rng(0).standard_normal((len(labels), dim)).astype(np.float32)
    return Embeddings(name, modality, vectors, np.array(labels, np.str_), np.array(samples, np.str_))


def kept(result: Embeddings) -> set[tuple[str, str]]:
    return set(zip(result.labels.tolist(), result.samples.tolist(), strict=True))


def test_pick_ignores_order() -> None:
    shuffled = np.random.default_rng(1).permutation(NAMES).tolist()
    assert {NAMES[i] for i in pick(NAMES, 10, seed=3)} == {shuffled[i] for i in pick(shuffled, 10, seed=3)}


def test_pick_is_ascending_and_distinct() -> None:
    chosen = pick(NAMES, 20, seed=0).tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 20


def test_pick_depends_on_the_seed() -> None:
    assert pick(NAMES, 10, seed=0).tolist() != pick(NAMES, 10, seed=1).tolist()


def test_a_larger_pick_contains_the_smaller() -> None:
    assert set(pick(NAMES, 5, seed=2)) <= set(pick(NAMES, 6, seed=2))


def test_pick_takes_all_when_there_are_no_more() -> None:
    assert pick(NAMES, 50, seed=0).tolist() == list(range(50))
    assert pick(NAMES, 99, seed=0).tolist() == list(range(50))
    assert pick([], 3, seed=0).tolist() == []


def test_adding_a_key_displaces_at_most_one() -> None:
    before = {NAMES[i] for i in pick(NAMES, 10, seed=0)}
    more = [*NAMES, "another"]
    assert len(before - {more[i] for i in pick(more, 10, seed=0)}) <= 1


def test_every_key_is_picked_equally_often() -> None:
    counts = np.zeros(len(NAMES))
    for seed in range(400):
        counts[pick(NAMES, 10, seed=seed)] += 1
    # Binomial(400, 0.2): mean 80, sd 8; five sd for 50 keys.
    assert np.abs(counts - 80).max() < 40


@pytest.mark.parametrize("seed", [-1, 10**80])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    assert len(pick(NAMES, 10, seed=seed)) == 10


def test_pick_takes_names_that_are_not_utf8() -> None:
    assert len(pick(["a\udcff", "b", "c"], 2, seed=0)) == 2


def test_limit_rows_keeps_at_most_the_limit_of_each_person() -> None:
    labels = ["a"] * 5 + ["b"] * 2 + ["a"] * 4
    limited = limit_rows(embeddings(labels, [str(i) for i in range(11)]), 3, seed=0)
    assert {p: limited.labels.tolist().count(p) for p in "ab"} == {"a": 3, "b": 2}


def test_limit_rows_keeps_the_same_samples_for_both_encoders_of_a_modality() -> None:
    labels, samples = ["a"] * 8 + ["b"] * 8, [f"s{i}" for i in range(16)]
    order = np.random.default_rng(5).permutation(16)
    one = embeddings(labels, samples, name="one")
    other = embeddings([labels[i] for i in order], [samples[i] for i in order], name="other", dim=7)
    assert kept(limit_rows(one, 3, seed=4)) == kept(limit_rows(other, 3, seed=4))


def test_limit_rows_draws_apart_for_each_person_and_modality() -> None:
    labels, samples = ["a"] * 20 + ["b"] * 20, [f"s{i:02d}" for i in range(20)] * 2
    faces = kept(limit_rows(embeddings(labels, samples), 5, seed=0))
    voices = kept(limit_rows(embeddings(labels, samples, modality="voice"), 5, seed=0))
    assert faces != voices
    assert {s for p, s in faces if p == "a"} != {s for p, s in faces if p == "b"}


def test_limit_rows_keeps_vectors_with_their_samples() -> None:
    full = embeddings(["a"] * 9, [str(i) for i in range(9)])
    limited = limit_rows(full, 4, seed=0)
    np.testing.assert_array_equal(limited.vectors, full.vectors[limited.samples.astype(int)])


def test_limit_rows_of_no_rows_is_no_rows() -> None:
    assert limit_rows(embeddings([], []), 3, seed=0).vectors.shape == (0, 3)
