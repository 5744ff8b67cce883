"""Gates and comparisons: what passes, what fails, and what cannot be told."""

from __future__ import annotations

import json

import numpy as np
import pytest

from encsel.errors import UsageError
from encsel.gates.compare import (
    MOVED_DOWN,
    MOVED_UP,
    SAME,
    UNKNOWN,
    PairValue,
    ResultToCompare,
    compare_results,
    read_result,
    value_of,
)
from encsel.gates.judge import Gates, Verdict, checked_gates, field_of, judge

SIGNATURE = {
    "encsel": "0.1.0", "data": {"sha256": "d"}, "encoders": {"face:f": {"sha256": "1"}, "voice:v": {"sha256": "2"}},
    "regressions": {"card": "aa"}, "metrics": {"cka": 1}, "options": {"seed": 0}, "libraries": {"numpy": "2"},
    "id": "x",
}  # fmt: skip


def result(pairs: dict[str, tuple[float, float, float] | None], **changed) -> ResultToCompare:
    """Of FACE/VOICE to EER with its interval."""
    values = {
        tuple(name.split("/")): value_of(None, None, 0.9) if v is None else value_of(v[0], v[1:], 0.9)
        for name, v in pairs.items()
    }
    return ResultToCompare("encsel.rank/1", "predicted EER, scorer reference", {**SIGNATURE, **changed}, values)


def verdict(gates: Gates, pairs: dict[str, tuple[float, float, float] | None]) -> Verdict:
    new = result(pairs)
    values = [new.pairs[tuple(name.split("/"))] for name in pairs]
    field = field_of(list(pairs), values, [None if v is None else v[1:] for v in pairs.values()], None, seed=0)
    return judge(gates, field, new)


CLEAR = {"a/x": (0.20, 0.18, 0.22), "a/y": (0.35, 0.33, 0.37)}
CLOSE = {"a/x": (0.30, 0.25, 0.35), "a/y": (0.31, 0.26, 0.36)}


@pytest.mark.parametrize(
    ("limit", "status", "code"),
    [(0.25, "pass", 0), (0.1, "fail", 1), (0.19, "inconclusive", 6), (0.21, "inconclusive", 6)],
)
def test_max_eer_is_judged_on_the_interval(limit, status, code):
    found = verdict(checked_gates(max_eer=limit), CLEAR)
    assert (found.status, found.exit_code) == (status, code)


@pytest.mark.parametrize(("limit", "status"), [(0.21, "pass"), (0.19, "fail")])
def test_point_gates_judge_the_number_as_it_is(limit, status):
    assert verdict(checked_gates(max_eer=limit, gate_on="point"), CLEAR).status == status


@pytest.mark.parametrize(
    ("pairs", "expected", "status"),
    [(CLEAR, "a/x", "pass"), (CLEAR, "a/y", "fail"), (CLOSE, "a/x", "inconclusive"), (CLOSE, "a/y", "inconclusive")],
)
def test_the_best_pair_must_be_surely_the_best(pairs, expected, status):
    assert verdict(checked_gates(expect_best=expected), pairs).status == status


def test_the_only_pair_is_the_best():
    assert verdict(checked_gates(expect_best="a/x"), {"a/x": CLEAR["a/x"]}).status == "pass"


@pytest.mark.parametrize(("margin", "status"), [(0.1, "pass"), (0.2, "fail"), (0.15, "inconclusive")])
def test_a_margin_must_be_there_with_a_chance_of_nine_tenths(margin, status):
    assert verdict(checked_gates(min_margin=margin), CLEAR).status == status


def test_a_pair_without_an_eer_leaves_every_gate_open():
    for options in ({"max_eer": 0.3}, {"expect_best": "a/x"}, {"min_margin": 0.1}):
        assert verdict(checked_gates(**options), {"a/x": None, "a/y": None}).status == "inconclusive"


def test_one_failure_fails_all_and_one_open_gate_leaves_all_open():
    assert verdict(checked_gates(max_eer=0.25, min_margin=0.2), CLEAR).status == "fail"
    assert verdict(checked_gates(max_eer=0.19, min_margin=0.1), CLEAR).status == "inconclusive"
    assert verdict(Gates(), CLEAR).status == "none"
    assert Verdict().exit_code == 0


def test_the_printed_verdict_is_that_of_the_exit_code():
    said = verdict(checked_gates(max_eer=0.25, min_margin=0.2), CLEAR).lines
    assert said[0].startswith("Gate max-eer 0.25: PASS")
    assert said[-1] == "Verdict: FAIL."


def test_the_chance_of_a_close_call_follows_the_covariance():
    values = [PairValue(0.3, 1.05, 0.3), PairValue(0.32, 0.95, 0.3)]
    alike = np.full((2, 2), 0.3**2) + np.diag([1e-4, 1e-4])
    field = field_of(["a/x", "a/y"], values, [(0.2, 0.4)] * 2, alike, seed=0)
    assert judge(checked_gates(expect_best="a/x"), field, result(CLOSE)).status == "pass"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_eer": 1.5}, "--max-eer is 1.5"),
        ({"min_margin": -0.1}, "--min-margin"),
        ({"expect_best": "facenet"}, "FACE/VOICE"),
        ({"expect_best": "/ecapa"}, "FACE/VOICE"),
        ({"max_regression": 0.1}, "belong together"),
        ({"gate_on": "mean"}, "interval"),
    ],
)
def test_gates_that_make_no_sense_are_usage_errors(options, says):
    with pytest.raises(UsageError, match=says):
        checked_gates(**options)


def test_an_expected_pair_without_a_result_leaves_its_gate_open():
    found = verdict(checked_gates(expect_best="a/z"), CLEAR)
    assert (found.status, found.gates[0].reason) == ("inconclusive", "a/z has no result")


@pytest.mark.parametrize(
    ("new", "status"),
    [
        ((0.20, 0.18, 0.22), "pass"),
        ((0.40, 0.38, 0.42), "fail"),
        ((0.25, 0.21, 0.29), "inconclusive"),
    ],
)
def test_a_regression_is_judged_on_the_interval_of_the_change(new, status):
    gates = Gates(baseline=result({"a/x": (0.20, 0.18, 0.22)}), max_regression=0.05)
    assert verdict(gates, {"a/x": new}).status == status


def test_a_baseline_of_other_data_tells_nothing():
    gates = Gates(baseline=result({"a/x": (0.20, 0.18, 0.22)}, data={"sha256": "e"}), max_regression=0.05)
    found = verdict(gates, {"a/x": (0.20, 0.18, 0.22)})
    assert found.status == "inconclusive"
    assert "data differ" in found.gates[0].reason


def test_changes_are_told_against_their_uncertainty():
    old = result({"a/x": (0.20, 0.18, 0.22), "a/y": (0.30, 0.28, 0.32), "a/z": (0.3, 0.2, 0.4), "a/u": None})
    new = result({"a/x": (0.30, 0.28, 0.32), "a/y": (0.20, 0.18, 0.22), "a/z": (0.31, 0.21, 0.41), "a/u": None,
                  "b/x": (0.2, 0.1, 0.3)})  # fmt: skip
    found = {f"{c.face}/{c.voice}": c for c in compare_results(old, new).changes}
    assert [found[k].verdict for k in ("a/x", "a/y", "a/z", "a/u")] == [MOVED_UP, MOVED_DOWN, SAME, UNKNOWN]
    assert found["b/x"].verdict == "only in the new result"
    change = found["a/x"]
    assert change.change == pytest.approx(0.1)
    assert change.interval[0] < 0.1 < change.interval[1]


def test_an_interval_cut_off_at_chance_keeps_its_reach():
    whole, cut = value_of(0.45, (0.38, 0.52), 0.9), value_of(0.45, (0.38, 0.5), 0.9)
    assert cut.sd == pytest.approx(whole.sd, rel=0.05)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"data": {"sha256": "e"}}, "data differ"),
        ({"regressions": {"card": "bb"}}, "another regression: card"),
        ({"regressions": {"other": "aa"}}, "another regression"),
        ({"metrics": {"cka": 2}}, "version of the metric: cka"),
        ({"libraries": {"numpy": "3"}}, "another library: numpy"),
        ({"options": {"seed": 1}}, "other options: seed"),
        ({"encsel": "0.2.0"}, "encsel 0.1.0 and 0.2.0"),
    ],
)
def test_why_two_results_may_not_be_compared_is_said(changed, says):
    (reason,) = compare_results(result(CLEAR), result(CLEAR, **changed)).unlike
    assert says in reason


def test_other_encoders_may_be_compared_and_are_named():
    other = {"face:f": {"sha256": "9"}, "voice:v": {"sha256": "2"}}
    found = compare_results(result(CLEAR), result(CLEAR, encoders=other))
    assert found.unlike == ()
    assert found.changed_encoders == ("face:f",)


def test_a_predicted_and_a_measured_eer_are_not_compared():
    measured = ResultToCompare("encsel.validate/1", "measured EER, scorer reference", SIGNATURE, {})
    with pytest.raises(UsageError, match="one kind"):
        compare_results(result(CLEAR), measured)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "encsel.card/1"}', '{"schema": "encsel.rank/1"}', "\x00"])
def test_a_file_that_is_no_result_is_a_usage_error(tmp_path, text):
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="no result"):
        read_result(path)
    with pytest.raises(UsageError, match="Cannot read"):
        read_result(tmp_path / "none.json")


def test_a_result_reads_as_its_document_says(tmp_path):
    pairs = [{"face": "a", "voice": "x", "predicted_eer": 0.2, "interval": [0.15, 0.25], "coverage": 0.9}]
    document = {"schema": "encsel.rank/1", "scorer": "reference", "signature": SIGNATURE, "pairs": pairs}
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document))
    found = read_result(path)
    assert found.pairs["a", "x"] == value_of(0.2, (0.15, 0.25), 0.9)


@pytest.mark.parametrize(
    ("old", "new", "named"), [({"card": "aa"}, {}, "card"), ({}, {"card": "aa"}, "card"), ({}, {}, None)]
)
def test_results_without_a_card_are_unlike_those_with_one(old, new, named):
    found = compare_results(result(CLEAR, regressions=old), result(CLEAR, regressions=new))
    assert [named is not None and named in text for text in found.unlike] == ([True] if named else [])


def test_no_gate_passes_on_doubtful_data():
    values = list(result(CLEAR).pairs.values())
    field = field_of(list(CLEAR), values, [v[1:] for v in CLEAR.values()], None, seed=0)
    for gates, status in (
        ({"max_eer": 0.25}, "inconclusive"), ({"expect_best": "a/x"}, "inconclusive"), ({"max_eer": 0.1}, "fail"),
        ({"max_eer": 0.25, "gate_on": "point"}, "inconclusive"), ({"min_margin": 0.1}, "inconclusive"),
    ):  # fmt: skip
        found = judge(checked_gates(**gates), field, result(CLEAR), doubts=["the vectors are wrong"])
        assert found.status == status
        assert ("the vectors are wrong" in found.gates[0].reason) == (status == "inconclusive")
