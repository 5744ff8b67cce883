"""The option --report, which writes a page."""

from __future__ import annotations

import html

import pytest

from encsel.cli.output import _FOLDERS


@pytest.mark.parametrize("command", [("rank",), ("validate", "--only", "matching")], ids=["rank", "validate"])
def test_a_report_names_the_set_and_the_command_but_no_folder(call, population, tmp_path, command):
    folder, document = tmp_path / "report", tmp_path / "result.json"
    options = ("--quiet", "--no-cache", "--report", folder, "-o", document)
    code, _, err = call(*command, population, *options)
    assert (code, err) == (0, "")
    page = html.unescape((folder / "index.html").read_text())
    assert f"<h1>{population.name}</h1>" in page
    typed = f"encsel {' '.join(command)} {population.name} --quiet --no-cache --report report -o result.json"
    assert f"<code>{typed}</code>" in page
    assert str(tmp_path.parent) not in page
    name = "ranking.json" if command[0] == "rank" else "validation.json"
    assert (folder / name).read_text() == document.read_text()


@pytest.mark.parametrize(("typed", "told"), [
    ("/home/me/set", "set"), ("~/x/set", "set"), ("../../x/r.json", "r.json"), (r"C:\x\r.json", "r.json"),
    ("--output=/x/r.json", "--output=r.json"), ("-o/x/r.json", "-or.json"), ("onnx:/x/a.onnx@k=1", "onnx:a.onnx@k=1"),
    ("facenet/ecapa", "facenet/ecapa"), ("hf:openai/clip@layer=6", "hf:openai/clip@layer=6"),
])  # fmt: skip
def test_folders_of_paths_are_left_out_of_the_command_and_names_with_slashes_stay(typed, told):
    assert _FOLDERS.sub("", typed) == told


def test_a_report_that_cannot_be_written_is_told_and_the_result_printed(call, population, tmp_path):
    (tmp_path / "report").write_text("a file")
    code, out, err = call("rank", population, "--quiet", "--no-cache", "--report", tmp_path / "report" / "sub")
    assert code == 2
    assert "cannot be written" in err
    assert "Predicted" in out
