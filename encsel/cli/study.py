"""encsel study."""

from pathlib import Path

import click

from encsel.cli.options import FOLDER, format_option


@click.command()
@click.argument("folder", required=False, type=FOLDER)
@click.option(
    "--report", type=FOLDER, metavar="DIR",
    help="Write index.html (tables and figures on one page), figures/*.png and study.json.",
)  # fmt: skip
@format_option(("table", "markdown", "json"))
def study(folder: Path | None, report: Path | None, form: str) -> None:
    """Rebuild the tables and the analysis of the study behind encsel from its published numbers.

    Shows Tables 1 (encoders) and 2 (pairs), and correlations and regressions on VoxCeleb1, on MAV-Celeb, on both
    pooled, and on VoxCeleb1 without ArcFace, whose rows look broken. Adds p-values that account for pairs sharing
    encoders, errors on unseen encoders, and a baseline without geometry.

    FOLDER holds encoders_NAME.csv and pairs_NAME.csv for the names voxceleb1 and mavceleb. Default: the shipped copies.
    """
    from encsel.cli.output import emit, say, terminal_width
    from encsel.regression.study import study as rebuild
    from encsel.reports import study as _  # noqa: F401 - registers how a study is shown
    from encsel.storage.result import render

    rebuilt = rebuild(folder)
    if report is not None:
        from encsel.reports.study_page import write_study

        say(f"Report: {write_study(rebuilt, report)}", err=True)
    emit(render(rebuilt, form, width=terminal_width(120)))
