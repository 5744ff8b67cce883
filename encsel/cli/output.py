"""How commands write their results: stdout for results alone, files whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

import click

from encsel.storage.result import FILE_WIDTH, FORMAT_OF_SUFFIX


def results_apart(function: Callable[..., int]) -> Callable[..., int]:
    """Call a command with `out`, which is stdout; send what libraries and abandoned threads print to stderr."""

    @functools.wraps(function)
    def apart(*args: Any, **options: Any) -> int:
        out = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            return function(*args, out=out, **options)

    return apart


def check_outputs(paths: Iterable[Path]) -> None:
    """Check that every path can be written in the format of its suffix.

    Raises:
        UsageError: another suffix, or no such folder.
    """
    from encsel.errors import UsageError

    for path in paths:
        if path.suffix.lower() not in FORMAT_OF_SUFFIX:
            suffixes = ", ".join(FORMAT_OF_SUFFIX)
            raise UsageError(f"--output {path}: the suffix {path.suffix!r} is none of {suffixes}. Rename it.")
        if not path.absolute().parent.is_dir():
            raise UsageError(f"--output {path}: the folder {path.absolute().parent} does not exist. Create it first.")


def deliver(
    text_of: Callable[..., str], form: str, outputs: Iterable[Path], out: TextIO, *, private: bool = False
) -> None:
    """Write a result to its files, the job's summary and stdout.

    Args:
        text_of: format, `width` and `colour` to the text of the result.
        private: make files readable by their owner only.
    """
    from encsel.errors import UsageError
    from encsel.reports.github import append_summary
    from encsel.storage.files import write_private, write_public

    if form == "github":
        append_summary(text_of("markdown"))
    # Files first: a reader of stdout that goes away must not cost the user a file.
    for path in outputs:
        text = text_of(FORMAT_OF_SUFFIX[path.suffix.lower()], width=FILE_WIDTH)
        try:
            (write_private if private else write_public)(path, text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise UsageError(f"--output {path} cannot be written: {error.strerror}. Choose another place.") from error
    terminal = out.isatty()
    emit(text_of(form, colour=terminal, width=terminal_width() if terminal else FILE_WIDTH), out)


def emit(text: str, out: TextIO | None = None) -> None:
    """Print a result. A reader that went away is not a failure, a full disk is."""
    from encsel.errors import UsageError

    out = out or sys.stdout
    try:
        click.echo(text, file=out, nl=False)
    except BrokenPipeError:
        # Elsewhere, so that the interpreter's last flush is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        raise UsageError(f"The result cannot be written to stdout: {error.strerror}. Send it elsewhere.") from error


def terminal_width() -> int:
    return max(shutil.get_terminal_size().columns, 80)
