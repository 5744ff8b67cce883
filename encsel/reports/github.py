"""GitHub Actions: annotations, and a Markdown summary in the file that the runner names."""

import os
from collections.abc import Mapping
from pathlib import Path

from encsel.errors import UsageError
from encsel.gates.judge import GateVerdict
from encsel.ranking.result import Measurement
from encsel.reports.escapes import in_markdown, workflow_command
from encsel.reports.tables import markdown_table
from encsel.storage.sections import Section

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
LEVELS: Mapping[str, str] = {"pass": "notice", "fail": "error", "inconclusive": "warning", "none": "notice"}
N_COLUMNS = 5
"""Columns of the job summary's first table."""


def gate_text(gate: GateVerdict, result: Measurement) -> str:
    """Value, limit, and whether the EERs of a gate are measured or predicted."""
    return f"{gate.reason}. Required: {gate.gate}. EERs are {result.what}."


def annotations(result: Measurement, title: str) -> str:
    """Workflow commands: a line for each gate and unsound encoder, the headline last.

    Why an exit code is 2, 3 or 4 the command line says, whatever the format.
    """
    lines = [
        workflow_command(LEVELS[gate.status], f"{gate.gate}: {gate.status}", gate_text(gate, result))
        for gate in result.verdict.gates
    ]
    unsound = {name: reason for name, reason in result.findings.items() if name not in result.broken}
    lines += [workflow_command("warning", f"{name} is unsound", reason) for name, reason in unsound.items()]
    verdict = result.verdict.status
    title = f"{result.decision.text} {title}" + ("" if verdict == "none" else f"; verdict: {verdict}")
    return "\n".join([*lines, workflow_command(LEVELS[verdict], "encsel", title)]) + "\n"


def job_summary(result: Measurement, table: Section, rest: str) -> str:
    """Markdown: the outcome as a heading, the decision, the first columns of a table, and the rest folded."""
    outcome = result.verdict.status.upper() if result.verdict.gates else "no gates"
    if result.broken:
        outcome = "ENCODER FAILED" if result.failures else "ENCODER UNSOUND"
    first = markdown_table(table.header[:N_COLUMNS], [row[:N_COLUMNS] for row in table.rows])
    return (
        f"## encsel: {outcome}\n\n**{in_markdown(result.decision.text)}**\n\n{first}\n"
        f"<details><summary>Gates, all columns and notes</summary>\n\n{rest.strip()}\n\n</details>\n"
    )


def append_summary(markdown: str) -> None:
    """Append to the summary of the job, if there is one.

    Raises:
        UsageError: the file cannot be written.
    """
    where = os.environ.get(SUMMARY_VARIABLE)
    if not where:
        return
    try:
        with Path(where).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{markdown}\n")
    except OSError as error:
        raise UsageError(f"${SUMMARY_VARIABLE} ({where}) cannot be written: {error.strerror}. Unset it.") from error
