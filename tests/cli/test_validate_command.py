"""encsel validate on the command line."""

from __future__ import annotations

import json

import pytest
from test_validation import N, write_set

from encsel.reports import figures
from encsel.validation.stage import stage_names


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


def test_validate_writes_table_files_and_report_and_fit_and_rank_take_its_result(call, data, tmp_path, monkeypatch):
    # One figure stands for all, which take seconds.
    monkeypatch.setattr(figures, "FIGURES", figures.FIGURES[:1])
    outputs = {name: tmp_path / f"v.{name}" for name in ("json", "csv", "md", "txt")}
    code, out, err = call(
        "validate", data, "--only", "matching", "--quiet", "--report", tmp_path / "report",
        *(x for path in outputs.values() for x in ("-o", path)),
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "Measured" in out
    assert len(out.splitlines()) <= 24
    assert out.splitlines()[-1].endswith("Everything measured: --report DIR, or --wide.")
    assert json.loads(outputs["json"].read_text())["calibration"]["n_identities"] == N
    assert outputs["md"].read_text().startswith("# 4 face-voice pairs")
    assert "MEASURED ERROR" in outputs["txt"].read_text()
    written = sorted(p.name for p in (tmp_path / "report").iterdir())
    assert written == ["figures", "index.html", "pairs.csv", "validation.json"]
    assert (tmp_path / "report" / "validation.json").read_text() == outputs["json"].read_text()

    cards = {}
    for source, scorer in (("json", "likelihood"), ("csv", "likelihood"), ("json", "reference")):
        code, out, err = call(
            "fit", outputs[source], "--features", "cka", "--scorer", scorer, "-o", tmp_path / "card.json"
        )
        assert code == 0, err
        assert "4 pairs of 2 face and 2 voice encoders" in out
        cards[source, scorer] = json.loads((tmp_path / "card.json").read_text())
        assert cards[source, scorer]["target"]["scorer"] == scorer
    assert cards["csv", "likelihood"]["intercept"] == cards["json", "likelihood"]["intercept"]
    assert cards["json", "likelihood"]["intercept"] != cards["json", "reference"]["intercept"]
    code, out, err = call("rank", data, "--quiet", "--regression", tmp_path / "card.json", "--format", "json")
    assert code == 0, err
    assert next(iter(json.loads(out)["regressions"])) == "card"


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


def test_progress_and_what_was_kept_go_to_stderr_and_results_are_purged_with_the_cache(call, data, tmp_path):
    _, first, err = call("validate", data, "--only", "gw", "--format", "json")
    assert "gw: 4 done" in err
    _, second, err = call("validate", data, "--only", "gw", "--format", "json")
    assert "gw: 4 done" not in err
    assert first == second
    assert "results of validate" in call("cache")[1]
    assert call("cache", "purge", "--yes")[0] == 0
    assert not (tmp_path / "cache").exists()


def test_no_cache_keeps_nothing(call, data, tmp_path):
    assert call("validate", data, "--only", "spectral", "--no-cache", "--quiet")[0] == 0
    assert not (tmp_path / "cache").exists()


def test_help_names_every_stage(call):
    out = call("validate", "--help")[1]
    assert all(stage in out for stage in stage_names())
