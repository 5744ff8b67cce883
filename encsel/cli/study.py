"""encsel study."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--format", "form", type=click.Choice(("table", "markdown")), default="table", show_default=True)
def study(folder: Path | None, form: str) -> None:
    """Rebuild the tables and the analysis of the study that encsel grows out of, from its published figures.

    Tables 2 (encoders) and 3 (pairs), correlations and regressions on VoxCeleb1, on MAV-Celeb, on both pooled, and
    without ArcFace, whose rows look broken; beside the study's own figures a p that respects that pairs share encoders,
    errors with an encoder left out, and a baseline without geometry.

    FOLDER holds encoders_NAME.csv and pairs_NAME.csv, NAME being voxceleb1 and mavceleb. Default: the copies that come
    with encsel.
    """
    from encsel.cli.rank import emit, terminal_width
    from encsel.reports.study import study as rebuild
    from encsel.reports.validation import render_sections

    emit(render_sections(rebuild(folder), form, width=max(terminal_width(), 120)))
