"""encsel cache."""

from __future__ import annotations

from pathlib import Path

import click


@click.group(invoke_without_command=True)
@click.option(
    "--cache",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Cache folder to use instead of the default.",
)
@click.pass_context
def cache(ctx: click.Context, root: Path | None) -> None:  # fmt: skip
    """Show where the embedding cache is and how much it holds, or purge it."""
    from encsel.errors import UsageError
    from encsel.storage.cache import NO_PLACE, cache_root, entries

    notes: list[str] = []
    ctx.obj = cache_root(root or "default", notes.append)
    if ctx.obj is None:
        raise UsageError(NO_PLACE)
    for note in notes:
        click.echo(note, err=True)
    if ctx.invoked_subcommand is not None:
        return
    listed = entries(ctx.obj)
    click.echo(f"{ctx.obj}: {_amount(sum(e.n_samples for e in listed), sum(e.n_bytes for e in listed))}")
    for entry in listed:
        click.echo(f"  {entry.encoder} {entry.key[:8]}: {_amount(entry.n_samples, entry.n_bytes)}")


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
        raise UsageError(f"The cache holds nothing of {encoder!r}. {nearest(encoder, names)}")
    if listed and not yes and not click.confirm(f"Remove the embeddings, results and key in {root}?", err=True):
        click.echo("Nothing removed.")
        return
    removed = remove(root, encoder)
    click.echo(f"Removed {_amount(sum(e.n_samples for e in removed), sum(e.n_bytes for e in removed))} from {root}.")


def _amount(n_samples: int, n_bytes: int) -> str:
    return f"{n_samples} vectors, {n_bytes / 1e6:.1f} MB"
