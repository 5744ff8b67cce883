"""encsel encoders: list, show, fetch, check."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from encsel.cli.completion import encoders as complete_encoders
from encsel.cli.options import PATH, format_option, modality_option
from encsel.cli.output import results_apart, say

if TYPE_CHECKING:
    from encsel.core import Encoder, EncoderFamily, Modality, Runtime, Spec

COLUMNS = {"on this machine": "here", "modality": "modality", "name": "name", "dim": "dim", "download": "download"}
"""Facts in the table of `list`, with their headings; the licence takes what is left of the line."""
LINE = 80
N_FROM_SET = 8
_OBJECT = re.compile(r"(?P<module>[\w.]+):(?P<name>[A-Za-z_]\w*)(?P<rest>(?:[:@].*)?)")


@click.group()
def encoders() -> None:
    """List the encoders, show or check one, or fetch weights ahead of time.

    \b
    An encoder is FAMILY, or [FAMILY:]CHECKPOINT_OR_PATH, with [@key=value,...]:
      clip                                     a family's default checkpoint
      facebook/dinov2-large                    a checkpoint on the Hugging Face hub
      ./models/mine@layer=6,name=mine-6        a folder, a layer, a name for reports
      arcface:w600k_r50.onnx                   a file, and the family that reads it
    ORG/NAME is always the hub's. A path begins with ./ ../ / or ~, or ends as a file does.
    The family of a checkpoint named alone is told from its files.
    """


@encoders.command("list")
@format_option(("table", "json"))
def list_(form: str) -> None:
    """List the encoder families for --face and --voice, including plug-ins: first those that run without a download.

    Families without dim and download have no default checkpoint: name one.
    """
    from encsel.loading.registry import encoder_families
    from encsel.storage.result import json_text

    facts = [_facts(family) | {"on this machine": _on_this_machine(family)} for family in encoder_families()]
    facts.sort(key=lambda f: (not f["dim"], f["on this machine"] == "no", f["modality"], f["name"]))
    if form == "json":
        click.echo(json_text(facts), nl=False)
        return
    here = [f | {"on this machine": "no" if f["on this machine"] == "no" else "yes"} for f in facts]
    rows = [[*COLUMNS.values(), "licence"]]
    rows += [[*(_shown(f[column] or None) for column in COLUMNS), f["licence"]] for f in here]
    *widths, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    for row in rows:
        line = "  ".join([*map(str.ljust, row[:-1], widths), row[-1]])
        say(line if len(line) <= LINE else f"{line[: LINE - 3].rstrip()}...")


@encoders.command()
@click.argument("text", metavar="ENCODER", shell_complete=complete_encoders())
@modality_option
@click.option("--allow-pickle", is_flag=True, help="Also open pickled weights and TorchScript.")
def show(text: str, modality: Modality | None, allow_pickle: bool) -> None:
    """Show one encoder and where its weights are, without a network connection.

    For a checkpoint other than a family's default, only what its files state is shown.
    """
    from encsel.core import Runtime
    from encsel.errors import EncoderFailed
    from encsel.loading.registry import check_against, checked_spec, encoder_family, open_encoders

    spec = checked_spec(text, modality)
    family = encoder_family(spec.family, spec.modality) if spec.family else None
    if family is not None:
        check_against(family, spec)
        if spec.checkpoint in (None, family.checkpoint):
            _say_facts(_facts(family))
            if family.open is None:
                return
    try:
        opened = open_encoders(spec, Runtime(offline=True, allow_pickle=allow_pickle), signing="look")
    except EncoderFailed as error:
        say(f"weights: not on this machine, or they cannot be used ({error})")
        return
    first = opened[0]
    if family is None or spec.checkpoint not in (None, family.checkpoint):
        _say_facts(_facts_of(first))
    else:
        _say_facts({"preprocessing": dict(first.preprocessing)})
    _echo_weights("weights", first)
    if len(opened) > 1:
        say(f"stands for: {', '.join(encoder.name for encoder in opened)}")


@encoders.command()
@click.argument("texts", nargs=-1, required=True, metavar="ENCODER...", shell_complete=complete_encoders())
@modality_option
@click.option("--allow-pickle", is_flag=True, help="Also fetch pickled weights of checkpoints other than the defaults.")
@click.option("--sign-off", is_flag=True, help="Record the current hashes in place of earlier ones.")
def fetch(texts: tuple[str, ...], modality: Modality | None, allow_pickle: bool, sign_off: bool) -> None:
    """Download weights ahead of time and record their hashes.

    Later runs check the weights against the record: $ENCSEL_WEIGHTS (for example a file in your repository),
    or encsel/weights.json in your state folder.
    """
    from encsel.core import Runtime
    from encsel.loading.registry import checked_spec, encoder_family, open_encoders

    def has_weights(spec: Spec) -> bool:
        return not spec.family or encoder_family(spec.family, spec.modality).open is not None

    # Every spec is checked before anything is downloaded.
    for spec in [checked_spec(text, modality) for text in texts]:
        if not has_weights(spec):
            say(f"{spec}: has no weights")
            continue
        opened = open_encoders(spec, Runtime(allow_pickle=allow_pickle), signing="renew" if sign_off else "check")
        _echo_weights(str(spec), opened[0])


@encoders.command()
@click.argument("text", metavar="ENCODER", shell_complete=complete_encoders())
@modality_option
@click.option("--data", type=PATH, help="Try it on samples of this calibration set. Default: made-up faces or voices.")
@click.option("--device", default="auto", metavar="DEVICE", help="cpu, cuda, mps, ...")
@click.option("--allow-pickle", is_flag=True, help="Also read pickled weights of checkpoints other than the defaults.")
@results_apart
def check(text: str, out: TextIO, modality: Modality | None, data: Path | None, device: str, allow_pickle: bool) -> int:
    """Try what every encoder must do, and say what fails: exit code 4.

    ENCODER is as for `encsel rank`, or MODULE:NAME of an EncoderFamily (with :CHECKPOINT, if it needs one), a
    FunctionEncoder or a function that is not registered.
    """
    from encsel.core import Runtime
    from encsel.embedding.check import examined, made_up_samples
    from encsel.errors import EncoderFailed

    encoder = _to_check(text, modality, Runtime(device=device, allow_pickle=allow_pickle))
    samples = made_up_samples(encoder.modality) if data is None else _samples_of(data, encoder.modality)
    say(f"{encoder.modality} encoder {encoder.name}: {encoder.dim} values; {len(samples)} samples", out=out)
    n_faults = 0
    for name, fault in examined(encoder, samples):
        n_faults += fault is not None
        say(f"ok      {name}" if fault is None else f"FAILED  {name}: {fault}", out=out)
    say("Nothing fails." if not n_faults else f"{n_faults} of these fail.", out=out)
    return EncoderFailed.exit_code if n_faults else 0


def _to_check(text: str, modality: Modality | None, runtime: Runtime) -> Encoder:
    from dataclasses import replace

    from encsel.core import EncoderFamily
    from encsel.errors import EncoderFailed, UsageError
    from encsel.loading.functions import as_function, named_object
    from encsel.loading.registry import checked_spec, encoder_families, open_encoders, open_family, problem_of
    from encsel.loading.spec import parse

    named = _OBJECT.fullmatch(text)
    if named and all(f.name.lower() != named["module"].lower() for f in encoder_families()):
        name = f"{named['module']}:{named['name']}"
        given, _ = named_object(name)
        if isinstance(given, EncoderFamily):
            if problem := problem_of(given):
                raise EncoderFailed(f"{name} {problem}. Fix it.")
            spec = replace(parse(given.name + named["rest"]), modality=given.modality)
            return replace(open_family(given, spec, runtime)[0], runtime=None)
        as_function(given, name)
        text = f"py:{text}"
    spec = checked_spec(text, modality)
    if spec.family == "py" and modality is None:
        raise UsageError(f"{text} may be for faces or for voices. Say which, with --modality.")
    return replace(open_encoders(spec, runtime, signing="look")[0], runtime=None)


def _samples_of(data: Path, modality: Modality) -> list[Any]:
    """The first samples of a set that can be decoded, of different people."""
    from encsel.core import SetOptions
    from encsel.data.calibration_set import CalibrationSet
    from encsel.data.media import decode
    from encsel.errors import BadCalibration, UnusableSample

    first = {s.identity: s for s in CalibrationSet.from_path(data, SetOptions()).samples if s.modality == modality}
    samples: list[Any] = []
    for sample in first.values():
        with contextlib.suppress(UnusableSample):
            samples.append(decode(sample.path.read_bytes(), modality, sample.path.suffix))
        if len(samples) == N_FROM_SET:
            return samples
    if len(samples) < 2:
        raise BadCalibration(
            f"{data} has {len(samples)} usable {modality} samples; two of different people are needed."
        )
    return samples


def _echo_weights(label: str, encoder: Encoder) -> None:
    say(f"{label}: {encoder.folder}, revision {_shown(encoder.revision)}")
    for name, sha256 in encoder.weights.items():
        say(f"  {name} sha256 {sha256}")


def _on_this_machine(family: EncoderFamily) -> str:
    """Where the family's default encoder is, or whether it can run without a download or an installation."""
    from encsel.core import Runtime, Spec
    from encsel.errors import EncoderFailed
    from encsel.extras import missing
    from encsel.loading.registry import open_encoders

    if not family.has_default:
        return "no" if missing(family.needs) else "yes"
    spec = Spec(family.name, modality=family.modality)
    try:
        return str(open_encoders(spec, Runtime(offline=True, hash_weights=False))[0].folder or "yes")
    except EncoderFailed:
        return "no"


def _facts(family: EncoderFamily) -> dict[str, Any]:
    return {
        "name": family.name,
        "modality": family.modality,
        "dim": family.dim or None,
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


def _facts_of(encoder: Encoder) -> dict[str, Any]:
    return {
        "name": encoder.name,
        "family": encoder.family,
        "modality": encoder.modality,
        "dim": encoder.dim,
        "licence": encoder.licence,
        "trained on": encoder.trained_on or None,
        "source": encoder.source,
        "space": encoder.space,
        "flags": list(encoder.flags),
        "preprocessing": dict(encoder.preprocessing),
    }


def _say_facts(facts: dict[str, Any]) -> None:
    for key, value in facts.items():
        if value not in ([], {}):
            say(f"{key}: {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, int) and value >= 1_000_000:
        return f"{value / 1e6:.0f} M"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value is None else json.dumps(value) if isinstance(value, dict) else str(value)
