"""encsel validate."""

from __future__ import annotations

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
from encsel.cli.rank import results_apart
from encsel.matching.evaluate import PROTOCOLS
from encsel.matching.scorers import SCORERS
from encsel.reports.validation import FORMATS
from encsel.validation.result import STAGES

SUFFIXES = {".json": "json", ".csv": "csv", ".md": "markdown", ".txt": "table"}
WIDE = 200


def _listed(value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@encoder_options
@runtime_options
@data_options
@cache_options
@click.option(
    "--min-identities",
    type=click.IntRange(10),
    default=30,
    show_default=True,
    help="Fewest people with both faces and voices.",
)
@quiet_option
@format_option(FORMATS)
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="crossval",
    show_default=True,
    help="crossval: repeated 5 folds over people, corrected metrics. reference: the study's single 80/20 split and the "
    "numbers of its released code.",
)
@click.option(
    "--scorer",
    type=click.Choice(tuple(SCORERS)),
    default="reference",
    show_default=True,
    help="Of the EERs in analysis and figures; all three are measured.",
)
@click.option("--skip", metavar="STAGES", help=f"Leave these out, by comma: {', '.join(STAGES)}.")
@click.option("--only", metavar="STAGES", help="Do these alone, by comma. Linear CKA is always measured.")
@click.option(
    "--jobs", type=click.IntRange(1), help="Encoders or pairs at a time, a thread each. Default: all processors."
)
@click.option(
    "--regression",
    default="encsel-calibrated",
    show_default=True,
    metavar="CARD",
    help="Card that orders the pairs, as in `encsel rank`.",
)
@click.option(
    "--coverage",
    type=click.FloatRange(0.5, 0.99),
    default=0.9,
    show_default=True,
    help="Of the intervals of predicted EERs.",
)
@click.option("--within", metavar="COLUMN", help="As in `encsel rank`: shuffle people only within these groups.")
@click.option(
    "--report",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write index.html (one page with all tables and figures), figures/*.png and validation.json here.",
)
@click.option(
    "--scores",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write score files here, one a pair and scorer, four columns a line: person of the face, person of the voice, "
    "what was scored, score. Only you can read them.",
)
@gate_options
@click.option("--strict-health", is_flag=True, help="Exit 4 when an encoder is unsound.")
@click.option(
    "--show-names",
    is_flag=True,
    help="In score files and JSON, names of people and samples instead of hashes. "
    "Files are then readable by you alone.",
)
@click.option(
    "--output",
    "-o",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Also write to this file, in the format its suffix says: {', '.join(SUFFIXES)}. Repeatable.",
)
@results_apart
def validate(
    data: Path,
    out: TextIO,
    form: str,
    quiet: bool,
    cache: str,
    outputs: tuple[Path, ...],
    folder: Path | None,
    skip: str | None,
    only: str | None,
    **options: Any,
) -> int:
    """Measure everything about every face-voice pair: real error rates, geometry, and what goes with what.

    DATA is as for `encsel rank`. Where that predicts the error after training on 999 people, this trains matchers on
    some of your people and measures them on others: EER, AUC, FNMR, DET, two-choice matching and retrieval, for
    centroids and for single samples; with faces and voices from other recordings; within groups such as sex or
    language, where the set has the column. Beside them the whole geometry of every encoder and pair, and how all of it
    goes with the errors.

    Finished stages are kept in the cache: the same command goes on where it stopped, and a changed one repeats only
    what the change touches. The CSV is a pair table, and the JSON a result, that `encsel fit` reads.
    """
    from encsel.cli.rank import checked_outputs, emit, terminal_width, write_outputs
    from encsel.progress import OnStderr, Silent
    from encsel.reports.github import append_summary
    from encsel.reports.page import write_report
    from encsel.reports.validation import render
    from encsel.validation.validate import validate as validate_set

    checked_outputs(outputs, SUFFIXES)
    progress = Silent() if quiet else OnStderr()
    runtime, gates = runtime_of(options), gates_of(options)
    try:
        report = validate_set(
            data,
            cache=cache_of(cache),
            skip=_listed(skip),
            only=_listed(only),
            runtime=runtime,
            gates=gates,
            progress=progress,
            **options,
        )
    except KeyboardInterrupt:
        if cache_of(cache) is not None:
            progress.note("What was finished so far is in the cache; the same command goes on from there.")
        raise
    if form == "github":
        append_summary(render(report, "markdown"))
    # Files first: a reader of stdout that goes away must not cost the user a file.
    private = bool(options["show_names"])
    write_outputs(
        {path: render(report, SUFFIXES[path.suffix.lower()], width=WIDE) for path in outputs}, private=private
    )
    if folder is not None:
        progress.note(f"Report: {write_report(report, folder, private=private)}")
    terminal = out.isatty()
    emit(render(report, form, colour=terminal, width=terminal_width() if terminal else WIDE), out)
    return report.exit_code
