"""The study's tables and analysis, rebuilt from its published figures."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from jsonschema import Draft202012Validator

from encsel.errors import UsageError
from encsel.regression.analysis import Analysis, analyse
from encsel.regression.pair_tables import read_pairs
from encsel.regression.study import DATA_SETS, study
from encsel.reports.schemas import schemas
from encsel.reports.study import sections as sections_of
from encsel.reports.tables import render_sections
from encsel.storage.documents import cards_folder
from encsel.storage.sections import Section

ALL_FOUR = "cka + id_mismatch + gw_distance + spectral_gap"
FILES = [f"{kind}_{name}.csv" for kind in ("encoders", "pairs") for name in DATA_SETS]
NAIVE = "naive p of Spearman: "


@pytest.fixture(scope="module")
def sections() -> dict[str, Section]:
    return {section.title: section for section in sections_of(study())}


@pytest.fixture(scope="module")
def voxceleb() -> Analysis:
    return analyse(read_pairs([cards_folder() / "pairs_voxceleb1.csv"]), scorer="reference", seed=0)


@pytest.fixture(scope="module")
def pooled() -> Analysis:
    return analyse(read_pairs([cards_folder() / f"pairs_{n}.csv" for n in DATA_SETS]), scorer="reference", seed=0)


@pytest.fixture
def folder(tmp_path):
    """A copy of the published figures."""
    for name in FILES:
        shutil.copy(cards_folder() / name, tmp_path / name)
    return tmp_path


def row(section: Section, *names: str) -> tuple[str, ...]:
    """The cells of one row after its names."""
    (found,) = (cells[len(names) :] for cells in section.rows if cells[: len(names)] == names)
    return found


def naive(section: Section) -> dict[str, str]:
    """p-value of Spearman by column, from the last note."""
    return dict(re.findall(r"(\w+) (\d\.\d{4})", section.notes[-1].partition(NAIVE)[2]))


# Figures


def test_published_correlations_on_voxceleb_come_out(voxceleb):
    found = voxceleb.columns
    assert found["cka"].rank.spearman == pytest.approx(-0.874, abs=0.0005)
    assert found["id_mismatch"].rank.spearman == pytest.approx(-0.790, abs=0.0005)


def test_published_pooled_correlations_and_their_naive_p_come_out(pooled, sections):
    found = pooled.columns
    assert found["cka"].rank.spearman == pytest.approx(-0.606, abs=0.0005)
    assert found["id_mismatch"].rank.spearman == pytest.approx(-0.456, abs=0.0005)
    assert found["cka"].rank.p == pytest.approx(0.0017, abs=0.00005)
    assert found["id_mismatch"].rank.p == pytest.approx(0.0252, abs=0.00005)
    said = naive(sections["Correlations with the EER, both pooled (24 pairs)"])
    assert (said["cka"], said["id_mismatch"]) == ("0.0017", "0.0252")


@pytest.mark.parametrize(
    ("title", "form", "r2", "left_out"),
    [
        ("VoxCeleb1", "cka + id_mismatch", "0.840", "0.723"),
        ("VoxCeleb1", ALL_FOUR, "0.918", "0.765"),
        ("both pooled", ALL_FOUR, "0.589", "0.376"),
    ],
)
def test_published_regressions_come_out(sections, title, form, r2, left_out):
    section = sections[f"Regressions, {title}"]
    cells = dict(zip(section.header[1:], row(section, form), strict=False))
    assert (cells["R2"], cells["Pair R2"]) == (r2, left_out)


def test_regressions_equal_those_of_the_analysis_at_full_precision(voxceleb, pooled):
    of_two, of_four, of_pooled = (
        voxceleb.forms["cka + id_mismatch"], voxceleb.forms[ALL_FOUR], pooled.forms[ALL_FOUR],
    )  # fmt: skip
    assert (of_two.r2, of_two.leave_pair.r2) == pytest.approx((0.84, 0.72), abs=0.005)
    assert (of_four.r2, of_four.leave_pair.r2) == pytest.approx((0.92, 0.77), abs=0.005)
    assert (of_pooled.r2, of_pooled.leave_pair.r2) == pytest.approx((0.59, 0.38), abs=0.005)


@pytest.mark.parametrize(
    ("pair", "cells"),
    [
        (("clip", "wavlm"), ("0.007", "0.416", "0.211", "23.015", "0.244")),
        (("arcface", "hubert"), ("0.005", "0.522", "0.015", "13.758", "0.480")),
    ],
)
def test_rows_of_table_2_come_out(sections, pair, cells):
    section = sections["Table 2, VoxCeleb1: pairs and their EER"]
    assert section.header == ("Face", "Voice", "GW dist.", "Spectral gap", "CKA", "ID mismatch", "EER")
    assert row(section, *pair) == cells
    assert len(section.rows) == 12


def test_rows_of_table_1_come_out(sections):
    section = sections["Table 1, VoxCeleb1: geometry of the encoders"]
    assert row(section, "arcface") == ("face", "512", "19.5", "2.6", "0.0000", "0.0447", "-3.94", "-0.054")
    assert [len(sections[f"Table 1, {t}: geometry of the encoders"].rows) for t in DATA_SETS.values()] == [7, 7]


def test_claim_about_concentrated_curvature_is_judged_by_the_figures(sections, folder):
    title = "Table 1, VoxCeleb1: geometry of the encoders"
    assert sections[title].notes[-1] == (
        "The study says that arcface has the most concentrated curvature. These numbers contradict that: its spread is "
        "0.0447, number 5 of 7 from the smallest, which is 0.0024 (wavlm)."
    )
    path = folder / "encoders_voxceleb1.csv"
    path.write_text(path.read_text().replace("0.04468357069320605", "0.0001"))
    (changed,) = (section for section in sections_of(study(folder)) if section.title == title)
    assert "support that: its spread is 0.0001, number 1 of 7" in changed.notes[-1]


# What stands beside them


def test_every_set_has_its_analysis_after_the_tables(sections):
    sizes = {"VoxCeleb1": 12, "MAV-Celeb": 12, "both pooled": 24, "VoxCeleb1 without arcface": 9}
    expected = [
        title
        for name, n in sizes.items()
        for title in (f"Correlations with the EER, {name} ({n} pairs)", f"Regressions, {name}")
    ]
    assert list(sections)[4:] == expected
    assert all(title.startswith("Table ") for title in list(sections)[:4])


def test_names_of_encoders_alone_beat_the_published_form(sections):
    section = sections["Regressions, VoxCeleb1"]
    names, form = (row(section, x) for x in ("no geometry: face effect + voice effect", "cka + id_mismatch"))
    # R2, and R2 of one pair left out.
    assert float(names[0]) > float(form[0])
    assert float(names[2]) > float(form[2])


def test_crossed_p_is_far_above_the_published_one(sections, voxceleb):
    section = sections["Correlations with the EER, VoxCeleb1 (12 pairs)"]
    cells = dict(zip(section.header[1:], row(section, "cka"), strict=True))
    assert (cells["Spearman"], cells["Crossed p"]) == ("-0.874", "0.028")
    assert voxceleb.columns["cka"].rank.p < 0.0003


def test_rows_have_a_cell_for_each_head(sections):
    for section in sections.values():
        assert {len(cells) for cells in section.rows} == {len(section.header)}, section.title


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_sections_render_with_every_title(sections, form):
    text = render_sections(list(sections.values()), form, width=120)
    assert all((title.upper() if form == "table" else f"## {title}") in text for title in sections)


def test_document_keeps_to_its_schema_at_full_precision():
    document = json.loads(study().to_json())
    assert document["schema"] == "encsel.study/1"
    assert list(Draft202012Validator(schemas()["encsel.study/1"]).iter_errors(document)) == []
    (pair,) = (p for p in document["pairs"] if (p["data_set"], p["face"], p["voice"]) == ("VoxCeleb1", "clip", "wavlm"))
    assert (pair["eer"], pair["gw_distance"]) == (0.244144578313253, 0.006515630972957265)
    arcface = next(e for e in document["encoders"] if e["encoder"] == "arcface")
    assert arcface["log_gaussian_curvature"] == pytest.approx(-3.93715, abs=1e-5)


# Folders of one's own


def test_copy_of_the_published_figures_gives_the_same(folder, sections):
    assert sections_of(study(folder)) == list(sections.values())


def test_another_eer_moves_the_figures(folder, sections):
    path = folder / "pairs_voxceleb1.csv"
    path.write_text(path.read_text().replace("0.244144578313253", "0.444144578313253"))
    title = "Table 2, VoxCeleb1: pairs and their EER"
    (found,) = (section for section in sections_of(study(folder)) if section.title == title)
    assert row(found, "clip", "wavlm")[-1] == "0.444"
    assert found != sections[title]


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UsageError, match=re.escape(str(folder / name))):
        study(folder)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        study(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "column"), [("encoders_voxceleb1.csv", "id_twonn"), ("pairs_mavceleb.csv", "eer"),
                         ("pairs_voxceleb1.csv", "gw_distance"), ("pairs_voxceleb1.csv", "cka")],
)  # fmt: skip
def test_missing_column_is_named_with_its_file(folder, name, column):
    path = folder / name
    head, _, rest = path.read_text().partition("\n")
    path.write_text(re.sub(rf"\b{column}\b", "other", head) + "\n" + rest)
    with pytest.raises(UsageError, match=rf"{column}.*{name}|{name}.*{column}"):
        study(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has no rows"),
        (b"encoder,modality\n", "has no rows"),
        (b"\xff\xfe\x00\n\xff", "Cannot read the table of encoders"),
        (b"encoder,modality\narcface,face\n", "has no ambient_dim, id_mle"),
    ],
)
def test_table_of_encoders_that_is_none_is_a_usage_error(folder, content, says):
    (folder / "encoders_mavceleb.csv").write_bytes(content)
    with pytest.raises(UsageError, match=f"encoders_mavceleb.csv.*{says}|{says}.*encoders_mavceleb.csv"):
        study(folder)


@pytest.mark.parametrize("cell", ["much", "", "nan", "inf"])
def test_word_in_place_of_a_number_is_a_usage_error(folder, cell):
    path = folder / "encoders_voxceleb1.csv"
    path.write_text(path.read_text().replace("19.47923338681447", cell))
    with pytest.raises(UsageError, match=r"encoders_voxceleb1.csv holds a value that is not a number"):
        study(folder)


def test_short_line_of_encoders_is_a_usage_error(folder):
    path = folder / "encoders_voxceleb1.csv"
    path.write_text(path.read_text() + "lonely,face\n")
    with pytest.raises(UsageError, match=r"encoders_voxceleb1.csv holds a value that is not a number"):
        study(folder)


def test_pairs_too_few_without_the_suspect_encoder_are_a_usage_error(folder):
    for name in DATA_SETS:
        path = folder / f"pairs_{name}.csv"
        lines = [line for line in path.read_text().splitlines() if not line.startswith(("clip", "dinov2"))]
        path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError):
        study(folder)
