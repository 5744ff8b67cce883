"""Gates and comparisons: what passes, what fails, and what cannot be told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from encsel.errors import GATE_INCONCLUSIVE, UsageError
from encsel.gates.compare import (
    MOVED_DOWN,
    MOVED_UP,
    SAME,
    UNKNOWN,
    PairValue,
    ResultToCompare,
    compare_results,
    interval_of_change,
    read_result,
    value_of,
)
from encsel.gates.judge import Gates, Verdict, check_baseline, checked_gates, field_of, judge
from encsel.prediction.card import CalibratedCard, load_calibrated, shipped_calibrated
from encsel.ranking.rank import verdict_on
from encsel.ranking.result import Ranking
from encsel.storage.result import checksum
from encsel.storage.signature import digest

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
    return ResultToCompare("encsel.rank/2", "predicted EER, scorer reference", {**SIGNATURE, **changed}, values)


def verdict(gates: Gates, pairs: dict[str, tuple[float, float, float] | None]) -> Verdict:
    new = result(pairs)
    values = [new.pairs[tuple(name.split("/"))] for name in pairs]
    field = field_of(
        list(pairs), values, [None if v is None else v[1:] for v in pairs.values()], None, seed=0, p=[0.01] * len(pairs)
    )
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
    assert verdict(checked_gates(max_eer=0.19, min_margin=0.2), CLEAR).status == "fail"
    assert verdict(Gates(), CLEAR).status == "none"
    assert Verdict().exit_code == 0


def test_the_printed_verdict_is_that_of_the_exit_code():
    said = verdict(checked_gates(max_eer=0.25, min_margin=0.2), CLEAR).lines
    assert said[0].startswith("Gate max-eer 0.25: PASS")
    assert said[-1] == "Verdict: FAIL."


def test_the_chance_of_a_close_call_follows_the_covariance():
    values = [PairValue(0.3, 1.05, 0.3), PairValue(0.32, 0.95, 0.3)]
    alike = np.full((2, 2), 0.3**2) + np.diag([1e-4, 1e-4])
    field = field_of(["a/x", "a/y"], values, [(0.2, 0.4)] * 2, alike, seed=0, p=[0.01, 0.01])
    assert judge(checked_gates(expect_best="a/x"), field, result(CLOSE)).status == "pass"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_eer": 1.5}, "--max-eer is 1.5"),
        ({"min_margin": -0.1}, "--min-margin"),
        ({"expect_best": "facenet"}, "FACE/VOICE"),
        ({"expect_best": "/ecapa"}, "FACE/VOICE"),
        ({"max_regression": 0.1}, "must be given together"),
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


def test_the_interval_of_a_change_adds_the_errors_of_both():
    low, high = interval_of_change(PairValue(0.3, 1.0, 0.3), PairValue(0.3, 1.0, 0.4))
    half = 1.6449 * 0.5  # 90 % of a normal error of 0.5, from 0.3 and 0.4
    expected = NormalDist().cdf(-(1 - half / 2) / 2) - NormalDist().cdf(-(1 + half / 2) / 2)
    assert (low, high) == pytest.approx((-expected, expected), abs=1e-4)


def test_errors_are_shared_on_the_same_data_alone_and_less_where_encoders_changed():
    pair, card = {"f/v": (0.30, 0.25, 0.35)}, load_calibrated(shipped_calibrated()[0])

    def width(card: CalibratedCard | None = card, **changed: Any) -> float:
        (change,) = compare_results(result(pair), result(pair, **changed), card).changes
        return change.interval[1] - change.interval[0]

    same, face, both = ({"face:f": {"sha256": f}, "voice:v": {"sha256": v}} for f, v in ("12", "92", "99"))
    assert width(encoders=same) < width(encoders=face) < width(encoders=both) < width(None)
    assert width(data={"sha256": "e"}) == width(None)


def test_an_interval_cut_off_at_chance_keeps_its_reach():
    whole, cut = value_of(0.45, (0.38, 0.52), 0.9), value_of(0.45, (0.38, 0.5), 0.9)
    assert cut.sd == pytest.approx(whole.sd, rel=0.05)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"data": {"sha256": "e"}}, "data differ"),
        ({"regressions": {"card": "bb"}}, "regression differs: card"),
        ({"regressions": {"other": "aa"}}, "regression differs"),
        ({"metrics": {"cka": 2}}, "version of the metric differs: cka"),
        ({"libraries": {"numpy": "3"}}, "library differs: numpy"),
        ({"options": {"seed": 1}}, "options differ: seed"),
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


def test_a_baseline_of_another_version_is_inconclusive_and_says_how_to_renew_it():
    old = ResultToCompare("encsel.rank/1", "predicted EER, scorer reference", SIGNATURE, result(CLEAR).pairs)
    new = replace(result(CLEAR), what="predicted EER, scorer likelihood")
    gates = Gates(baseline=old, max_regression=0.2)
    check_baseline(gates, new.schema, new.what)
    (reason,) = compare_results(old, new).unlike
    assert "it has the schema encsel.rank/1" in reason
    assert "`encsel rank ... --output FILE`" in reason


def test_a_predicted_and_a_measured_eer_are_not_compared():
    measured = ResultToCompare("encsel.validate/2", "measured EER, scorer reference", SIGNATURE, {})
    with pytest.raises(UsageError, match="one kind"):
        compare_results(result(CLEAR), measured)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "encsel.card/1"}', '{"schema": "encsel.rank/1"}', "\x00"])
def test_a_file_that_is_no_result_is_a_usage_error(tmp_path, text):
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="not a result"):
        read_result(path)
    with pytest.raises(UsageError, match="Cannot read"):
        read_result(tmp_path / "none.json")


@pytest.fixture
def document(ranking) -> dict[str, Any]:
    """The document of a ranking, as encsel 0.2.0 wrote it: without a checksum, which finds every edit."""
    document = json.loads(ranking.to_json())
    del document["sha256"]
    document["signature"]["encsel"] = "0.2.0"
    return signed(document)


def signed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the id that belongs to its signature."""
    signature = document["signature"]
    signature["id"] = digest({key: value for key, value in signature.items() if key != "id"})
    return document


def written(document: dict[str, Any], folder: Path) -> Path:
    path = folder / "old.json"
    path.write_text(json.dumps(document))
    return path


def test_a_result_reads_as_its_document_says(document, tmp_path):
    found = read_result(written(document, tmp_path))
    assert len(found.pairs) == len(document["pairs"])
    for pair in document["pairs"]:
        assert found.pairs[pair["face"], pair["voice"]] == value_of(pair["predicted_eer"], pair["interval"], 0.9)


def test_a_ranking_is_no_worse_than_itself_with_a_checksum_and_without(ranking, document, tmp_path):
    ranking.save(tmp_path / "new.json")
    for path in (tmp_path / "new.json", written(document, tmp_path)):
        assert verdict_on(ranking, checked_gates(baseline=path, max_regression=0.3)).status == "pass"


def edited(change: Callable[[dict[str, Any]], object]) -> Any:
    return pytest.param(change, id=change.__name__)


def without_the_best(d: dict[str, Any]) -> None:
    del d["pairs"][0]


def without_pairs(d: dict[str, Any]) -> None:
    d["pairs"] = []


def a_pair_twice(d: dict[str, Any]) -> None:
    d["pairs"].append({**d["pairs"][0], "predicted_eer": 0.45, "interval": [0.44, 0.46]})


def a_pair_renamed(d: dict[str, Any]) -> None:
    d["pairs"][0]["face"] = "another"


def another_id(d: dict[str, Any]) -> None:
    d["signature"]["id"] = "0" * 64


def another_seed(d: dict[str, Any]) -> None:
    d["signature"]["options"]["seed"] = 1


def an_interval_turned_round(d: dict[str, Any]) -> None:
    d["pairs"][0]["interval"].reverse()


def an_eer_below_its_interval(d: dict[str, Any]) -> None:
    d["pairs"][0]["predicted_eer"] = d["pairs"][0]["interval"][0] / 2


def an_eer_above_its_interval(d: dict[str, Any]) -> None:
    d["pairs"][0]["predicted_eer"] = (1 + d["pairs"][0]["interval"][1]) / 2


def an_interval_of_nothing(d: dict[str, Any]) -> None:
    d["pairs"][0]["predicted_eer"] = None


def another_coverage(d: dict[str, Any]) -> None:
    d["pairs"][0]["coverage"] = 0.5


def worse_throughout_beside_its_checksum(d: dict[str, Any]) -> None:
    d["sha256"] = checksum(d)
    for pair in d["pairs"]:
        pair["predicted_eer"], pair["interval"] = 0.45, [0.4, 0.5]


def another_verdict_beside_its_checksum(d: dict[str, Any]) -> None:
    d["sha256"] = checksum(d)
    d["verdict"]["status"] = "pass"


def of_a_later_version_without_checksum(d: dict[str, Any]) -> None:
    d["signature"]["encsel"] = "0.3.0"
    signed(d)


@pytest.mark.parametrize(
    "change",
    [
        edited(without_the_best), edited(without_pairs), edited(a_pair_twice), edited(a_pair_renamed),
        edited(another_id), edited(another_seed), edited(an_interval_turned_round), edited(an_eer_below_its_interval),
        edited(an_eer_above_its_interval), edited(an_interval_of_nothing), edited(another_coverage),
        edited(worse_throughout_beside_its_checksum), edited(of_a_later_version_without_checksum),
        another_verdict_beside_its_checksum,
    ],
)  # fmt: skip
def test_a_baseline_that_was_edited_is_a_usage_error(document, tmp_path, change):
    change(document)
    with pytest.raises(UsageError, match="was damaged or edited"):
        checked_gates(baseline=written(document, tmp_path), max_regression=0.3)


NAN, INFINITE = float("nan"), float("inf")
GOOD = {"a/x": PairValue(0.20, 1.7, 0.01), "a/y": PairValue(0.35, 0.8, 0.01)}
EASY: dict[str, dict[str, Any]] = {
    "max-eer": {"max_eer": 1}, "expect-best": {"expect_best": "a/x"}, "min-margin": {"min_margin": 0},
    "max-regression": {"max_regression": 1},
}  # fmt: skip
"""Gates that every result passes which can be judged at all."""


def judged(gate: str, on: str, values: dict[str, PairValue], interval: Any = (0.1, 0.3), old: Any = GOOD) -> str:
    """Status of an easy gate on a result of these values, with this interval of each EER."""
    baseline, new = (
        ResultToCompare("encsel.rank/2", "predicted EER, scorer reference", SIGNATURE, pairs)
        for pairs in ({tuple(name.split("/")): value for name, value in side.items()} for side in (old, values))
    )
    field = field_of([*values], [*values.values()], [interval] * len(values), None, seed=0, p=[0.01] * len(values))
    gates = Gates(**EASY[gate], on=on, baseline=baseline if gate == "max-regression" else None)
    found = judge(gates, field, new)
    assert found.exit_code == {"pass": 0, "inconclusive": GATE_INCONCLUSIVE}[found.status]
    assert found.gates[0].reason
    return found.status


@pytest.mark.parametrize("gate", EASY)
@pytest.mark.parametrize("on", ["interval", "point"])
def test_what_can_be_judged_passes_an_easy_gate(gate, on):
    assert judged(gate, on, GOOD) == "pass"


NOTHING = PairValue(None, None, None)
BARE = PairValue(0.2, 1.7, None)
EVERY, BOTH = tuple(EASY), ("interval", "point")
OF_THE_RESULT = ("max-eer", "expect-best", "min-margin")


@pytest.mark.parametrize(
    ("values", "gates", "modes"),
    [
        pytest.param({}, EVERY, BOTH, id="no pair"),
        pytest.param({"a/x": NOTHING, "a/y": NOTHING}, EVERY, BOTH, id="no EER at all"),
        pytest.param({**GOOD, "a/x": NOTHING}, EVERY, BOTH, id="no EER of the best"),
        pytest.param({**GOOD, "a/y": NOTHING}, EVERY, BOTH, id="no EER of another"),
        pytest.param({**GOOD, "b/x": NOTHING}, OF_THE_RESULT, BOTH, id="no EER of a third"),
        *(
            pytest.param({**GOOD, name: PairValue(x, x, 0.01)}, OF_THE_RESULT, BOTH, id=f"{name} is {x}")
            for name in GOOD
            for x in (NAN, INFINITE, -INFINITE)
        ),
        pytest.param({"a/x": NOTHING}, EVERY, BOTH, id="one pair without an EER"),
        pytest.param({"a/y": GOOD["a/y"]}, ("expect-best",), BOTH, id="an encoder that failed"),
        pytest.param({"a/x": GOOD["a/x"]}, ("min-margin",), BOTH, id="a single pair"),
        pytest.param({**GOOD, "a/x": BARE}, ("expect-best", "min-margin", "max-regression"), ("interval",), id="no sd"),
        *(
            pytest.param({**GOOD, "a/x": value}, ("expect-best", "min-margin"), ("interval",), id=f"{value}")
            for value in (PairValue(0.2, 1.7, NAN), PairValue(0.2, NAN, 0.1))
        ),
        pytest.param({"b/x": GOOD["a/x"]}, ("expect-best", "max-regression"), BOTH, id="other encoders"),
        pytest.param({"a/y": GOOD["a/y"]}, ("max-regression",), BOTH, id="without the former best"),
        pytest.param(
            {**GOOD, "b/x": PairValue(0.1, 2.5, 0.01)}, ("max-regression",), BOTH,
            id="a best pair that is new",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_passes_no_gate(values, gates, modes):
    for gate in gates:
        for on in modes:
            assert judged(gate, on, values) == "inconclusive", (gate, on)


@pytest.mark.parametrize("interval", [None, (NAN, 0.3), (0.1, NAN), (NAN, NAN)])
def test_an_interval_that_is_missing_passes_no_gate_on_intervals(interval):
    assert judged("max-eer", "interval", GOOD, interval) == "inconclusive"


@pytest.mark.parametrize(
    "old",
    [
        {}, {"a/x": NOTHING, "a/y": NOTHING}, {**GOOD, "a/x": NOTHING}, {**GOOD, "a/y": NOTHING},
        {"a/y": GOOD["a/y"]}, {**GOOD, "b/x": PairValue(0.1, 2.5, 0.01)},
    ],
)  # fmt: skip
@pytest.mark.parametrize("on", ["interval", "point"])
def test_a_baseline_that_lacks_a_pair_passes_no_gate(old, on):
    assert judged("max-regression", on, GOOD, old=old) == "inconclusive"


def test_a_pair_beside_the_best_that_is_new_is_no_regression():
    assert judged("max-regression", "interval", {**GOOD, "b/x": PairValue(0.3, 1.0, 0.01)}) == "pass"


def test_the_reason_of_a_regression_is_that_of_the_pair_that_decides():
    old = {**GOOD, "b/x": PairValue(0.3, 1.0, None)}
    baseline, new = (
        ResultToCompare("encsel.rank/2", "predicted EER, scorer reference", SIGNATURE, pairs)
        for pairs in (
            {tuple(name.split("/")): v for name, v in side.items()} for side in (old, {**old, "b/x": NOTHING})
        )
    )
    field = field_of([*GOOD], [*GOOD.values()], [None, None], None, seed=0, p=[0.01, 0.01])
    (found,) = judge(Gates(baseline=baseline, max_regression=1), field, new).gates
    assert (found.status, found.reason) == ("inconclusive", "b/x has no EER in one of the two")


def test_health_that_cannot_be_examined_leaves_strict_health_open(ranking: Ranking):
    first, *others = ranking.encoders
    unexamined = replace(ranking, encoders=(replace(first, unimodal_eer=None), *others))
    for gates in (Gates(), checked_gates(max_eer=1)):
        assert verdict_on(unexamined, gates).exit_code == 0
        found = verdict_on(replace(unexamined, strict_health=True), gates)
        assert found.exit_code == GATE_INCONCLUSIVE
        assert found.gates[-1].reason == f"{first.name} cannot be checked with one sample a person"
        assert verdict_on(replace(ranking, strict_health=True), gates).exit_code == 0


@pytest.mark.parametrize(
    ("old", "new", "named"), [({"card": "aa"}, {}, "card"), ({}, {"card": "aa"}, "card"), ({}, {}, None)]
)
def test_results_without_a_card_are_unlike_those_with_one(old, new, named):
    found = compare_results(result(CLEAR, regressions=old), result(CLEAR, regressions=new))
    assert [named is not None and named in text for text in found.unlike] == ([True] if named else [])


@pytest.mark.parametrize("on", ["interval", "point"])
@pytest.mark.parametrize(
    ("p", "within", "says"),
    [
        (0.2, None, "a/x is not above chance (p 0.20)"),
        (0.06, "sex", "a/x is not above chance within groups of sex (p 0.06)"),
        (None, None, "whether a/x is above chance was not measured"),
        (0.05, None, None),
    ],
)
def test_no_gate_passes_on_a_pair_that_is_not_above_chance(on, p, within, says):
    new = result(CLEAR)
    values, intervals = list(new.pairs.values()), [v[1:] for v in CLEAR.values()]
    # What the second pair is does not matter.
    field = field_of(list(CLEAR), values, intervals, None, seed=0, p=[p, 0.9], within=within)
    for gates, otherwise in (
        ({"max_eer": 0.25}, "pass"), ({"expect_best": "a/x"}, "pass"), ({"min_margin": 0.1}, "pass"),
        ({"above_chance": True}, "pass"), ({"max_eer": 0.1}, "fail"), ({"min_margin": 0.3}, "fail"),
    ):  # fmt: skip
        (found,) = judge(checked_gates(**gates, gate_on=on), field, new).gates
        passes = otherwise == "pass"
        assert found.status == (otherwise if says is None or not passes else "inconclusive")
        assert says is None or (says in found.reason) == passes


def test_a_change_from_the_baseline_may_be_judged_at_chance():
    new = result(CLEAR)
    values, intervals = list(new.pairs.values()), [v[1:] for v in CLEAR.values()]
    field = field_of(list(CLEAR), values, intervals, None, seed=0, p=[0.5, 0.5])
    (found,) = judge(Gates(baseline=new, max_regression=0.3), field, new).gates
    assert found.status == "pass"


def test_no_gate_passes_on_doubtful_data():
    values = list(result(CLEAR).pairs.values())
    field = field_of(list(CLEAR), values, [v[1:] for v in CLEAR.values()], None, seed=0, p=[0.01, 0.01])
    for gates, status in (
        ({"max_eer": 0.25}, "inconclusive"), ({"expect_best": "a/x"}, "inconclusive"), ({"max_eer": 0.1}, "fail"),
        ({"max_eer": 0.25, "gate_on": "point"}, "inconclusive"), ({"min_margin": 0.1}, "inconclusive"),
    ):  # fmt: skip
        found = judge(checked_gates(**gates), field, result(CLEAR), doubts=["the vectors are wrong"])
        assert found.status == status
        assert ("the vectors are wrong" in found.gates[0].reason) == (status == "inconclusive")
