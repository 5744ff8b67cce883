"""What a run writes is written once, and is nothing that it reads: refused before any work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from encsel.cli.output import check_apart


@pytest.fixture
def folder(ready, tmp_path, monkeypatch) -> Path:
    """The folder that encsel runs in, with a set."""
    shutil.copytree(ready, tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("sub")
    return tmp_path


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(call, folder: Path, *arguments: str, says: str) -> None:
    before = files(folder)
    code, out, err = call(*arguments)
    assert (code, out) == (2, ""), err
    assert says in err
    assert "Layout" not in err
    assert files(folder) == before


@pytest.mark.parametrize(
    "outputs",
    [
        "-o a.json -o a.json", "-o a.json -o ./sub/../a.json", "-o sub/a.json -o link/a.json", "-o a.json -o to-a.json",
        "--report r -o r/validation.json", "--report sub -o link/validation.json", "--report r.json -o r.json",
        "--report r -o r/pairs.csv", "--scores r.txt -o r.txt",
    ],
)  # fmt: skip
def test_two_outputs_of_one_name_are_refused(call, folder, outputs):
    (folder / "r").mkdir()
    (folder / "to-a.json").symlink_to("a.json")
    refused(call, folder, "validate", "set", *outputs.split(), says="would be written twice by this run")


@pytest.mark.parametrize(
    "arguments",
    [
        "rank set --baseline b.json --max-regression 0.1 -o b.json",
        "rank set --baseline to-b.json --max-regression 0.1 -o b.json",
        "rank set --baseline b.json --max-regression 0.1 -o to-b.json",
        "rank set --baseline link/c.json --max-regression 0.1 -o sub/c.json",
        "validate set --baseline r/validation.json --max-regression 0.1 --report r",
        "validate set --report set", "validate set --scores ./set",
        "rank set.csv -o set.csv", "rank set -o set/manifest.csv", "rank set -o set/faces/face0.csv",
        "rank set -o set/vox1_meta.csv", "rank set --regression b.json -o b.json", "rank set -o to-settings.json",
        "rank set --face face.npy -o face.csv", "rank set --face clip:sub -o sub/preprocessor_config.json",
        "rank set -o weights.json",
        "fit b.json -o b.json", "fit b.csv b.json -o ./b.csv",
        "embed set --output set", "embed set --output link/../set", "embed other --voice out/voices/v.npz --output out",
    ],
)  # fmt: skip
def test_an_output_that_is_an_input_is_refused(call, folder, monkeypatch, arguments):
    monkeypatch.setenv("ENCSEL_WEIGHTS", "weights.json")
    for name in (
        "b.json",
        "b.csv",
        "sub/c.json",
        "r/validation.json",
        "sub/preprocessor_config.json",
        "set/faces/face0.csv",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    (folder / "to-b.json").symlink_to("b.json")
    (folder / "to-settings.json").symlink_to("encsel.toml")
    (folder / "encsel.toml").write_text("")
    refused(call, folder, *arguments.split(), says="is an input of this run, which would overwrite it")


def test_a_baseline_and_an_output_of_the_settings_are_kept_apart(call, folder):
    (folder / "encsel.toml").write_text("output = 'b.json'\n[gates]\nbaseline = 'b.json'\nmax-regression = 0.1\n")
    refused(call, folder, "rank", "set", says="b.json is an input of this run")


def test_a_set_may_hold_results_and_a_report_scores(folder):
    check_apart([Path("set/ranking.json"), Path("sub/a.json")], [Path("sub"), Path("sub")], inputs=[Path("set")])


def test_a_result_in_the_set_is_written_again(call, folder):
    for _ in range(2):
        code, _, err = call("rank", "set", "-q", "--no-cache", "-o", "set/ranking.json", "-o", "set/ranking.csv")
        assert code == 0, err
