"""encsel cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from encsel.cli.options import FOLDER
from encsel.cli.output import say

if TYPE_CHECKING:
    from encsel.storage.cache import Entry


@click.group(invoke_without_command=True)
@click.option("--cache", "root", type=FOLDER, metavar="DIR", help="Cache folder to use instead of the default.")
@click.pass_context
def cache(ctx: click.Context, root: Path | None) -> None:
    """Show where the embedding cache is and how much it holds, or purge it."""
    from encsel.errors import UsageError
    from encsel.storage.cache import cache_root, entries

    notes: list[str] = []
    ctx.obj = cache_root(root or "default", notes.append)
    if ctx.obj is None:
        raise UsageError(notes[-1])
    for note in notes:
        say(note, err=True)
    if ctx.invoked_subcommand is None:
        listed = entries(ctx.obj)
        say(f"{ctx.obj}: {_amount(listed)}")
        for entry in listed:
            say(f"  {entry.encoder} {entry.key[:8]}: {_amount([entry])}")


@cache.command()
@click.option("--encoder", metavar="NAME", help="Remove only the vectors of this encoder.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def purge(root: Path, encoder: str | None, yes: bool) -> None:
    """Remove everything in the cache: embeddings, results of validate, and the key of hashed names.

    Hashed names in earlier results then no longer match those in later results.
    """
    from encsel.errors import UsageError, nearest
    from encsel.storage.cache import entries
    from encsel.storage.cache import purge as remove

    listed = entries(root)
    names = {e.encoder for e in listed}
    if encoder is not None and listed and encoder not in names:
        raise UsageError(f"The cache has no vectors of {encoder!r}. {nearest(encoder, names)}")
    if listed and not yes and not click.confirm(f"Remove the embeddings, results and key in {root}?", err=True):
        click.echo("Nothing removed.")
        return
    say(f"Removed {_amount(remove(root, encoder))} from {root}.")


def _amount(entries: Sequence[Entry]) -> str:
    return f"{sum(e.n_samples for e in entries)} vectors, {sum(e.n_bytes for e in entries) / 1e6:.1f} MB"
