"""encsel compare."""

from pathlib import Path

import click

from encsel.cli.options import FILE, format_option


@click.command()
@click.argument("old", type=FILE)
@click.argument("new", type=FILE)
@click.option("--allow-unlike", is_flag=True,
              help="Compare even if data, cards, metrics, options or libraries differ.")  # fmt: skip
@format_option(("table", "json", "markdown"))
def compare(old: Path, new: Path, allow_unlike: bool, form: str) -> None:
    """Show which pairs moved between two results of `encsel rank` or `encsel validate` by more than their uncertainty.

    OLD and NEW are JSON files written by the same command. A pair moved if the 90 % interval of its change excludes 0.
    For predictions of one calibrated card on the same data, errors common to both results cancel; otherwise errors are
    assumed independent, which is conservative.

    Results whose data, cards, metric versions, options or libraries differ are refused (exit code 2) unless
    --allow-unlike is given. Encoders may differ: they are what is compared.
    """
    from encsel.cli.output import emit, terminal_width
    from encsel.gates.compare import compare as compare_results
    from encsel.reports import comparison as _  # noqa: F401 - registers how a comparison is shown
    from encsel.storage.result import render

    emit(render(compare_results(old, new, allow_unlike=allow_unlike), form, width=terminal_width(120)))
