"""Joint training of projections: held-out people, the control, the stage, and the example of the docs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from threadpoolctl import threadpool_limits
from toy import few_shuffles, people

import encsel
from encsel.data.embedding_files import read_embeddings
from encsel.errors import BadCalibration
from encsel.matching.axes import Side
from encsel.matching.folds import folds_of
from encsel.matching.joint import JointTraining, joint_training, with_voices_of_others
from encsel.matching.projections import project_centroids
from encsel.storage.result import render
from encsel.validation.validate import wanted_stages

N = 150
SCRIPT = Path(__file__).parents[1] / "pretrained_regression" / "joint_training.py"


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


def pair(shared: float, *, n: int = N, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, dim) faces and voices that share weak directions below a few strong private ones."""
    rng = np.random.default_rng(seed)
    trait = shared * rng.normal(size=(n, 4))
    sides = []
    for dim in (24, 20):
        private = 6 * rng.normal(size=(n, 3)) @ rng.normal(size=(3, dim))
        sides.append(trait @ rng.normal(size=(4, dim)) + private + rng.normal(size=(n, dim)))
    return sides[0], sides[1]


def trained(face: np.ndarray, voice: np.ndarray) -> JointTraining:
    folds = folds_of(len(face), n_repeats=1, seed=0)
    sides = project_centroids(face, folds), project_centroids(voice, folds)
    return joint_training(face, voice, sides, folds, seed=0)


def test_training_raises_the_cka_of_held_out_people_and_its_control_does_not():
    found = trained(*pair(1.5))
    assert abs(found.cka) < 0.15
    assert found.after.cka > 0.7
    assert abs(found.control.cka) < 0.3
    assert found.after.eer < 0.2 < 0.4 < found.control.eer
    assert found.after.eer < found.eer["reference"] / 2
    low, high = found.after.interval
    assert low < found.after.eer < high
    assert (found.n_train, found.n_test, found.n_repeats) == (120, 30, 1)


@pytest.mark.parametrize("seed", range(3))
def test_at_chance_training_raises_nothing_on_held_out_people(seed):
    face, voice = pair(1.5, seed=seed)
    found = trained(face, voice[np.random.default_rng(seed).permutation(N)])
    assert (found.after.cka or 0) < 0.15
    assert found.after.eer > 0.4


def test_projections_that_found_nothing_have_no_cka_and_an_eer_of_chance():
    rng = np.random.default_rng(3)
    face = np.repeat(rng.normal(size=(N // 2, 1)), 2, axis=0)
    voice = np.tile([[1.0], [-1.0]], (N // 2, 1)) + 0.01 * rng.normal(size=(N, 1))
    found = trained(face, voice)
    assert found.after.eer == pytest.approx(0.5, abs=0.02)
    assert found.after.cka is None or abs(found.after.cka) < 0.1


def test_every_training_voice_of_the_control_is_that_of_another_person():
    rows = np.arange(7.0)[:, None]
    for seed in range(5):
        moved = with_voices_of_others(Side(rows, rows[:2], np.ones(1)), np.random.default_rng(seed))
        assert sorted(moved.train.ravel()) == list(range(7))
        assert not (moved.train == rows).any()
        assert (moved.test == rows[:2]).all()


def test_too_few_people_in_a_fold_are_a_reason():
    with pytest.raises(BadCalibration, match="2 identities; CKA needs at least 4"):
        trained(*(side[:10] for side in pair(1.0)))


def test_the_stage_runs_only_when_it_is_named():
    assert "joint" not in wanted_stages([], [])
    assert "joint" not in wanted_stages(["gw"], [])
    assert "joint" in wanted_stages([], ["joint", "matching"])


def test_the_stage_is_in_table_and_document():
    who = people(40)
    data = encsel.CalibrationSet.from_arrays(*({"a": (side, who)} for side in pair(2.0, n=40)))
    found = encsel.validate(data, only=["joint"], cache=None)
    section = render(found, "markdown").split("## What joint training does")[1]
    header, row = (section.splitlines()[i].split("|") for i in (2, 4))
    cells = {heading.strip(): cell.strip() for heading, cell in zip(header, row, strict=True)}
    joint = found.to_dict()["pairs"][0]["joint"]
    assert joint["after"]["cka"] > joint["cka"]
    assert cells["CKA after"] == f"{joint['after']['cka']:.3f}"
    assert cells["EER control"] == f"{joint['control']['eer']:.3f}"
    assert "8 held-out people per fold, 32 to train on" in section


@pytest.mark.robust
def test_one_command_makes_the_example_of_the_docs(tmp_path, monkeypatch):
    few_shuffles(monkeypatch)
    spec = importlib.util.spec_from_file_location("joint_training", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    options = ["--output", str(tmp_path), "--people", "80", "--kind", "strong"]
    result = CliRunner().invoke(script.main, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines() if "|" in line][2:]
    assert [row[:2] for row in rows] == [
        ["before training", "held out"], ["joint training", "held out"],
        ["with the voices of others", "held out"], ["with the voices of others", "as trained on"],
    ]  # fmt: skip
    assert rows[0][-1] == "-"
    assert float(rows[1][-1]) < 0.4 < float(rows[2][-1])
    paths = (tmp_path / folder / "faces" / "face.npz" for folder in ("after", "control-trained"))
    held_out, trained_on = (read_embeddings(path, "face")[0] for path in paths)
    assert held_out.traits.space == script.SPACE
    assert not set(held_out.identities) & set(trained_on.identities)
    assert (len(held_out.identities), len(trained_on.identities)) == (20, 60)
