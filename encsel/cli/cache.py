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
    help="Another cache folder than the default.",
)
@click.pass_context
def cache(ctx: click.Context, root: Path | None) -> None:  # fmt: skip
    """Show where the embedding cache is and how much it holds, or purge it."""
    from encsel.storage.cache import default_root, entries

    ctx.obj = root.expanduser() if root else default_root()
    if ctx.invoked_subcommand is not None:
        return
    found = entries(ctx.obj)
    click.echo(f"{ctx.obj}: {_amount(sum(e.n_samples for e in found), sum(e.n_bytes for e in found))}")
    for entry in found:
        click.echo(f"  {entry.encoder} {entry.key[:8]}: {_amount(entry.n_samples, entry.n_bytes)}")


@cache.command()
@click.option("--encoder", metavar="NAME", help="Only the vectors of this encoder.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(root: Path, encoder: str | None, yes: bool) -> None:
    """Remove everything in the cache: embeddings, results of validate, and the key of hashed names.

    Hashes in results made before can then no longer be matched with those made later.
    """
    from encsel.errors import UsageError, nearest
    from encsel.storage.cache import entries
    from encsel.storage.cache import purge as remove

    held = entries(root)
    if encoder is not None and held and encoder not in {e.encoder for e in held}:
        raise UsageError(f"The cache holds nothing of {encoder!r}. {nearest(encoder, {e.encoder for e in held})}")
    if held and not yes and not click.confirm(f"Remove the embeddings, results and key in {root}?", err=True):
        click.echo("Nothing removed.")
        return
    gone = remove(root, encoder)
    click.echo(f"Removed {_amount(sum(e.n_samples for e in gone), sum(e.n_bytes for e in gone))} from {root}.")


def _amount(n_samples: int, n_bytes: int) -> str:
    return f"{n_samples} vectors, {n_bytes / 1e6:.1f} MB"
