"""JUnit XML: a test case for each gate and each encoder, as CI systems list tests."""

import datetime
from collections.abc import Iterator
from xml.etree import ElementTree

from encsel.ranking.result import Measurement
from encsel.reports.escapes import in_xml
from encsel.reports.github import gate_text

PROBLEMS = {"fail": "failure", "inconclusive": "error"}
"""Element of a gate by its status. An inconclusive gate is an error, not skipped: CI systems count skipped tests as
fine, and a job that reads the file alone must not pass on it."""

Case = tuple[str, str, tuple[str, str, str] | None]
"""Group, name, and element, type and text of a problem."""


def junit(result: Measurement, suite_name: str) -> str:
    """The checks of a result as ASCII XML, valid against the JUnit schema of Apache Ant.

    Source: https://github.com/windyroad/JUnit-Schema, whose hostname is "localhost" where it is not told.
    """
    cases = [*_gates(result), *_encoders(result)]
    problems = [problem[0] for *_, problem in cases if problem]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        root, "testsuite", package="encsel", id="0", name=suite_name, timestamp=now, hostname="localhost", time="0",
        tests=str(len(cases)), failures=str(problems.count("failure")), errors=str(problems.count("error")),
    )  # fmt: skip
    ElementTree.SubElement(suite, "properties")
    for group, name, problem in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=group, name=in_xml(name), time="0")
        if problem:
            element, kind, text = problem
            # Some CI systems show the attribute, others the text.
            ElementTree.SubElement(case, element, type=kind, message=in_xml(text)).text = in_xml(text)
    ElementTree.SubElement(suite, "system-out").text = in_xml(result.decision.text)
    unsound = [f"{name} is unsound: {reason}" for name, reason in result.findings.items() if name not in result.broken]
    ElementTree.SubElement(suite, "system-err").text = in_xml("; ".join(unsound))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="us-ascii", xml_declaration=True).decode() + "\n"


def _gates(result: Measurement) -> Iterator[Case]:
    for gate in result.verdict.gates:
        problem = (PROBLEMS[gate.status], gate.status, gate_text(gate, result)) if gate.status in PROBLEMS else None
        yield "encsel.gates", gate.gate, problem


def _encoders(result: Measurement) -> Iterator[Case]:
    for failure in result.failures:
        yield f"encsel.encoders.{failure.modality}", failure.encoder, ("error", "failed", failure.reason)
    for encoder in result.encoders:
        reason = result.broken.get(encoder.name)
        problem = None if reason is None else ("failure", "unsound", reason)
        yield f"encsel.encoders.{encoder.modality}", encoder.name, problem
