"""encsel encoders: list, show, fetch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from encsel.cli.options import format_option
from encsel.cli.output import say

if TYPE_CHECKING:
    from encsel.core import Encoder, EncoderFamily

COLUMNS = ("modality", "name", "dim", "parameters", "download", "licence", "on this machine")


@click.group()
def encoders() -> None:
    """List the encoders, show one, or fetch weights ahead of time.

    \b
    An encoder is FAMILY[:CHECKPOINT_OR_DIR][@key=value,...]:
      clip                                     the family's default checkpoint
      clip:openai/clip-vit-large-patch14       another checkpoint on the hub
      wavlm:models/mine@layer=6,name=mine-6    a folder, a layer, a name for reports
      arcface:w600k_r50.onnx                   a recognition model alone, for aligned crops
    Keys: revision, layer (a number, last or all), pooling, dtype, name.
    """


@encoders.command("list")
@format_option(("table", "json"))
def list_(form: str) -> None:
    """List the encoder families for --face and --voice, including plug-ins."""
    from encsel.loading.registry import encoder_families
    from encsel.storage.result import json_text

    families = sorted(encoder_families().values(), key=lambda f: (f.modality, f.name))
    facts = [_facts(family) | {"on this machine": _on_this_machine(family)} for family in families]
    if form == "json":
        click.echo(json_text(facts), nl=False)
        return
    rows = [COLUMNS, *([_shown(f[column]) for column in COLUMNS] for f in facts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(map(str.ljust, row, widths)).rstrip())


@encoders.command()
@click.argument("spec")
def show(spec: str) -> None:
    """Show one encoder and where its weights are, without a network connection."""
    from encsel.core import Runtime
    from encsel.errors import EncoderFailed
    from encsel.loading.registry import open_encoders

    parsed, family = _parsed(spec)
    for key, value in (_facts(family) | {"checkpoint": parsed.checkpoint or family.checkpoint}).items():
        say(f"{key}: {_shown(value)}")
    if family.open is None:
        return
    try:
        opened = open_encoders(parsed, Runtime(offline=True, allow_pickle=True), signing="look")
    except EncoderFailed as error:
        say(f"weights: not on this machine ({error})")
        return
    _echo_weights("weights", opened[0])
    if len(opened) > 1:
        say(f"stands for: {', '.join(encoder.name for encoder in opened)}")


@encoders.command()
@click.argument("specs", nargs=-1, required=True, metavar="ENCODER...")
@click.option("--allow-pickle", is_flag=True, help="Also fetch pickled weights of checkpoints other than the defaults.")
@click.option("--sign-off", is_flag=True, help="Record the current hashes in place of earlier ones.")
def fetch(specs: tuple[str, ...], allow_pickle: bool, sign_off: bool) -> None:
    """Download weights ahead of time and record their hashes.

    Later runs check the weights against the record: $ENCSEL_WEIGHTS (for example a file in your repository),
    or encsel/weights.json in your state folder.
    """
    from encsel.core import Runtime
    from encsel.loading.registry import open_encoders

    # Every spec is checked before anything is downloaded.
    for parsed, family in [_parsed(spec) for spec in specs]:
        if family.open is None:
            say(f"{parsed}: has no weights")
            continue
        opened = open_encoders(parsed, Runtime(allow_pickle=allow_pickle), signing="renew" if sign_off else "check")
        _echo_weights(str(parsed), opened[0])


def _parsed(text: str) -> Any:
    """The checked spec and its family, of either modality."""
    from encsel.errors import UsageError, nearest
    from encsel.loading.registry import checked_spec, encoder_families
    from encsel.loading.spec import parse

    families = encoder_families()
    name = parse(text).family
    if name not in families:
        raise UsageError(f"No encoder is named {name!r}. {nearest(name, families)}")
    return checked_spec(text, families[name].modality), families[name]


def _echo_weights(label: str, encoder: Encoder) -> None:
    say(f"{label}: {encoder.folder}, revision {_shown(encoder.revision)}")
    for name, sha256 in encoder.weights.items():
        say(f"  {name} sha256 {sha256}")


def _on_this_machine(family: EncoderFamily) -> str:
    """Where the family's default encoder is, or whether it can run without a download."""
    from encsel.core import Runtime, Spec
    from encsel.errors import EncoderFailed
    from encsel.loading.registry import open_encoders

    try:
        return str(open_encoders(Spec(family.name), Runtime(offline=True, hash_weights=False))[0].folder or "yes")
    except EncoderFailed:
        return "no"


def _facts(family: EncoderFamily) -> dict[str, Any]:
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
    }


def _shown(value: Any) -> str:
    if isinstance(value, int) and value >= 1_000_000:
        return f"{value / 1e6:.0f} M"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value is None else json.dumps(value) if isinstance(value, dict) else str(value)
