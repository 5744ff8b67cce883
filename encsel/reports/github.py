"""GitHub Actions: annotations on stdout, and a Markdown summary in the file that the runner names."""

import os
from collections.abc import Mapping
from pathlib import Path

from encsel.errors import UsageError, printable
from encsel.gates.judge import Verdict

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
# An unescaped line break would begin another command.
_IN_TEXT = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_IN_PROPERTY = _IN_TEXT | str.maketrans({":": "%3A", ",": "%2C"})
LEVELS: Mapping[str, str] = {"pass": "notice", "fail": "error", "inconclusive": "warning", "none": "notice"}


def workflow_commands(title: str, verdict: Verdict, failures: Mapping[str, str], unsound: Mapping[str, str]) -> str:
    """Workflow commands: a line for each gate, failed encoder and unsound encoder, the headline last.

    Args:
        title: headline of the result.
        failures, unsound: reasons by encoder.
    """
    lines = [_command(LEVELS[g.status], f"{g.gate}: {g.status}", g.reason) for g in verdict.gates]
    lines += [_command("error", f"{name} failed", reason) for name, reason in failures.items()]
    lines += [_command("warning", f"{name} is unsound", reason) for name, reason in unsound.items()]
    verdict_words = "" if verdict.status == "none" else f"; verdict: {verdict.status}"
    return "\n".join([*lines, _command(LEVELS[verdict.status], "encsel", f"{title}{verdict_words}")]) + "\n"


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


def _command(level: str, title: str, text: str) -> str:
    return printable(f"::{level} title={title.translate(_IN_PROPERTY)}::{text.translate(_IN_TEXT)}")
