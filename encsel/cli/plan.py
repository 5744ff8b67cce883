"""encsel plan."""

from pathlib import Path
from typing import Any

import click

from encsel.cli.options import PATH, coverage_option, format_option, level_options


@click.command()
@click.argument("data", required=False, type=PATH)
@click.option("--width", type=float, help="Target width of the interval, such as 0.08.")
@click.option("--difference", type=float, help="Difference between two pairs' EERs to resolve, such as 0.03.")
@click.option("--allow-outside", is_flag=True, help="Also count files that a manifest names outside its own folder.")
@click.option("--eer", type=float, help="EER to plan for. Default: the mean of the simulated pairs.")
@coverage_option
@level_options
@click.option("--card", default="encsel-likelihood", help="Calibrated card, by name or path.")
@format_option(("table", "json"))
def plan(data: Path | None, form: str, **options: Any) -> None:
    """Show how many people, and samples of each, a calibration set needs to reach an interval or to order two pairs.

    With DATA, the folder of a calibration set or its manifest, also show what this set can and cannot decide; nothing
    is embedded. All figures are typical of simulated sets; `encsel rank` computes those of the set itself.
    """
    from encsel.cli.output import emit
    from encsel.prediction.plan import plan as plan_set
    from encsel.reports import plan as _  # noqa: F401 - registers how a plan is shown
    from encsel.storage.result import render

    emit(render(plan_set(data, **options), form))
