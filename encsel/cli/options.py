"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

NO_CACHE = "\0"
"""Value of --no-cache, which no folder can be called."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def runtime_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where and how models run; `runtime_of` joins them."""
    for option in (
        click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
                     help="Give an encoder up that takes longer than this to be found or downloaded, or to load and "
                     "embed. The others go on; exit code 4."),
        click.option("--allow-pickle", is_flag=True,
                     help="Read pickled weights (weights only) of checkpoints outside the default table, too."),
        click.option("--offline", is_flag=True, help="Open no connection: use weights that are on this machine."),
        click.option("--batch-size", type=click.IntRange(1), help="Samples a batch. Default: 16, or 64 on a GPU."),
        click.option("--dtype", type=click.Choice(("float32", "bfloat16", "float16")), default="float32",
                     show_default=True, help="Number type of the models."),
        click.option("--device", default="auto", show_default=True, metavar="DEVICE",
                     help="cpu, cuda, cuda:1, ...; auto is CUDA where there is one."),
    ):  # fmt: skip
        function = option(function)
    return function


def runtime_of(options: dict[str, Any]) -> Any:
    """Take the options of `runtime_options`, but for the batch size, out of `options` and return their Runtime."""
    from encsel.core import Runtime

    return Runtime(**{key: options.pop(key) for key in ("device", "dtype", "offline", "allow_pickle", "timeout")})


def encoder_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--face and --voice."""
    for modality in ("voice", "face"):
        function = click.option(
            f"--{modality}", f"{modality}s", multiple=True, metavar="ENCODER",
            help=f"A {modality} encoder, FAMILY[:CHECKPOINT_OR_DIR][@key=value,...], or a file of embeddings; "
            "repeatable. Default: all that can run on the data with what is on this machine.",
        )(function)  # fmt: skip
    return function


def data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How much of a calibration set is used, and by which seed it is chosen."""
    for option in (
        click.option("--allow-outside", is_flag=True,
                     help="Read files that a manifest names outside its own folder, too."),
        click.option("--max-skipped", type=click.FloatRange(0, 1), default=0.05, show_default=True,
                     help="Largest share of a modality's samples that may be unusable."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of every random choice."),
        click.option("--samples-per-identity", type=click.IntRange(1),
                     help="Use at most this many samples a person and modality."),
        click.option("--identities", type=click.IntRange(1), help="Use only this many people."),
    ):  # fmt: skip
        function = option(function)
    return function


def gate_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a CI job asks of the result; `gates_of` joins them."""
    for option in (
        click.option("--gate-on", type=click.Choice(("interval", "point")), default="interval", show_default=True,
                     help="Judge gates by what can be told for sure, which may be nothing (inconclusive, exit code 6), "
                     "or by the numbers as they are."),
        click.option("--max-regression", type=float, metavar="EER",
                     help="Gate: no pair is worse than in --baseline by more than this."),
        click.option("--baseline", type=click.Path(path_type=Path, dir_okay=False), metavar="OLD.json",
                     help="JSON of an earlier run of this command, for --max-regression."),
        click.option("--min-margin", type=float, metavar="EER",
                     help="Gate: the best pair is ahead of the second by at least this."),
        click.option("--expect-best", metavar="FACE/VOICE", help="Gate: this pair is the best."),
        click.option("--max-eer", type=float, metavar="EER", help="Gate: the best pair has at most this EER."),
    ):  # fmt: skip
        function = option(function)
    return function


def gates_of(options: dict[str, Any]) -> Any:
    """Take the options of `gate_options` out of `options` and return the Gates, or None where none was asked."""
    from encsel.gates.judge import checked_gates

    names = ("max_eer", "expect_best", "min_margin", "baseline", "max_regression", "gate_on")
    asked = {name: options.pop(name) for name in names}
    return checked_gates(**asked) if any(asked[name] is not None for name in names[:-1]) else None


def cache_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--cache and --no-cache, joined into `cache`: a path, "default" or None."""
    for option in (
        click.option("--no-cache", "cache", flag_value=NO_CACHE, help="Keep no embeddings on disk."),
        click.option("--cache", "cache", type=str, default="default", metavar="DIR",
                     help="Folder of the embedding cache. Default: $ENCSEL_CACHE, or encsel/ in your cache folder."),
    ):  # fmt: skip
        function = option(function)
    return function


def cache_of(cache: str) -> str | None:
    """What `encsel.rank` takes for the value of `cache_options`."""
    if cache == NO_CACHE:
        return None
    if not cache:
        raise click.UsageError("--cache is empty; a folder is needed. Say --no-cache to keep nothing.")
    return str(Path(cache).expanduser())


def format_option(formats: tuple[str, ...]) -> Decorator:
    """--format, the first one by default."""
    return click.option(
        "--format", "form", type=click.Choice(formats), default=formats[0], show_default=True, help="What stdout gets."
    )


quiet_option = click.option("--quiet", "-q", is_flag=True, help="No notes or progress on stderr.")
