"""encsel compare."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("old", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("new", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--allow-unlike", is_flag=True, help="Compare although data, cards, metrics, options or libraries differ."
)
@click.option("--format", "form", type=click.Choice(("table", "json", "markdown")), default="table", show_default=True)
def compare(old: Path, new: Path, allow_unlike: bool, form: str) -> None:
    """Which pairs moved between two results of `encsel rank` or `encsel validate`, against their uncertainty.

    OLD and NEW are JSON files of one command. A pair moved when the 90 % interval of its change does not hold 0. For
    predictions of one calibrated card on the same data the errors that the two have in common are taken off; else they
    count as independent, which is careful.

    Results whose data, cards, metric versions, options or libraries differ say different things: they are refused
    (exit code 2) unless --allow-unlike is given. Encoders may differ; that is what is compared.
    """
    import json
    from dataclasses import asdict

    from encsel.cli.rank import emit, terminal_width
    from encsel.errors import UsageError
    from encsel.gates.compare import card_of, read_result
    from encsel.gates.compare import compare as compare_results
    from encsel.reports.ranking import comparison_section
    from encsel.reports.validation import Section, render_sections

    before, after = read_result(old), read_result(new)
    found = compare_results(before, after, card_of(after))
    if found.unlike and not allow_unlike:
        raise UsageError(
            f"{old} and {new} may not be compared: {'; '.join(found.unlike)}. Make both alike, or say --allow-unlike."
        )
    if form == "json":
        emit(json.dumps({"schema": "encsel.compare/1", **asdict(found)}, indent=2, allow_nan=False) + "\n")
        return
    header, rows, notes = comparison_section(found)
    section = Section(f"Changes of the {found.what}", header, rows, notes, n_names=2)
    emit(render_sections([section], form, width=max(terminal_width(), 120)))
