"""encsel schema."""

import click


@click.command()
@click.argument("document", type=click.Choice(("rank", "validate", "compare", "plan", "study")))
def schema(document: str) -> None:
    """Print the JSON Schema of what `encsel rank`, `validate`, `compare`, `plan` or `study` writes with --format json.

    Keys never change meaning within a version; the version is the number at the end of a document's `schema`.
    """
    import json

    from encsel.cli.output import emit
    from encsel.reports.schemas import schemas

    (schema,) = (content for name, content in schemas().items() if name.startswith(f"encsel.{document}/"))
    emit(json.dumps(schema, indent=2) + "\n")
