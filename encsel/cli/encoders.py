"""encsel encoders."""

from __future__ import annotations

import json
from typing import Any

import click


@click.group()
def encoders() -> None:
    """List the encoders, or show one."""


@encoders.command("list")
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
def list_(form: str) -> None:
    """Every encoder that --face and --voice know, those of plug-ins among them."""
    from encsel.registry import encoder_families

    families = [_facts(f) for f in encoder_families().values()]
    if form == "json":
        click.echo(json.dumps(families, indent=2))
        return
    columns = ("modality", "name", "dim", "version", "licence")
    families.sort(key=lambda f: (f["modality"], f["name"]))
    rows = [columns, *(tuple(str(f[c]) for c in columns) for f in families)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@encoders.command()
@click.argument("name")
def show(name: str) -> None:
    """What is known of one encoder."""
    from encsel.errors import UsageError, nearest
    from encsel.registry import encoder_families

    families = encoder_families()
    if name not in families:
        raise UsageError(f"No encoder is named {name!r}. {nearest(name, families)}")
    for key, value in _facts(families[name]).items():
        click.echo(f"{key}: {json.dumps(value) if isinstance(value, dict) else value}")


def _facts(family: Any) -> dict[str, Any]:
    return {
        "name": family.name,
        "modality": family.modality,
        "dim": family.dim,
        "version": family.version,
        "licence": family.licence,
        "source": family.source,
        "preprocessing": dict(family.preprocessing),
    }
