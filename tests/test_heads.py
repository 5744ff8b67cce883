"""Trained heads: they learn what is shared and nothing else, alike for one seed; the stage runs on request only."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_stages import work_of
from toy import embeddings, population, write_population

import encsel
from encsel.errors import BadCalibration
from encsel.matching import heads
from encsel.matching.axes import Side
from encsel.matching.eer import eer
from encsel.matching.folds import folds_of
from encsel.matching.heads import COMPARED, HEADS, MIN_TO_TRAIN, train_head
from encsel.matching.projections import project_centroids
from encsel.matching.scorers import split_scores
from encsel.reports import validation as _  # noqa: F401 - registers how a validation is shown
from encsel.storage.documents import cards_folder
from encsel.storage.result import render
from encsel.validation.stage import SKIPPED, stages
from encsel.validation.validate import wanted_stages

KINDS = tuple(HEADS)
FITTED, TESTED = 100, 60


def sides(*, shuffled: bool = False, seed: int = 0) -> tuple[Side, Side]:
    """A face and a voice encoder of FITTED people, then TESTED others."""
    face, voice = (side.mean(axis=1) for side in population(FITTED + TESTED, shared=3.0, seed=seed))
    if shuffled:
        voice = np.random.default_rng(seed).permutation(voice)
    folds = [[(np.arange(FITTED), np.arange(FITTED, FITTED + TESTED))]]
    (((face_side,),), ((voice_side,),)) = (project_centroids(x, folds) for x in (face, voice))
    return face_side, voice_side


def scores_of(face: Side, voice: Side, kind: heads.HeadKind, *, seed: int = 0) -> np.ndarray:
    return train_head(face.train, voice.train, kind=kind, seed=seed).scores(face.test, voice.test)


@pytest.fixture
def short(monkeypatch) -> None:
    monkeypatch.setattr(heads, "MAX_EPOCHS", 3)


@pytest.mark.parametrize("kind", KINDS)
def test_head_finds_what_faces_and_voices_share(kind, monkeypatch):
    monkeypatch.setattr(heads, "MAX_EPOCHS", 80)
    scores = scores_of(*sides(), kind)
    assert np.abs(scores).max() <= 1 + 1e-9
    assert eer(*split_scores(scores)) < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_head_of_shuffled_people_is_at_chance_on_others(kind, monkeypatch):
    monkeypatch.setattr(heads, "MAX_EPOCHS", 40)
    # 3 x 60 test people: standard deviation of the mean about 0.03.
    rates = [eer(*split_scores(scores_of(*sides(shuffled=True, seed=seed), kind))) for seed in range(3)]
    assert np.mean(rates) == pytest.approx(0.5, abs=0.09)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_the_same_head_also_in_several_threads_and_leaves_torch_as_it_was(kind, short):
    import torch

    face, voice = sides()
    before, n_threads = torch.get_rng_state(), torch.get_num_threads()
    first = scores_of(face, voice, kind)
    with ThreadPoolExecutor(2) as threads:
        others = list(threads.map(lambda _: scores_of(face, voice, kind), range(4)))
    assert all(np.array_equal(first, other) for other in others)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == n_threads
    assert not np.array_equal(first, scores_of(face, voice, kind, seed=1))


@pytest.mark.parametrize("kind", KINDS)
def test_scale_of_an_encoder_has_no_effect(kind, short):
    face, voice = sides()
    scaled = Side(face.train * 1024, face.test * 1024, face.sd * 1024)
    assert np.array_equal(scores_of(scaled, voice, kind), scores_of(face, voice, kind))


def test_best_weights_are_kept_when_training_stops(monkeypatch):
    # With shuffled people the loss on those held out soon rises, so more epochs change nothing.
    face, voice = sides(shuffled=True)
    stopped = scores_of(face, voice, "mlp")
    monkeypatch.setattr(heads, "MAX_EPOCHS", 10_000)
    assert np.array_equal(scores_of(face, voice, "mlp"), stopped)


def test_too_few_people_to_train_are_refused_with_the_number_needed():
    face, voice = sides()
    n = MIN_TO_TRAIN - 1
    with pytest.raises(BadCalibration, match=f"{n} people to train a head on; at least {MIN_TO_TRAIN} .*Add people"):
        train_head(face.train[:n], voice.train[:n], kind="linear", seed=0)


# --- the stage


def test_stage_runs_only_if_named():
    assert stages()["head"].on_request
    assert "head" not in wanted_stages([], [])
    assert wanted_stages(["head"], []) == wanted_stages([], [])
    assert "head" not in wanted_stages(["gw"], [])
    assert "head" in wanted_stages([], ["head"])


def test_stage_of_few_people_has_a_reason_and_no_numbers():
    face, voice = population(19)
    work = work_of(None, (embeddings("a", "face", face), embeddings("b", "voice", voice)))
    outcome = stages()["head"].compute(work)[("face", "a"), ("voice", "b")]["heads"]
    assert outcome.value is None
    assert "15 people to train a head on" in str(outcome.reason)


def test_stage_measures_on_the_folds_of_matching_and_is_shown(tmp_path, short):
    data = write_population(tmp_path / "set", 20, faces=1, voices=1)
    options = {"min_identities": 10, "cache": tmp_path / "cache", "protocol": "reference"}
    found = encsel.validate(data, only=["head", "matching"], **options)
    (pair,) = found.pairs
    for level, by_name in pair["heads"].levels.items():
        assert set(by_name) == set(COMPARED)
        for scorer in ("likelihood", "reference"):
            assert by_name[scorer] == pair["measured"].levels[level][scorer]
    assert (pair["heads"].n_train, pair["heads"].n_test) == (16, 4)
    document = json.loads(found.to_json(), parse_constant=pytest.fail)
    in_document = document["pairs"][0]["heads"]["levels"]["identity"]["mlp"]
    assert 0 <= in_document["eer"] <= 1
    assert all(math.isfinite(end) for end in in_document["interval"])
    header = next(line for line in render(found, "markdown").splitlines() if "EER linear" in line)
    assert all(f"{measure} {name} |" in header for measure in ("EER", "AUC", "Single") for name in COMPARED)
    again = encsel.validate(data, only=["head"], **options)
    assert again.pairs[0]["heads"] == pair["heads"]
    default = encsel.validate(data, only=["matching"], **options).pairs[0]
    assert (default["heads"], default.reasons["head"]) == (None, SKIPPED)


# --- the table of matchers


@pytest.fixture
def compare_matchers(monkeypatch):
    """The developer's script, which is not part of the package."""
    spec = importlib.util.spec_from_file_location("compare_matchers", cards_folder() / "compare_matchers.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "compare_matchers", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_few_pairs_have_a_row_each_and_of_many_there_is_the_mean(compare_matchers, tmp_path, short, monkeypatch):
    data = write_population(tmp_path / "set", 20, faces=1, voices=2)
    monkeypatch.setattr(
        compare_matchers, "protocol_folds", lambda n, protocol, seed: folds_of(n, n_repeats=1, seed=seed)
    )
    apart = list(compare_matchers.real(data))
    assert [row.label for row in apart] == ["set, face0 x voice0", "set, face0 x voice1"]
    monkeypatch.setattr(compare_matchers, "MAX_APART", 1)
    (together,) = compare_matchers.real(data)
    assert list(together.pairs) == [pair for row in apart for pair in row.pairs]
    n_columns = {line.count("|") for line in (*compare_matchers.header().splitlines(), str(apart[0]), str(together))}
    assert len(n_columns) == 1
    assert "| 2 | 16 | 4 | 1 x 5 |" in str(together)
