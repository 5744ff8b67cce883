"""Plan, explain, coverage and calibrate on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from toy import people, write_population


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    return write_population(tmp_path_factory.mktemp("ready"), 40, shared=1.0)


def test_rank_orders_by_the_calibrated_card_and_says_so(call, ready):
    code, out, _ = call("rank", ready)
    assert code == 0
    assert "ordered by predicted EER (encsel-calibrated)" in out
    assert "scorer 'reference'" in out
    assert "Null: with faces and voices of different people put together" in out


def test_json_has_order_null_and_cross_validation(call, ready):
    document = json.loads(call("rank", ready, "--format", "json")[1])
    assert document["ordered_by"] == "encsel-calibrated"
    for pair in document["pairs"]:
        assert pair["rank_group"] >= 1
        assert 0 <= pair["p_best"] <= 1
        assert pair["interval"][0] <= pair["predicted_eer"] <= pair["interval"][1]
        assert {"scorer", "eer", "auc", "interval"} <= set(pair["cross_validated"])
        assert {"predicted_eer", "sd", "p", "p_familywise", "n_permutations", "within"} == set(pair["null"])
        assert set(pair["predictions"]) == {
            "encsel-calibrated", "encsel-calibrated-weighted", "upadhyay2026-ln", "upadhyay2026",
        }  # fmt: skip
        assert all("scorer" in said for said in pair["predictions"].values())
        assert len(pair["cka"]["matched_interval"]) == 2
    assert sum(p["p_best"] for p in document["pairs"]) == pytest.approx(1)


def test_the_weighted_card_orders_by_the_scorer_to_deploy(call, ready):
    document = json.loads(call("rank", ready, "--regression", "encsel-calibrated-weighted", "--format", "json")[1])
    assert document["scorer"] == "weighted"
    assert document["pairs"][0]["cross_validated"]["scorer"] == "weighted"
    eers = [p["predicted_eer"] for p in document["pairs"]]
    assert eers == sorted(eers)


def test_coverage_widens_the_intervals_and_must_be_known(call, ready):
    widths = []
    for coverage in (0.6, 0.95):
        document = json.loads(call("rank", ready, "--coverage", coverage, "--format", "json")[1])
        pair = document["pairs"][0]
        assert pair["coverage"] == coverage
        widths.append(pair["interval"][1] - pair["interval"][0])
    assert widths[0] < widths[1]
    assert call("rank", ready, "--coverage", 0.2)[0] == 2


def test_explain_shows_what_made_the_prediction(call, ready):
    code, out, _ = call("rank", ready, "--explain", "face0/voice1")
    assert code == 0
    for words in (
        "Why face0 x voice1",
        "canonical correlations",
        "d_reference",
        "root_cka",
        "Learning curve",
        "CKA alone",
    ):
        assert words in out
    document = json.loads(call("rank", ready, "--explain", "face0/voice1", "--format", "json")[1])
    explanation = document["explanation"]
    assert explanation["face"] == "face0"
    assert len(explanation["canonical_correlations"]) == 12
    total = explanation["base"] + sum(part["adds"] for part in explanation["parts"])
    assert total == pytest.approx(explanation["distance"])


def test_a_pair_that_is_not_there_is_not_explained(call, ready):
    code, out, err = call("rank", ready, "--explain", "face0/voice7")
    assert code == 2
    assert "face0/voice1" in err
    assert "Predicted EER" in out  # the ranking is not lost with it
    assert call("rank", ready, "--explain", "face0/voice1", "--format", "csv")[:2] == (2, "")


def test_explaining_a_few_people_and_a_published_order_works_where_it_can(call, ready, tmp_path):
    few = write_population(tmp_path / "few", 8, faces=1, voices=1)
    assert call("rank", few, "--min-identities", 5, "--explain", "face0/voice0")[0] == 2
    out = call("rank", ready, "--regression", "upadhyay2026-ln", "--explain", "face0/voice0")[1]
    assert "Why face0 x voice0" in out


def test_under_30_people_there_is_a_coarse_order_and_both_measures(call, tmp_path):
    few = write_population(tmp_path / "few", 16)
    code, out, _ = call("rank", few, "--min-identities", 10, "--format", "json")
    document = json.loads(out)
    assert code == 0
    assert document["ordered_by"] == "cka_matched"
    for pair in document["pairs"]:
        assert pair["predicted_eer"] is pair["p_best"] is pair["rank_group"] is None
        assert pair["cross_validated"]["eer"] is not None
        assert pair["predictions"]["encsel-calibrated"]["eer"] is None
        assert pair["null"]["predicted_eer"] is None
        assert pair["null"]["p"] > 0
        assert pair["cka"]["matched"] is not None
        assert "16 people" in pair["reason"]


def test_people_are_shuffled_within_sex_where_everybody_has_one(call, tmp_path):
    root = write_population(tmp_path / "set", 40, faces=1, voices=1, shared=1.0)
    for path in root.rglob("*.npz"):
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
        of = {person: "fm"[i % 2] for i, person in enumerate(people(40))}
        np.savez(path, **arrays, sex=np.array([of[p] for p in arrays["labels"]]))
    pair = json.loads(call("rank", root, "--format", "json")[1])["pairs"][0]
    assert pair["null"]["within"] == "sex"
    assert call("rank", root, "--within", "language")[0] == 2


def test_groups_too_small_to_shuffle_within_are_said_when_asked_for_and_left_when_not(call, tmp_path):
    root = write_population(tmp_path / "set", 40, faces=1, voices=1, shared=1.0)
    for path in root.rglob("*.npz"):
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
        np.savez(path, **arrays, sex=np.array(["f" if p in people(3) else "m" for p in arrays["labels"]]))
    _, out, err = call("rank", root, "--format", "json")
    assert json.loads(out)["pairs"][0]["null"]["within"] is None
    assert "shuffled across sex, not within it: a group has 3 people" in err
    code, _, err = call("rank", root, "--within", "sex")
    assert code == 3
    assert "a group has 3 people" in err


def test_plan_prints_a_table_and_answers_a_wish(call):
    code, out, _ = call("plan", "--width", 0.1, "--difference", 0.03)
    assert code == 0
    assert "people" in out
    assert "Fewest people for an interval no wider than 0.1 and a difference of 0.03 told apart" in out
    document = json.loads(call("plan", "--width", 0.1, "--format", "json")[1])
    assert document["schema"] == "encsel.plan/1"
    assert document["enough"]["20"] > 30


def test_plan_of_a_set_tells_what_it_can_decide(call, ready, tmp_path):
    out = call("plan", ready)[1]
    assert "This set: 40 people, 4 samples each." in out
    assert "will be a tie" in out
    few = write_population(tmp_path / "few", 12)
    assert "decides no EER" in call("plan", few)[1]
    document = json.loads(call("plan", few, "--format", "json")[1])
    assert document["own"] is None
    assert "under 30 people" in document["reason"]
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
