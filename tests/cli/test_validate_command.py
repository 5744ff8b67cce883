"""encsel validate on the command line."""

from __future__ import annotations

import json

import pytest
from test_validation import N, write_set


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


ONLY = ("--only", "matching,gw,prediction", "--quiet")


def test_validate_writes_table_files_and_report_and_fit_and_rank_take_its_result(call, data, tmp_path):
    outputs = [tmp_path / name for name in ("v.json", "v.csv", "v.md", "v.txt")]
    code, out, err = call(
        "validate", data, *ONLY, "--report", tmp_path / "report", *(x for path in outputs for x in ("-o", path))
    )
    assert code == 0
    assert "MEASURED ERROR" in out
    assert err == ""
    assert json.loads(outputs[0].read_text())["calibration"]["n_identities"] == N
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == ["figures", "index.html", "validation.json"]
    assert (tmp_path / "report" / "validation.json").read_text() == outputs[0].read_text()

    for source in outputs[:2]:
        code, out, err = call("fit", source, "--features", "cka", "-o", tmp_path / "card.json")
        assert code == 0, err
        assert "4 pairs of 2 face and 2 voice encoders" in out
    code, out, err = call("rank", data, "--quiet", "--regression", tmp_path / "card.json", "--format", "json")
    assert code == 0, err
    assert next(iter(json.loads(out)["regressions"])) == "card"


def test_fit_takes_the_scorer_that_is_asked_for(call, data, tmp_path):
    assert call("validate", data, *ONLY, "-o", tmp_path / "v.json")[0] == 0
    cards = []
    for scorer in ("reference", "weighted"):
        code, _, err = call(
            "fit", tmp_path / "v.json", "--features", "cka", "--scorer", scorer, "-o", tmp_path / "c.json"
        )
        assert code == 0, err
        cards.append(json.loads((tmp_path / "c.json").read_text()))
    assert [card["target"]["scorer"] for card in cards] == ["reference", "weighted"]
    assert cards[0]["intercept"] != cards[1]["intercept"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--skip", "curvatur"), "curvature"),
        (("--skip", "gw", "--only", "gw"), "one of them"),
        (("-o", "x.pdf"), "suffix"),
        (("--protocol", "study"), "reference"),
        (("--jobs", "0"), "--jobs"),
        (("--min-identities", "3"), "--min-identities"),
    ],
)
def test_wrong_arguments_are_usage_errors_before_any_work(call, data, arguments, says):
    code, out, err = call("validate", data, *arguments)
    assert code == 2
    assert out == ""
    assert says in err


def test_progress_and_what_was_kept_go_to_stderr(call, data):
    _, first, err = call("validate", data, "--only", "gw", "--format", "json")
    assert "gw: 4 done" in err
    _, second, err = call("validate", data, "--only", "gw", "--format", "json")
    assert "gw: 4 done" not in err
    assert first == second


def test_no_cache_keeps_nothing(call, data, tmp_path):
    assert call("validate", data, "--only", "gw", "--no-cache", "--quiet")[0] == 0
    assert not (tmp_path / "cache").exists()


def test_results_are_in_the_cache_and_purged_with_it(call, data, tmp_path):
    call("validate", data, "--only", "gw", "--quiet")
    assert "results of validate" in call("cache")[1]
    assert call("cache", "purge", "--yes")[0] == 0
    assert not (tmp_path / "cache").exists()


def test_help_names_every_stage(call):
    from encsel.validation.result import STAGES

    out = call("validate", "--help")[1]
    assert all(stage in out for stage in STAGES)
