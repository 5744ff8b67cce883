from __future__ import annotations

import csv
import dataclasses
import io
import json

import pytest
from toy import write_population

import encsel
from encsel.reports.ranking import FORMATS, as_csv, as_json, as_markdown, as_table, render


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return encsel.rank(write_population(tmp_path_factory.mktemp("set"), 60, shared=1.0))


@pytest.fixture(scope="module")
def extrapolated(tmp_path_factory):
    data = write_population(tmp_path_factory.mktemp("set"), 60, shared=3.0)
    return encsel.rank(data, regression="upadhyay2026-ln")


def test_json_has_the_keys_of_schema_rank_1(report):
    document = json.loads(as_json(report))
    assert set(document) == {
        "schema", "signature", "signature_text", "ordered_by", "scorer", "layout", "calibration", "regressions",
        "encoders", "pairs", "failures", "notes", "verdict",
    }  # fmt: skip
    assert document["schema"] == "encsel.rank/1"
    assert set(document["calibration"]) == {"n_identities", "n_face_samples", "n_voice_samples", "skipped"}
    assert set(document["pairs"][0]) == {
        "rank", "rank_group", "face", "voice", "predicted_eer", "interval", "coverage", "p_best", "reason",
        "predictions", "cross_validated", "null", "cka", "id_mismatch", "joint_space", "flags",
    }  # fmt: skip
    assert {"biased", "debiased", "matched", "null_p"} <= set(document["pairs"][0]["cka"])
    assert {"name", "modality", "dim", "intrinsic_dimension", "unimodal_eer", "health"} <= set(document["encoders"][0])
    assert document["verdict"] == {"status": "none", "gates": []}


def test_json_keeps_full_precision_and_the_table_rounds(report):
    first = report.pairs[0]
    assert json.loads(as_json(report))["pairs"][0]["predicted_eer"] == first.predicted_eer
    assert f"{first.predicted_eer:.3f}" in as_table(report)


def test_signature_is_the_last_line_on_screen_and_a_dict_in_json(report):
    assert as_table(report).splitlines()[-1] == report.signature_text
    assert report.signature_text in as_markdown(report).splitlines()[-1]
    assert json.loads(as_json(report))["signature"]["id"] == report.signature["id"]


def test_csv_has_one_line_a_pair_and_its_numbers(report):
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert len(rows) == len(report.pairs)
    assert float(rows[0]["predicted_eer"]) == report.pairs[0].predicted_eer
    assert float(rows[0]["upadhyay2026 eer"]) == report.pairs[0].predictions["upadhyay2026"].eer
    assert rows[0]["signature"] == report.signature["id"]


def test_csv_leaves_missing_values_empty(extrapolated):
    rows = list(csv.DictReader(io.StringIO(as_csv(extrapolated))))
    assert rows[0]["predicted_eer"] == rows[0]["interval_low"] == ""
    assert rows[0]["reason"]


def test_csv_cells_never_start_a_formula(report):
    pair = dataclasses.replace(report.pairs[0], face="=HYPERLINK(1)")
    rows = list(csv.DictReader(io.StringIO(as_csv(dataclasses.replace(report, pairs=(pair,))))))
    assert rows[0]["face"] == "'=HYPERLINK(1)"


def test_markdown_is_a_table_whose_cells_cannot_break_it(report):
    pair = dataclasses.replace(report.pairs[0], face="a|b")
    lines = as_markdown(dataclasses.replace(report, pairs=(pair,))).splitlines()
    assert lines[0].count("|") == lines[2].count("|") - lines[2].count("\\|")


def test_extrapolated_numbers_stand_in_brackets_and_grey(extrapolated):
    said = extrapolated.pairs[0].predictions["upadhyay2026-ln"].eer
    assert f"({said:.3f})" in as_table(extrapolated)
    assert f"\x1b[2m({said:.3f})" in as_table(extrapolated, colour=True).replace(" ", "")


def test_names_with_markup_are_printed_as_they_are(report):
    pair = dataclasses.replace(report.pairs[0], face="[red]x[/red]")
    assert "[red]x[/red]" in as_table(dataclasses.replace(report, pairs=(pair,)))


def test_every_flag_letter_has_a_line_in_the_legend(extrapolated):
    table = as_table(extrapolated)
    letters = table.splitlines()[5].split()[-1]
    assert letters
    assert all(f"\n{letter}: " in table for letter in letters)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_ends_with_one_newline(report, form):
    text = render(report, form)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@pytest.mark.parametrize("form", FORMATS)
def test_no_identity_appears_in_any_format(report, form):
    assert "id0001" not in render(report, form)
