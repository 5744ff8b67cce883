"""One error annotation for every run that ends in an error, where GitHub Actions reads it."""

import itertools
import os
import sys

from encsel.progress import command_on_stderr


def annotate(text: str, code: int) -> None:
    """Print why a run ends with this exit code, if GitHub Actions runs it or `--format github` was given.

    On stderr, which the runner reads as well, because stdout may be a file.
    """
    given = ("--format", "github") in itertools.pairwise(sys.argv) or "--format=github" in sys.argv
    if given or os.environ.get("GITHUB_ACTIONS") == "true":
        from encsel.reports.escapes import workflow_command

        command_on_stderr(workflow_command("error", f"encsel (exit code {code})", text))
