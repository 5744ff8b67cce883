"""How commands report progress and write results: stdout for results alone, files whole or not at all."""

import contextlib
import functools
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from encsel.cli.annotation import annotate
from encsel.errors import GATE_FAILED, BadCalibration, EncselError, UsageError, harmless
from encsel.progress import OnStderr, Progress, Silent
from encsel.storage.result import FILE_WIDTH, form_of, save_text

if TYPE_CHECKING:
    from encsel.ranking.result import Measurement


def results_apart(function: Callable[..., int]) -> Callable[..., int]:
    """Call a command with `out`, which is stdout; send what libraries and abandoned threads print to stderr."""

    @functools.wraps(function)
    def apart(*args: Any, **options: Any) -> int:
        out = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            return function(*args, out=out, **options)

    return apart


def progress_of(quiet: bool, *, before_result: bool = False) -> Progress:
    """Progress on stderr, or none; `before_result`: a table follows that says what failed."""
    return Silent() if quiet else OnStderr(before_result=before_result)


@contextlib.contextmanager
def resumable(progress: Progress, cache: str | None) -> Iterator[None]:
    """Work whose finished parts the cache keeps: after an interrupt, say so."""
    try:
        yield
    except KeyboardInterrupt:
        if cache is not None:
            progress.note("What was finished is in the cache; run the same command again to continue.")
        raise


def check_outputs(
    paths: Iterable[Path], *, inputs: Iterable[Path], report: Path | None = None, others: Iterable[Path | None] = ()
) -> None:
    """Check that every path can be written in the format of its suffix, is written once, and is not read.

    Args:
        inputs: what the run reads.
        report, others: folders that are written as well.
    Raises:
        UsageError: unknown suffix, missing folder, a path that is written twice, or one that is read.
    """
    for path in paths:
        form_of(path)
        if not path.parent.is_dir():
            raise UsageError(f"{path}: the folder {path.parent} does not exist. Create it first.")
    files, folders = [*paths], [folder for folder in (report, *others) if folder is not None]
    if report is not None:
        from encsel.reports.page import FIGURES, FILES

        files += [report / name for name in FILES]
        folders.append(report / FIGURES)
    check_apart(files, folders, inputs=inputs)


def check_apart(files: Iterable[Path], folders: Iterable[Path] = (), *, inputs: Iterable[Path]) -> None:
    """Raise UsageError if a file is written twice, or a file or folder that is written is an input.

    A run that overwrites its baseline fails once, and passes from then on.
    """
    read = {place for path in inputs for place in _places(path)}
    written: set[Path] = set()
    for path, is_file in (*((path, True) for path in files), *((path, False) for path in folders)):
        if read & _places(path):
            raise UsageError(f"{path} is an input of this run, which would overwrite it. Choose another output.")
        if written & _places(path):
            raise UsageError(f"{path} would be written twice by this run. Choose another path for one of them.")
        written |= _places(path) if is_file else set()


def _places(path: Path) -> set[Path]:
    """The location of a path, and that of its target if it is a link."""
    try:
        return {path.absolute().parent.resolve() / path.name, path.resolve()}
    except (OSError, RuntimeError, ValueError):  # links in a circle, a NUL, a removed current folder: reported later
        return {path}


def write_page(result: Any, folder: Path, data: Path, progress: Progress, *, private: bool) -> None:
    """Write the report of this command's result on a set into a folder, and say where it is."""
    import datetime

    from encsel.reports.page import Origin, write_report

    # Pages are passed on: neither the folders above the set nor those of other files are told.
    name = data.resolve().name
    arguments = (name if Path(argument) == data else _FOLDERS.sub("", argument) for argument in sys.argv[1:])
    origin = Origin(name, shlex.join(["encsel", *arguments]), datetime.date.today().isoformat())
    with progress.task("drawing the report", 1) as task:
        page = write_report(result, folder, origin, private=private)
        task.advance()
    progress.note(f"Report: {page}")


_FOLDERS = re.compile(r"(?:(?<![^=:,])|(?<=^-o))(?:[A-Za-z]:)?(?:~|[.]{1,2})?[/\\](?:[^/\\]*[/\\])*")
"""Folders at the start of a path that is absolute, in the home folder, or relative to a folder by dots."""


def inputs_of(data: Path, encoders: Iterable[str], *others: str | Path | None) -> list[Path]:
    """Paths that a run on a set reads, as far as they are known in advance: named ones, and tables of known names.

    Args:
        others: a card, a baseline; None if there is none.
    """
    from encsel.cli.settings import OWN, SHARED
    from encsel.data.embedding_files import shards_of
    from encsel.embedding.candidates import names_embeddings
    from encsel.loading.spec import parse
    from encsel.storage.documents import cards_folder

    inputs = [data, data / "manifest.csv", data / "vox1_meta.csv", Path(OWN), Path(SHARED)]
    inputs += cards_folder().glob("*.json")
    inputs += [Path(other) for other in (*others, os.environ.get("ENCSEL_WEIGHTS")) if other]
    if data.is_dir():
        inputs += [*data.glob("faces/*.csv"), *data.glob("voices/*.csv"), *data.glob("*/vox1_meta.csv")]
    for text in encoders:
        if names_embeddings(text):
            inputs.append(Path(text))
            with contextlib.suppress(BadCalibration):  # reported when they are read
                inputs += [path for shard in shards_of(Path(text)) for path in (shard, shard.with_suffix(".csv"))]
            continue
        with contextlib.suppress(UsageError):  # reported when it is opened
            if (checkpoint := parse(text).checkpoint) and (folder := Path(checkpoint)).is_dir():
                inputs += [folder, *folder.glob("*config*.json")]
    return inputs


def deliver(
    text_of: Callable[..., str],
    form: str,
    outputs: Iterable[Path],
    out: TextIO,
    *,
    result: "Measurement",
    wide: bool = False,
    private: bool = False,
    more: Iterable[Callable[[], object]] = (),
) -> int:
    """Write a result to its files, the job's summary and stdout, and return the exit code.

    If one output cannot be written, the others still are.

    Args:
        text_of: format, `width`, `colour` and `wide` to the text of the result.
        result: whose exit code it is.
        wide: print every column; files always have them.
        private: make files readable by their owner only.
        more: what is written after the files.
    """
    from encsel.reports.github import append_summary

    code = result.exit_code

    def save(path: Path) -> None:
        save_text(path, text_of(form_of(path), width=FILE_WIDTH), private=private)

    steps: list[Callable[[], object]] = [functools.partial(save, path) for path in outputs]
    if form == "github":
        steps.append(lambda: append_summary(text_of("summary")))
    for step in (*steps, *more):
        try:
            step()
        except UsageError as error:
            code = unwritten(error, code)
    if result.broken:
        annotate("; ".join(f"{name} {reason}" for name, reason in result.broken.items()), result.exit_code)
    terminal = out.isatty()
    emit(text_of(form, colour=terminal, width=terminal_width() if terminal else FILE_WIDTH, wide=wide), out)
    return code


def unwritten(error: EncselError, code: int) -> int:
    """Report an output that could not be written, and return the new exit code; that of a failed gate stays."""
    click.echo(f"encsel: {error}", err=True)
    code = code if code == GATE_FAILED else error.exit_code
    annotate(str(error), code)
    return code


def emit(text: str, out: TextIO | None = None) -> None:
    """Print a result."""
    click.echo(text, file=out or sys.stdout, nl=False)


def say(text: str, *, err: bool = False, out: TextIO | None = None) -> None:
    """Print a line that may hold text from outside."""
    click.echo(harmless(text), file=out, err=err)


def terminal_width(least: int = 80) -> int:
    """Columns of the terminal, or `least` if it is narrower."""
    return max(shutil.get_terminal_size().columns, least)
