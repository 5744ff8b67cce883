"""Plan, explain and coverage on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from toy import people, write_population

ONE_PAIR = ("--face", "face0", "--voice", "voice0")


def with_sex(root: Path, sex: list[str]) -> Path:
    """A population of one pair, each person with the sex given."""
    write_population(root, len(sex), faces=1, voices=1)
    of_person = dict(zip(people(len(sex)), sex, strict=True))
    for path in root.rglob("*.npz"):
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
        np.savez(path, **arrays, sex=np.array([of_person[p] for p in arrays["labels"]]))
    return root


def test_rank_orders_by_the_calibrated_card_and_explains_a_pair_in_text_and_json(call, population, tmp_path):
    table = tmp_path / "ranking.txt"
    code, out, _ = call("rank", population, "--explain", "face0/voice1", "--format", "json", "--output", table)
    assert code == 0
    for words in (
        "ordered by predicted EER (encsel-likelihood)", "scorer 'reference'",
        "Null: with faces and voices of different people paired", "Why face0 x voice1", "canonical correlations",
        "d_reference", "root_cka", "shared", "level of chance 0.50", "Were scores Gaussian",
        "of the kind ", ", held least, ",
    ):  # fmt: skip
        assert words in table.read_text()
    document = json.loads(out)
    assert document["ordered_by"] == "encsel-likelihood"
    for pair in document["pairs"]:
        assert pair["places"][0] >= 1
        assert 0 <= pair["p_best"] <= 1
        assert pair["interval"][0] <= pair["predicted_eer"] <= pair["interval"][1]
        assert {"scorer", "eer", "auc", "interval"} <= set(pair["cross_validated"])
        assert set(pair["null"]) == {
            "predicted_eer", "sd", "p", "p_familywise", "n_permutations", "within", "chance", "p_across",
        }  # fmt: skip
        assert set(pair["predictions"]) == {
            "encsel-likelihood", "encsel-calibrated", "upadhyay2026-ln", "upadhyay2026",
        }  # fmt: skip
        assert all("scorer" in prediction for prediction in pair["predictions"].values())
        assert len(pair["cka"]["matched_interval"]) == 2
    assert sum(p["p_best"] for p in document["pairs"]) == pytest.approx(1)
    explanation = document["explanation"]
    assert (explanation["face"], explanation["voice"]) == ("face0", "voice1")
    assert len(explanation["canonical_correlations"]) == 12
    total = explanation["base"] + sum(part["adds"] for part in explanation["parts"])
    assert total == pytest.approx(explanation["distance"])


def test_the_card_of_the_studys_scorer_orders_by_it_and_coverage_widens_intervals(call, population, ranking):
    options = ("--regression", "encsel-calibrated", "--voice", "voice0", "--coverage", 0.6)
    document = json.loads(call("rank", population, *options, "--format", "json")[1])
    assert document["scorer"] == "reference"
    assert document["coverage"] == 0.6
    assert [p["cross_validated"]["scorer"] for p in document["pairs"]] == ["reference"] * 2
    eers = [p["predicted_eer"] for p in document["pairs"]]
    assert eers == sorted(eers)
    for pair in document["pairs"]:
        (low, high), wider = pair["interval"], ranking.pair(pair["face"], pair["voice"])
        assert pair["coverage"] == 0.6
        low_at_90, high_at_90 = wider.predictions["encsel-calibrated"].interval
        assert low_at_90 < low < high < high_at_90


def test_a_card_that_is_gone_names_its_successor(call, population):
    code, _, err = call("rank", population, "--regression", "encsel-calibrated-weighted")
    assert code == 2
    assert "Use encsel-likelihood instead" in err


def test_a_coverage_that_cannot_be_had_is_refused(call, population):
    assert call("rank", population, "--coverage", 0.2)[0] == 2


def test_a_pair_that_is_not_there_is_not_explained(call, population):
    code, out, err = call("rank", population, *ONE_PAIR, "--explain", "face0/voice7")
    assert code == 2
    assert "--explain face0/voice7: no voice encoder 'voice7'. Did you mean 'voice0'" in err
    assert out == ""  # before any work
    assert call("rank", population, "--explain", "face0/voice1", "--format", "csv")[:2] == (2, "")


def test_explaining_a_few_people_and_a_published_order_works_where_it_can(call, population, tmp_path):
    few = write_population(tmp_path / "few", 8, faces=1, voices=1)
    assert call("rank", few, "--min-identities", 5, "--explain", "face0/voice0")[0] == 2
    out = call("rank", population, *ONE_PAIR, "--regression", "upadhyay2026-ln", "--explain", "face0/voice0")[1]
    assert "Why face0 x voice0" in out


def test_under_30_people_there_is_a_coarse_order_and_both_measures(call, tmp_path):
    few = write_population(tmp_path / "few", 16, voices=1)
    code, out, _ = call("rank", few, "--min-identities", 10, "--format", "json")
    document = json.loads(out)
    assert code == 0
    assert document["ordered_by"] == "cka_matched"
    for pair in document["pairs"]:
        assert pair["predicted_eer"] is pair["p_best"] is pair["places"] is None
        assert pair["cross_validated"]["eer"] is not None
        assert pair["predictions"]["encsel-calibrated"]["eer"] is None
        assert pair["null"]["predicted_eer"] is None
        assert pair["null"]["p"] > 0
        assert pair["cka"]["matched"] is not None
        assert "16 people" in pair["reason"]


def test_people_are_shuffled_within_sex_where_everybody_has_one(call, tmp_path):
    root = with_sex(tmp_path / "set", ["f", "m"] * 15)
    null = json.loads(call("rank", root, "--format", "json")[1])["pairs"][0]["null"]
    assert null["within"] == "sex"
    assert null["chance"] == pytest.approx(0.326, abs=0.001)
    assert 0 < null["p_across"] <= 1
    assert call("rank", root, "--within", "language")[0] == 2


def test_people_of_two_sexes_are_named_by_number_since_their_faces_and_voices_may_not_belong_together(call, tmp_path):
    root = with_sex(tmp_path / "set", ["f", "m"] * 15)
    (path,) = (root / "voices").glob("*.npz")
    with np.load(path) as archive:
        arrays = dict(archive)
    names = people(30)
    arrays["sex"][np.isin(arrays["labels"], [names[3], names[20]])] = "x"
    np.savez(path, **arrays)
    _, out, err = call("rank", root, "--format", "json")
    said = "2 people have more than one value (by position in the order of names: 4, 21), so their faces and voices"
    assert said in err
    assert any(said in note for note in json.loads(out)["notes"])


def test_groups_too_small_to_shuffle_within_are_said_when_asked_for_and_left_when_not(call, tmp_path):
    root = with_sex(tmp_path / "set", ["f"] * 3 + ["m"] * 27)
    _, out, err = call("rank", root, "--format", "json")
    assert json.loads(out)["pairs"][0]["null"]["within"] is None
    assert "shuffled across sex, not within it: a group has 3 people" in err
    code, _, err = call("rank", root, "--within", "sex")
    assert code == 3
    assert "a group has 3 people" in err


def test_plan_prints_a_table_and_answers_a_wish(call):
    code, out, _ = call("plan", "--width", 0.25, "--difference", 0.1)
    assert code == 0
    assert "people" in out
    assert "Fewest people for an interval no wider than 0.25 and resolving a difference of 0.1:" in out
    document = json.loads(call("plan", "--width", 0.25, "--format", "json")[1])
    assert document["schema"] == "encsel.plan/1"
    assert document["enough"]["20"] > 30


def test_plan_of_a_set_tells_what_it_can_decide(call, population, tmp_path):
    out = call("plan", population)[1]
    assert "This set: 60 people, 4 samples each." in out
    assert "will be ties" in out
    few = write_population(tmp_path / "few", 12)
    assert "decides no EER" in call("plan", few)[1]
    document = json.loads(call("plan", few, "--format", "json")[1])
    assert document["own"] is None
    assert "fewer than 30 people" in document["reason"]
    assert document["set"]["n_identities"] == 12


def test_plan_of_media_embeds_nothing(call, tmp_path):
    from media_samples import write_set

    write_set(tmp_path / "media", n_identities=6, n_samples=4)
    code, out, _ = call("plan", tmp_path / "media")
    assert code == 0
    assert "This set: 6 people, 4 samples each." in out
    assert not (tmp_path / "cache").exists()


def test_plan_needs_a_calibrated_card(call):
    code, _, err = call("plan", "--card", "upadhyay2026")
    assert code == 2
    assert "encsel-calibrated" in err
