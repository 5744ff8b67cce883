"""encsel encoders."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from encsel.core import Encoder, EncoderFamily

COLUMNS = ("modality", "name", "dim", "parameters", "download", "licence", "on this machine")


@click.group()
def encoders() -> None:
    """List the encoders, show one, or fetch weights ahead of time.

    \b
    An encoder is FAMILY[:CHECKPOINT_OR_DIR][@key=value,...]:
      clip                                     the family's default checkpoint
      clip:openai/clip-vit-large-patch14       another one of the hub
      wavlm:models/mine@layer=6,name=mine-6    a folder, a layer, a name of your own
      arcface:w600k_r50.onnx                   a bare recognition model, for aligned crops
    Keys: revision, layer (a number, last or all), pooling, dtype, name.
    """


@encoders.command("list")
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
def list_(form: str) -> None:
    """Every encoder family that --face and --voice know, those of plug-ins among them."""
    from encsel.loading.registry import encoder_families

    families = sorted(encoder_families().values(), key=lambda f: (f.modality, f.name))
    facts = [_facts(family, _here(family)) for family in families]
    if form == "json":
        click.echo(json.dumps(facts, indent=2))
        return
    rows = [COLUMNS, *(tuple(_shown(f[column]) for column in COLUMNS) for f in facts)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@encoders.command()
@click.argument("spec")
def show(spec: str) -> None:
    """What is known of one encoder, and where its weights are. Opens no connection."""
    from encsel.core import Runtime
    from encsel.errors import EncoderFailed
    from encsel.loading.registry import open_encoders

    parsed, family = _parsed(spec)
    facts = _facts(family, None)
    del facts["on this machine"]
    facts["checkpoint"] = parsed.checkpoint or family.checkpoint
    for key, value in facts.items():
        click.echo(f"{key}: {_shown(value)}")
    if family.open is None:
        return
    try:
        opened = open_encoders(parsed, Runtime(offline=True, allow_pickle=True), signing="look")
    except EncoderFailed as error:
        click.echo(f"weights: not on this machine ({error})")
        return
    click.echo(f"weights: {opened[0].folder}")
    click.echo(f"revision: {_shown(opened[0].revision)}")
    for name, sha256 in opened[0].weights.items():
        click.echo(f"  {name} sha256 {sha256}")
    if len(opened) > 1:
        click.echo(f"stands for: {', '.join(encoder.name for encoder in opened)}")


@encoders.command()
@click.argument("specs", nargs=-1, required=True, metavar="ENCODER...")
@click.option(
    "--allow-pickle", is_flag=True, help="Fetch pickled weights of checkpoints outside the default table, too."
)
@click.option("--sign-off", is_flag=True, help="Accept the weights as they are now, whatever hashes are recorded.")
def fetch(specs: tuple[str, ...], allow_pickle: bool, sign_off: bool) -> None:
    """Download weights ahead of time, through each family's own hub, and record their hashes.

    Whoever uses them later checks them against the record: $ENCSEL_WEIGHTS (a file to keep in your repository, say),
    else encsel/weights.json in your state folder.
    """
    from encsel.core import Runtime
    from encsel.loading.registry import open_encoders

    for parsed, family in [_parsed(spec) for spec in specs]:
        if family.open is None:
            click.echo(f"{parsed}: needs no weights")
            continue
        opened = open_encoders(parsed, Runtime(allow_pickle=allow_pickle), signing="renew" if sign_off else "check")
        click.echo(f"{parsed}: {opened[0].folder}, revision {_shown(opened[0].revision)}")
        for name, sha256 in opened[0].weights.items():
            click.echo(f"  {name} sha256 {sha256}")


def _parsed(text: str) -> Any:
    """The checked spec and its family, whatever the modality."""
    from encsel.errors import UsageError, nearest
    from encsel.loading.registry import checked_spec, encoder_families
    from encsel.loading.spec import parse

    families = encoder_families()
    name = parse(text).family
    if name not in families:
        raise UsageError(f"No encoder is named {name!r}. {nearest(name, families)}")
    return checked_spec(text, families[name].modality), families[name]


def _here(family: EncoderFamily) -> Encoder | None:
    """The family's default encoder when it can run without a download."""
    from encsel.core import Runtime, Spec
    from encsel.errors import EncoderFailed
    from encsel.loading.registry import open_encoders

    try:
        return open_encoders(Spec(family.name), Runtime(offline=True, hash_weights=False))[0]
    except EncoderFailed:
        return None


def _facts(family: EncoderFamily, here: Encoder | None) -> dict[str, Any]:
    return {
        "name": family.name,
        "modality": family.modality,
        "dim": family.dim,
        "version": family.version,
        "checkpoint": family.checkpoint,
        "parameters": family.n_parameters,
        "download": None if family.n_bytes is None else f"{family.n_bytes / 1e6:.0f} MB",
        "licence": family.licence,
        "trained on": family.trained_on or None,
        "source": family.source,
        "options": list(family.options),
        "preprocessing": dict(family.preprocessing),
        "on this machine": "no" if here is None else str(here.folder) if here.folder else "yes",
    }


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and value >= 1_000_000:
        return f"{value / 1e6:.0f} M"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)
