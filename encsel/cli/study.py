"""encsel study."""

from pathlib import Path

import click

from encsel.cli.options import FOLDER, format_option


@click.command()
@click.argument("folder", required=False, type=FOLDER)
@format_option(("table", "markdown"))
def study(folder: Path | None, form: str) -> None:
    """Rebuild the tables and the analysis of the study behind encsel from its published figures.

    Shows Tables 1 (encoders) and 2 (pairs), and correlations and regressions on VoxCeleb1, on MAV-Celeb, on both
    pooled, and on VoxCeleb1 without ArcFace, whose rows look broken. Adds p-values that account for pairs sharing
    encoders, errors on unseen encoders, and a baseline without geometry.

    FOLDER holds encoders_NAME.csv and pairs_NAME.csv for the names voxceleb1 and mavceleb. Default: the shipped copies.
    """
    from encsel.cli.output import emit, terminal_width
    from encsel.reports.study import study as rebuild
    from encsel.reports.tables import render_sections

    emit(render_sections(rebuild(folder), form, width=terminal_width(120)))
