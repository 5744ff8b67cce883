"""encsel rank."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import click

from encsel.cli.options import (
    cache_of,
    cache_options,
    data_options,
    encoder_options,
    format_option,
    gate_options,
    gates_of,
    quiet_option,
    runtime_of,
    runtime_options,
)

FORMATS = ("table", "json", "csv", "markdown", "github")
WIDE = 160
SUFFIXES = {".json": "json", ".csv": "csv", ".md": "markdown", ".txt": "table"}


def ranking_options(function: Any) -> Any:
    """What `rank` and `demo` share."""
    for option in (
        quiet_option,
        format_option(FORMATS),
        click.option("--regression", default="encsel-calibrated", show_default=True, metavar="CARD",
                     help="Card that orders the pairs: a shipped one by name (encsel-calibrated-weighted for the "
                     "scorer to deploy, upadhyay2026 for the study's), or the path of one made by `encsel fit`."),
        click.option("--coverage", type=click.FloatRange(0.5, 0.99), default=0.9, show_default=True,
                     help="Share of intervals that hold the true value."),
        click.option("--within", metavar="COLUMN",
                     help="Shuffle people only within the groups of this column of the set. Default: sex or gender, "
                     "where every person has one."),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@encoder_options
@runtime_options
@data_options
@cache_options
@click.option(
    "--min-identities",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Fewest people with both faces and voices. Under 30 the order is coarse and no EER is predicted.",
)
@ranking_options
@click.option("--explain", metavar="FACE/VOICE", help="Also show what made the prediction for this pair.")
@gate_options
@click.option("--strict-health", is_flag=True, help="Exit 4 when an encoder is unsound.")
@click.option(
    "--show-names",
    is_flag=True,
    help="Name skipped samples in the JSON, instead of hashing their names. "
    "Files of --output are then readable by you alone.",
)
@click.option(
    "--output",
    "-o",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Also write to this file, in the format its suffix says: {', '.join(SUFFIXES)}. Repeatable.",
)
def rank(data: Path, **options: Any) -> int:  # fmt: skip
    """Rank every face-voice pair of encoders by predicted cross-modal EER.

    DATA is the folder of a calibration set, or its manifest CSV: the same people in both modalities.

    \b
    Recognised, in this order:
      a manifest CSV (or DATA/manifest.csv): identity,modality,path[,sample][,sex,...]
      embeddings: DATA/faces/NAME.npz with DATA/voices/NAME.npz (arrays embeddings,
      labels[, samples]; also .safetensors, or .npy with a .csv of labels beside it)
      MAV-Celeb (vN/{faces,voices}/ID/LANGUAGE/VIDEO/*)
      VoxCeleb1 (wav/id1xxxx/VIDEO/*.wav; faces by id, or by name with vox1_meta.csv)
      DATA/faces/ID/** with DATA/voices/ID/**
      DATA/ID/{face*,image*}/** with DATA/ID/{voice*,audio*,wav*}/**

    The table goes to stdout, everything else to stderr.
    """
    return run(data, runtime=runtime_of(options), gates=gates_of(options), **options)


def results_apart(function: Callable[..., int]) -> Callable[..., int]:
    """Call a command with `out`, which is stdout; what libraries print, and threads left behind, goes to stderr."""

    @functools.wraps(function)
    def apart(*args: Any, **options: Any) -> int:
        out = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            return function(*args, out=out, **options)

    return apart


@results_apart
def run(
    data: Path,
    *,
    out: TextIO,
    form: str,
    quiet: bool,
    cache: str,
    outputs: tuple[Path, ...] = (),
    explain: str | None = None,
    **options: Any,
) -> int:
    """Check the outputs, rank, write, print; the exit code."""
    from encsel.errors import UsageError
    from encsel.progress import OnStderr, Silent
    from encsel.ranking.explain import explain as explain_pair
    from encsel.ranking.rank import rank as rank_pairs
    from encsel.reports.github import append_summary
    from encsel.reports.ranking import render

    if explain is not None and form in ("csv", "github"):
        raise UsageError(f"--explain has no place in {form}. Choose another --format.")
    checked_outputs(outputs, SUFFIXES)
    progress = Silent() if quiet else OnStderr()
    try:
        report = rank_pairs(data, cache=cache_of(cache), progress=progress, **options)
    except KeyboardInterrupt:
        if cache_of(cache) is not None:
            progress.note("What was embedded so far is in the cache; the same command goes on from there.")
        raise
    explanation, failed = None, None
    if explain is not None:
        try:
            explanation = explain_pair(report, explain)
        except UsageError as error:
            # The ranking itself is there, and was long in the making.
            failed = error
    if form == "github":
        append_summary(render(report, "markdown"))
    # Files first: a reader of stdout that goes away must not cost the user a file.
    write_outputs(
        {path: render(report, SUFFIXES[path.suffix.lower()], explanation=explanation, width=WIDE) for path in outputs},
        private=bool(options.get("show_names")),
    )
    terminal = out.isatty()
    text = render(report, form, explanation=explanation, colour=terminal, width=terminal_width() if terminal else WIDE)
    emit(text, out)
    if failed is not None:
        raise failed
    return report.exit_code


def checked_outputs(paths: Iterable[Path], suffixes: Iterable[str]) -> None:
    """Nothing, when every path can be written in a format its suffix says.

    Raises:
        UsageError: another suffix, or no such folder.
    """
    from encsel.errors import UsageError

    for path in paths:
        if path.suffix.lower() not in suffixes:
            known = ", ".join(suffixes)
            raise UsageError(f"--output {path}: the suffix {path.suffix!r} is none of {known}. Rename it.")
        if not path.absolute().parent.is_dir():
            raise UsageError(f"--output {path}: the folder {path.absolute().parent} does not exist. Make it first.")


def write_outputs(texts: Mapping[Path, str], *, private: bool = False) -> None:
    """Write each text to its file, whole or not at all; `private`: so that only the owner can read it."""
    from encsel.errors import UsageError
    from encsel.storage.files import write_private, write_public

    for path, text in texts.items():
        try:
            (write_private if private else write_public)(path, text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise UsageError(f"--output {path} cannot be written: {error.strerror}. Choose another place.") from error


def emit(text: str, out: TextIO | None = None) -> None:
    """Print a result, to stdout if nothing else; a reader that went away is no failure, a full disk is."""
    import os

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
    import shutil

    return max(shutil.get_terminal_size().columns, 80)
