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
    gate_options,
    min_identities_option,
    prediction_options,
    result_options,
    runtime_options,
)
from encsel.cli.output import check_outputs, deliver, results_apart
from encsel.matching.folds import PROTOCOLS
from encsel.matching.scorers import SCORERS
from encsel.validation.stage import stage_names


def _listed(value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@encoder_options
@runtime_options
@data_options
@cache_options
@min_identities_option(10, "")
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="crossval",
    show_default=True,
    help="crossval: repeated 5 folds over people, corrected metrics. reference: the study's single 80/20 split "
    "and the numbers of its released code.",
)
@click.option(
    "--scorer",
    type=click.Choice(tuple(SCORERS)),
    default="reference",
    show_default=True,
    help="Scorer of the EERs in gates, analysis and figures; all are measured.",
)
@click.option("--skip", metavar="STAGES", help=f"Leave these out, separated by commas: {', '.join(stage_names())}.")
@click.option("--only", metavar="STAGES", help="Do only these, separated by commas. Linear CKA is always measured.")
@click.option("--jobs", type=click.IntRange(1), help="Encoders or pairs at a time. Default: all processors.")
@prediction_options
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
    help="Write score files here, one per pair and scorer, four columns a line: person of the face, person of "
    "the voice, what was scored, score. Only you can read them.",
)
@gate_options
@result_options
@results_apart
def validate(
    data: Path,
    out: TextIO,
    form: str,
    quiet: bool,
    cache: str,
    outputs: tuple[Path, ...],
    folder: Path | None,
    **options: Any,
) -> int:  # fmt: skip
    """Measure everything about every face-voice pair: real error rates, geometry, and what goes with what.

    DATA is as for `encsel rank`. Where that predicts the error after training on 999 people, this trains matchers on
    some of your people and measures them on others: EER, AUC, FNMR, DET, two-choice matching and retrieval, for
    centroids and for single samples; with faces and voices from other recordings; within groups such as sex or
    language, where the set has the column. Beside them the whole geometry of every encoder and pair, and how all of it
    goes with the errors.

    Finished stages are kept in the cache: the same command goes on where it stopped, and a changed one repeats only
    what the change touches. The CSV is a pair table, and the JSON a result, that `encsel fit` reads.
    """
    from encsel.progress import OnStderr, Silent
    from encsel.reports import validation as _  # noqa: F401 - registers how a validation is rendered
    from encsel.reports.page import write_report
    from encsel.storage.result import render
    from encsel.validation.validate import validate as validate_set

    check_outputs(outputs)
    progress = Silent() if quiet else OnStderr()
    options |= {name: _listed(options[name]) for name in ("skip", "only")}
    try:
        validation = validate_set(data, cache=cache_of(cache), progress=progress, **options)
    except KeyboardInterrupt:
        if cache_of(cache) is not None:
            progress.note("What was finished so far is in the cache; the same command goes on from there.")
        raise
    private = bool(options["show_names"])
    if folder is not None:
        progress.note(f"Report: {write_report(validation, folder, private=private)}")

    def text_of(form: str, **look: Any) -> str:
        return render(validation, form, **look)

    deliver(text_of, form, outputs, out, private=private)
    return validation.exit_code
