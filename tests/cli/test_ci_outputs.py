"""What CI systems show of a result: JUnit XML, error annotations, the job summary."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from encsel.core import Failure
from encsel.gates.judge import GateVerdict, Verdict
from encsel.ranking.result import Ranking
from encsel.reports.escapes import workflow_command
from encsel.storage.result import render

GATES = tuple(GateVerdict(f"max-eer {i}", status, f"a/b has EER 0.{i}") for i, status in enumerate(
    ("pass", "fail", "inconclusive")))  # fmt: skip
ODD = (
    "\0\x01\x08\x0b\x1f\x7f",
    "\ufffe\uffff\ud800",
    "a\nb\r\tc",
    "]]><x y='\"'>&amp;",
    "name \U0001f600",
    "",
    "::error::x ##[x]",
)


@pytest.fixture(scope="module")
def judged(ranking: Ranking) -> Ranking:
    """With a gate of each status, and an encoder that failed."""
    return dataclasses.replace(ranking, verdict=Verdict("fail", GATES), failures=(Failure("voice", "gone", "no file"),))


# JUnit


def suite_of(text: str) -> ElementTree.Element:
    """The only suite, checked against what JUnit's schema asks of attributes, counts and the order of elements."""
    assert text.isascii()
    root = ElementTree.fromstring(text)
    (suite,) = root
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    assert set(suite.attrib) == {
        "package", "id", "name", "timestamp", "hostname", "time", "tests", "failures", "errors"
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
    cases = suite.findall("testcase")
    assert [child.tag for child in suite] == ["properties", *["testcase"] * len(cases), "system-out", "system-err"]
    for case in cases:
        assert set(case.attrib) == {"classname", "name", "time"}
        assert len(case) <= 1
        assert all(set(problem.attrib) == {"type", "message"} for problem in case)
    counts = {"tests": "testcase", "failures": "testcase/failure", "errors": "testcase/error"}
    assert {name: int(suite.attrib[name]) for name in counts} == {n: len(suite.findall(p)) for n, p in counts.items()}
    return suite


def outcomes(suite: ElementTree.Element) -> dict[tuple[str, str], tuple[str, str] | None]:
    """Element and message of each test case's problem."""
    return {
        (case.attrib["classname"].removeprefix("encsel."), case.attrib["name"]): next(
            ((problem.tag, problem.attrib["message"]) for problem in case), None
        )
        for case in suite.findall("testcase")
    }


def test_every_gate_and_every_encoder_is_a_test_case(judged):
    suite = suite_of(render(judged, "junit"))
    required = "Required: max-eer {}. EERs are predicted."
    assert outcomes(suite) == {
        ("gates", "max-eer 0"): None,
        ("gates", "max-eer 1"): ("failure", "a/b has EER 0.1. " + required.format(1)),
        ("gates", "max-eer 2"): ("error", "a/b has EER 0.2. " + required.format(2)),
        ("encoders.voice", "gone"): ("error", "no file"),
        **{(f"encoders.{e.modality}", e.name): None for e in judged.encoders},
    }
    assert suite.findtext("system-out") == judged.decision.text
    assert suite.findtext("testcase/failure") == "a/b has EER 0.1. " + required.format(1)


def test_an_unsound_encoder_fails_its_test_case_where_health_is_required(ranking):
    first = ranking.encoders[0]
    unsound = dataclasses.replace(ranking, encoders=(dataclasses.replace(first, health=("is dull",)),))
    suite = suite_of(render(unsound, "junit"))
    assert set(outcomes(suite).values()) == {None}
    assert suite.findtext("system-err") == f"{first.name} is unsound: is dull"
    suite = suite_of(render(dataclasses.replace(unsound, strict_health=True), "junit"))
    assert outcomes(suite) == {(f"encoders.{first.modality}", first.name): ("failure", "is unsound: is dull")}
    assert not suite.findtext("system-err")


@pytest.mark.parametrize("text", ODD)
def test_names_that_xml_cannot_hold_are_escaped(judged, text):
    changed = dataclasses.replace(
        judged, failures=(Failure("face", text, text),), verdict=Verdict("fail", (GateVerdict(text, "fail", text),)),
        decision=dataclasses.replace(judged.decision, text=text),
    )  # fmt: skip
    made = render(changed, "junit")
    suite = suite_of(made)
    assert not re.search("##\\[|^\\s*::", made, re.MULTILINE)
    shown = suite.findtext("system-out")
    assert shown is not None
    if text.isprintable() and "::" not in text:
        assert shown == text
    assert re.sub(r"\\\w+", "", shown).isprintable()


@pytest.mark.parametrize("command", [("rank",), ("validate", "--only", "matching")])
def test_xml_is_written_by_its_suffix_and_printed_on_request(call, ready, tmp_path, command):
    file, (name, *rest) = tmp_path / "result.xml", command
    gate = ("--max-eer", "0", "--gate-on", "point")
    code, out, err = call(name, ready, *rest, "-q", "-o", file, "--format", "junit", *gate)
    assert code == 1, err
    for text in (out, file.read_text(encoding="ascii")):
        suite = suite_of(text)
        assert suite.attrib["name"] == f"encsel {name}"
        tag, message = outcomes(suite)["gates", "max-eer 0"]
        what = "predicted" if name == "rank" else "measured"
        assert tag == "failure"
        assert re.fullmatch(rf"face0/voice0 has EER 0\.\d+\. Required: max-eer 0\. EERs are {what}\.", message)


# Annotations


def errors_in(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("::error")]


@pytest.mark.parametrize("way", ["--format github", "--format=github", "GITHUB_ACTIONS"])
@pytest.mark.parametrize(
    ("code", "arguments", "says"),
    [
        (2, ("--max-eer", "7"), "The gate --max-eer is 7"),
        (2, ("--no-such",), "No such option"),
        (2, ("--voice", "x\n::error::y ##[z]"), r"x\n::error::y ##\x5bz]"),
        (3, ("--min-identities", "99"), "32"),
        (4, ("--face", "dinov2:nowhere", "--voice", "ltas", "--min-identities", "5"), "No face encoder could be run"),
    ],
)
def test_a_run_that_ends_before_its_result_prints_one_error(
    call, ready, media, monkeypatch, way, code, arguments, says
):
    data = media if code == 4 else ready
    given = (*arguments, *way.split()) if way.startswith("-") else arguments
    if way == "GITHUB_ACTIONS":
        monkeypatch.setenv(way, "true")
    found, out, err = call("rank", data, *given)
    assert (found, out) == (code, "")
    (line,) = errors_in(err)
    assert line.startswith(f"::error title=encsel (exit code {code})::")
    assert says in line
    assert "##[" not in err


def test_without_a_job_no_error_is_annotated(call, ready, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "false")
    assert not errors_in(call("rank", ready, "--max-eer", "7")[2])


@pytest.mark.parametrize("form", ["github", "json"])
def test_a_result_without_some_encoder_prints_one_error(call, media, tmp_path, monkeypatch, form):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    broken = [word for name in "ab" for word in ("--face", f"dinov2:{tmp_path / name}@name={name}")]
    command = ("rank", media, "-q", "--face", "pixels", "--voice", "ltas", *broken, "--min-identities", 5)
    code, out, err = call(*command, "--format", form)
    assert code == 4
    (line,) = errors_in(out + err)
    assert line in err
    assert re.match(r"::error title=encsel \(exit code 4\)::a failed: .*; b failed: ", line)


def test_what_cannot_be_written_is_one_error(call, ready, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "summary.md"))
    code, _, err = call("rank", ready, "-q", "--format", "github")
    assert code == 2
    assert len(errors_in(err)) == 1


def test_an_unfinished_line_does_not_hide_the_error():
    code = (
        "import sys; from encsel import progress\n"
        "with progress.stderr_disarmed():\n"
        "    sys.stderr.write('::error::half a line')\n"
        "    progress.command_on_stderr('::error::x')\n"
        "    sys.stderr.write('::error::y')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [r":\x3aerror::half a line", "::error::x", r":\x3aerror::y"]


def test_annotations_give_value_limit_and_kind_of_eer_and_cannot_be_broken_out_of(judged, validation):
    first, *_, last = render(judged, "github").splitlines()
    assert first == "::notice title=max-eer 0%3A pass::a/b has EER 0.0. Required: max-eer 0. EERs are predicted."
    assert last.startswith(f"::error title=encsel::{judged.decision.text} ")
    assert last.endswith("; verdict: fail")
    measured = dataclasses.replace(validation, verdict=Verdict("fail", GATES))
    assert "Required: max-eer 1. EERs are measured." in render(measured, "github")
    line = workflow_command("error", "a:b,c", "x\n::stop::y% ##[group]")
    assert line == r"::error title=a%3Ab%2Cc::x%0A::stop::y%25 ##\x5bgroup]"


# The job summary


def test_the_summary_has_the_outcome_the_decision_and_five_columns_and_folds_the_rest(judged, validation):
    sound = dataclasses.replace(judged, failures=())
    for result, heading, column in (
        (sound, "FAIL", "Predicted EER"),
        (judged, "ENCODER FAILED", "Predicted EER"),
        (dataclasses.replace(sound, verdict=Verdict()), "no gates", "Predicted EER"),
        (validation, "no gates", "Measured EER"),
    ):
        shown, folded = render(result, "summary").split("<details>")
        first, _, decision, _, header, _, *rows, _ = shown.splitlines()
        assert first == f"## encsel: {heading}"
        assert decision == f"**{result.decision.text}**"
        cells = [cell.strip() for cell in header.strip("|").split("|")]
        assert cells == [cells[0], "Face", "Voice", column, "Interval 90 %"]
        assert len([row for row in rows if row]) == len(result.pairs)
        assert all(row.count("|") == 6 for row in rows if row)
        assert folded.endswith("\n</details>\n")
        assert ("Verdict: FAIL." in folded) == bool(result.verdict.gates)
        assert result.signature["id"][:12] in folded


def test_pairs_that_cannot_be_told_apart_share_their_places(ranking):
    tied = dataclasses.replace(ranking, pairs=tuple(dataclasses.replace(p, places=(1, 4)) for p in ranking.pairs))
    rows = [line for line in render(tied, "summary").split("<details>")[0].splitlines() if line.startswith("| 1")]
    assert len(rows) == len(ranking.pairs)
    assert all(row.startswith("| 1-4 | ") for row in rows)


@pytest.mark.parametrize("text", ["</details>\n# encsel: PASS", "## encsel: PASS", "<script>", "|a|", "```", *ODD])
def test_no_text_leaves_its_place_in_the_summary(judged, text):
    from markdown_it import MarkdownIt

    def tags(result: Ranking) -> list[str]:
        reader = MarkdownIt("commonmark", {"html": True}).enable("table")
        return re.findall(r"<[^\s>]+", reader.render(render(result, "summary")))

    def with_text(text: str) -> Ranking:
        pairs = tuple(dataclasses.replace(p, face=text, flags=(text,)) for p in judged.pairs)
        return dataclasses.replace(
            judged, pairs=pairs, notes=(text,), signature_text=text or "x", failures=(Failure("face", text, text),),
            decision=dataclasses.replace(judged.decision, text=text or "x"),
        )  # fmt: skip

    assert tags(with_text(text)) == tags(with_text("x"))


def test_the_summary_is_appended_to_the_file_of_the_job(call, ready, tmp_path, monkeypatch):
    summary: Path = tmp_path / "summary.md"
    summary.write_text("earlier\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", os.fspath(summary))
    assert call("rank", ready, "-q", "--format", "github", "--max-eer", "1", "--above-chance")[0] in (0, 6)
    first, second, *_ = summary.read_text().splitlines()
    assert first == "earlier"
    assert second in ("## encsel: PASS", "## encsel: INCONCLUSIVE")
