from __future__ import annotations

import csv
import dataclasses
import io
import json

import pytest
from toy import few_shuffles, write_population

import encsel
from encsel.storage.result import FORMATS, render


@pytest.fixture(scope="module")
def extrapolated(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        few_shuffles(monkeypatch)
        data = write_population(tmp_path_factory.mktemp("set"), 30, faces=1, voices=1, shared=3.0)
        return encsel.rank(data, regression="upadhyay2026-ln", cache=None)


def test_json_has_the_keys_of_schema_rank_2(ranking):
    document = json.loads(render(ranking, "json"))
    assert set(document) == {
        "schema", "signature", "signature_text", "ordered_by", "scorer", "coverage", "n_train_identities",
        "n_train_samples", "n_probe_samples", "layout", "calibration", "decision", "judged_by", "regressions",
        "encoders", "pairs", "failures", "notes", "verdict", "sha256",
    }  # fmt: skip
    assert document["schema"] == "encsel.rank/2"
    assert set(document["calibration"]) == {"n_identities", "n_face_samples", "n_voice_samples", "skipped"}
    assert set(document["pairs"][0]) == {
        "rank", "places", "face", "voice", "predicted_eer", "interval", "coverage", "p_best", "expected_loss", "reason",
        "predictions", "cross_validated", "null", "cka", "id_mismatch", "joint_space", "flags",
    }  # fmt: skip
    assert {"biased", "debiased", "matched", "null_p"} <= set(document["pairs"][0]["cka"])
    assert {"name", "modality", "dim", "intrinsic_dimension", "unimodal_eer", "health"} <= set(document["encoders"][0])
    assert document["verdict"] == {"status": "none", "gates": []}


def test_json_keeps_full_precision_and_the_table_rounds(ranking):
    first = ranking.best
    assert json.loads(render(ranking, "json"))["pairs"][0]["predicted_eer"] == first.predicted_eer
    assert f"{first.predicted_eer:.3f}" in render(ranking, "table")


def test_signature_is_the_last_line_on_screen_and_a_dict_in_json(ranking):
    assert render(ranking, "table").replace("\n  ", " ").splitlines()[-1] == ranking.signature_text
    assert f"Signature {ranking.signature_id[:12]}." in render(ranking, "table", wide=False).splitlines()[-1]
    assert ranking.signature_text in render(ranking, "markdown").splitlines()[-1]
    assert json.loads(render(ranking, "json"))["signature"]["id"] == ranking.signature_id


def test_csv_has_one_line_a_pair_and_its_numbers(ranking):
    lines = list(csv.DictReader(io.StringIO(render(ranking, "csv"))))
    assert len(lines) == len(ranking.pairs)
    assert float(lines[0]["predicted_eer"]) == ranking.best.predicted_eer
    assert float(lines[0]["upadhyay2026 eer"]) == ranking.best.predictions["upadhyay2026"].eer
    assert lines[0]["signature"] == ranking.signature_id


def test_csv_leaves_missing_values_empty(extrapolated):
    lines = list(csv.DictReader(io.StringIO(render(extrapolated, "csv"))))
    assert lines[0]["predicted_eer"] == lines[0]["interval_low"] == ""
    assert lines[0]["reason"]


def test_csv_cells_never_start_a_formula(ranking):
    pair = dataclasses.replace(ranking.best, face="=HYPERLINK(1)")
    lines = list(csv.DictReader(io.StringIO(render(dataclasses.replace(ranking, pairs=(pair,)), "csv"))))
    assert lines[0]["face"] == "'=HYPERLINK(1)"


def test_markdown_is_a_table_whose_cells_cannot_break_it(ranking):
    pair = dataclasses.replace(ranking.best, face="a|b")
    lines = render(dataclasses.replace(ranking, pairs=(pair,)), "markdown").splitlines()
    assert lines[2].count("|") == lines[4].count("|") - lines[4].count("\\|")


def test_extrapolated_numbers_stand_in_brackets_and_grey(extrapolated):
    eer = extrapolated.best.predictions["upadhyay2026-ln"].eer
    assert f"({eer:.3f})" in render(extrapolated, "table")
    assert f"\x1b[2m({eer:.3f})" in render(extrapolated, "table", colour=True).replace(" ", "")


def test_names_with_markup_are_printed_as_they_are(ranking):
    pair = dataclasses.replace(ranking.best, face="[red]x[/red]")
    changed = dataclasses.replace(ranking, pairs=(pair,))
    assert "[red]x[/red]" in render(changed, "table")
    assert "<red>" not in render(dataclasses.replace(ranking, pairs=(dataclasses.replace(pair, face="<red>"),)), "html")


def test_every_flag_letter_has_a_line_in_the_legend(extrapolated):
    for wide in (True, False):
        table = render(extrapolated, "table", wide=wide)
        lines = table.splitlines()
        row = lines[1 + next(i for i, line in enumerate(lines) if line.strip().startswith("──"))]
        letters = (
            row.split()[-1] if wide else "".join(word for word in row.split() if len(word) == 1 and word.isalpha())
        )
        assert letters
        assert all(f"\n{letter}: " in table for letter in letters), (wide, row)


@pytest.mark.parametrize("form", [*FORMATS, "html"])
def test_every_format_ends_with_one_newline_and_names_no_person(ranking, form):
    text = render(ranking, form)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert "id0001" not in text
