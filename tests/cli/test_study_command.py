"""encsel study on the command line."""

from __future__ import annotations

import json
import shutil

import pytest

from encsel.storage.documents import cards_folder

FILES = [f"{kind}_{name}.csv" for kind in ("encoders", "pairs") for name in ("voxceleb1", "mavceleb")]


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "figures"
    made.mkdir()
    for name in FILES:
        shutil.copy(cards_folder() / name, made / name)
    return made


def test_study_prints_the_published_tables_and_nothing_else(call, folder):
    code, out, err = call("study")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["clip", "wavlm", "0.007", "0.416", "0.211", "23.015", "0.244"] in rows
    assert "CORRELATIONS WITH THE EER, VOXCELEB1 (12 PAIRS)" in out
    assert "naive p of Spearman: cka 0.0017, id_mismatch 0.0252" in out
    assert call("study", folder) == (0, out, "")


def test_study_prints_markdown(call):
    code, out, _ = call("study", "--format", "markdown")
    assert code == 0
    assert out.startswith("## Table 1, VoxCeleb1: geometry of the encoders\n")
    assert "| clip | wavlm | 0.007 | 0.416 | 0.211 | 23.015 | 0.244 |" in out


def test_missing_folder_is_a_usage_error_that_names_it(call, tmp_path):
    code, out, err = call("study", tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert "nowhere" in err


def test_file_in_place_of_the_folder_is_a_usage_error(call, folder):
    code, out, err = call("study", folder / FILES[0])
    assert (code, out) == (2, "")
    assert FILES[0] in err


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_a_usage_error_that_names_it(call, folder, name):
    (folder / name).unlink()
    code, out, err = call("study", folder)
    assert (code, out) == (2, "")
    assert name in err


@pytest.mark.parametrize(("name", "column"), [("encoders_mavceleb.csv", "id_mle"), ("pairs_voxceleb1.csv", "eer")])
def test_missing_column_is_a_usage_error_that_names_it(call, folder, name, column):
    path = folder / name
    path.write_text(path.read_text().replace(column, "other", 1))
    code, out, err = call("study", folder)
    assert (code, out) == (2, "")
    assert column in err
    assert name in err


def test_study_prints_its_document_and_writes_a_report(call, folder, tmp_path):
    path = folder / "pairs_voxceleb1.csv"
    # A pair is missing, and a name is markup.
    header, _, *rows = path.read_text().replace("clip", "<b>clip").splitlines(keepends=True)
    path.write_text("".join((header, *rows)))
    code, out, err = call("study", folder, "--format", "json", "--report", tmp_path / "report")
    assert (code, err) == (0, f"Report: {tmp_path / 'report' / 'index.html'}\n")
    assert (tmp_path / "report" / "study.json").read_text(encoding="utf-8") == out
    assert len(json.loads(out)["pairs"]) == 23
    drawn = {p.stem: p.read_bytes()[:4] for p in (tmp_path / "report" / "figures").iterdir()}
    assert drawn == dict.fromkeys(("against-eer", "cka", "curvature", "gw"), b"\x89PNG")
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 4
    # Four panels on VoxCeleb1 and four on MAV-Celeb.
    assert page.count("Spearman ") >= 8
    assert "<b>" not in page
    assert "mathdefault" not in page


def test_report_that_cannot_be_written_is_a_usage_error(call, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "figures").write_text("")
    code, out, err = call("study", "--report", tmp_path / "report")
    assert (code, out) == (2, "")
    assert "cannot be written" in err


def test_unknown_format_names_the_known_ones(call):
    code, out, err = call("study", "--format", "csv")
    assert (code, out) == (2, "")
    assert "markdown" in err
