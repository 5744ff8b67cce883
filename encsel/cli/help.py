"""encsel help."""

import click

from encsel.cli.output import emit, say

PAGES = {
    "data": "Calibration sets: layouts, files, what is skipped.",
    "encoders": "Naming encoders, the families, where and how they run.",
    "reading-results": "The table of `encsel rank`, the JSON, scorers.",
    "validate": "What `encsel validate` measures; the matcher to take home; joint training.",
    "scale": "Several GPUs, several machines: Dask and Ray.",
    "ci": "Gates, exit codes, settings files, a workflow.",
    "privacy": "What is stored where, and how to remove it.",
    "speed": "How long every stage takes, beside yardsticks; what is exact and what is sampled.",
    "reliability": "What was done to encsel, and what remains.",
    "writing-an-encoder": "Functions, torch modules and families of yours.",
    "development": "The rooms of the package, and where a new file goes.",
}
"""Pages of `encsel/docs`, in the order in which one reads them."""


@click.command(name="help")
@click.argument("topic", required=False, type=click.Choice(tuple(PAGES), case_sensitive=False))
def help_(topic: str | None) -> None:
    """Print a page of the documentation, or the list of pages."""
    from pathlib import Path

    if topic is None:
        width = max(map(len, PAGES))
        for name, what in PAGES.items():
            say(f"{name:{width}}  {what}")
        return
    emit((Path(__file__).parents[1] / "docs" / f"{topic}.md").read_text(encoding="utf-8"))
