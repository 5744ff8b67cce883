"""encsel validate."""

from functools import partial
from pathlib import Path
from typing import Any, TextIO

import click

from encsel.cli.completion import stages as complete_stages
from encsel.cli.options import (
    FOLDER,
    PATH,
    Grouped,
    cache_of,
    min_identities_option,
    report_option,
    result_options,
    set_options,
    together,
)
from encsel.cli.output import check_outputs, deliver, inputs_of, progress_of, results_apart, resumable, write_page
from encsel.matching.folds import PROTOCOLS
from encsel.matching.scorers import DEFAULT_SCORER, SCORERS
from encsel.validation.stage import stage_names, stages

ON_REQUEST = ", ".join(name for name, stage in stages().items() if stage.on_request)

stage_options = together(
    click.option("--protocol", type=click.Choice(PROTOCOLS), default="crossval",
                 help="crossval: repeated 5 folds over people, corrected metrics. reference: the study's single 80/20 "
                 "split and the numbers of its released code."),
    click.option("--scorer", type=click.Choice(tuple(SCORERS)), default=DEFAULT_SCORER,
                 help="Scorer of the EERs in gates, analysis and figures; all are measured."),
    click.option("--skip", metavar="STAGES", shell_complete=complete_stages,
                 help=f"Leave these out, separated by commas: {', '.join(stage_names())}."),
    click.option("--only", metavar="STAGES", shell_complete=complete_stages,
                 help="Do only these, separated by commas. Linear CKA is always measured. "
                 f"Only if named here: {ON_REQUEST}."),
    click.option("--jobs", type=click.IntRange(1), help="Encoders or pairs at a time. Default: all processors."),
    group="Stages",
)  # fmt: skip

file_options = together(
    report_option,
    click.option("--scores", type=FOLDER, metavar="DIR",
                 help="Write score files here, one per pair and scorer, four columns a line: person of the face, "
                 "person of the voice, what was scored, score. Only you can read them."),
    click.option("--matcher", type=FOLDER, metavar="DIR",
                 help="Write the matcher of the first pair here, fitted on everybody; encsel.Matcher.load reads it. "
                 "Biometric data: only you can read it."),
    click.option("--matcher-pair", metavar="FACE/VOICE", help="Write the matcher of this pair, not of the first."),
    group="Output",
)  # fmt: skip


@click.command(cls=Grouped)
@click.argument("data", type=PATH)
@set_options
@min_identities_option(10, "")
@stage_options
@result_options
@file_options
@results_apart
def validate(
    data: Path,
    out: TextIO,
    form: str,
    wide: bool,
    quiet: bool,
    cache: str,
    outputs: tuple[Path, ...],
    folder: Path | None,
    matcher: Path | None,
    matcher_pair: str | None,
    **options: Any,
) -> int:
    """Measure everything about every face-voice pair: real error rates, geometry, and their correlations.

    DATA is as for `encsel rank`. Where that predicts the error after training on 999 people, this trains matchers on
    some of your people and measures them on others: EER, AUC, FNMR, DET, two-choice matching and retrieval, for
    centroids and for single samples; with faces and voices from other recordings; within groups such as sex or
    language, where the set has the column. Beside them the whole geometry of every encoder and pair, and how all of it
    goes with the errors.

    Finished stages are kept in the cache: the same command goes on where it stopped, and a changed one repeats only
    what the change touches. The CSV is a pair table, and the JSON a result, that `encsel fit` reads.
    """
    from encsel.errors import UsageError
    from encsel.matching.matcher import check_free
    from encsel.reports import validation as _  # noqa: F401 - registers how a validation is shown
    from encsel.storage.result import render
    from encsel.validation.matchers import matcher_of
    from encsel.validation.validate import validate as validate_set

    encoders = (*options["faces"], *options["voices"])
    inputs = inputs_of(data, encoders, options["regression"], options["baseline"])
    check_outputs(outputs, inputs=inputs, report=folder, others=(options["scores"], matcher))
    if matcher is not None:
        check_free(matcher)
    elif matcher_pair is not None:
        raise UsageError("--matcher-pair was given without --matcher, so no matcher is written. Give --matcher DIR.")
    progress, kept_in, private = (
        progress_of(quiet, before_result=form == "table"),
        cache_of(cache),
        bool(options["show_names"]),
    )
    for name in ("skip", "only"):
        options[name] = tuple(filter(None, map(str.strip, (options[name] or "").split(","))))
    with resumable(progress, kept_in):
        validation = validate_set(data, cache=kept_in, progress=progress, **options)

    def report() -> None:
        if folder is not None:
            write_page(validation, folder, data, progress, private=private)

    def take_home() -> None:
        if matcher is not None:
            matcher_of(validation, matcher_pair).save(matcher)
            progress.note(f"Matcher: {matcher}")

    return deliver(
        partial(render, validation), form, outputs, out, result=validation, wide=wide,
        private=private, more=(report, take_home),
    )  # fmt: skip
