"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from encsel.storage.result import FORMAT_OF_SUFFIX, FORMATS

NO_CACHE = "\0"
"""Value of --no-cache, which no folder can be called."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def runtime_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where and how models run."""
    for option in (
        click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
                     help="Abandon an encoder that takes longer than this to download, or to load and run. The others "
                     "go on; exit code 4."),
        click.option("--allow-pickle", is_flag=True,
                     help="Also read pickled weights (weights only) of checkpoints that are not defaults."),
        click.option("--offline", is_flag=True, help="Open no connection; use weights that are on this machine."),
        click.option("--batch-size", type=click.IntRange(1), help="Samples per batch. Default: 16, or 64 on a GPU."),
        click.option("--dtype", type=click.Choice(("float32", "bfloat16", "float16")), default="float32",
                     show_default=True, help="Number type of the models."),
        click.option("--device", default="auto", show_default=True, metavar="DEVICE",
                     help="cpu, cuda, cuda:1, ...; auto is CUDA where there is one."),
    ):  # fmt: skip
        function = option(function)
    return function


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
    """How much of a calibration set is used, and the random seed."""
    for option in (
        click.option("--allow-outside", is_flag=True,
                     help="Also read files that a manifest names outside its own folder."),
        click.option("--max-skipped", type=click.FloatRange(0, 1), default=0.05, show_default=True,
                     help="Largest fraction of a modality's samples that may be unusable."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed."),
        click.option("--samples-per-identity", type=click.IntRange(1),
                     help="Use at most this many samples per person and modality."),
        click.option("--identities", type=click.IntRange(1), help="Use only this many people."),
    ):  # fmt: skip
        function = option(function)
    return function


def gate_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a CI job requires of the result."""
    for option in (
        click.option("--gate-on", type=click.Choice(("interval", "point")), default="interval", show_default=True,
                     help="Judge gates on intervals (if one straddles the limit, the gate is inconclusive: exit code "
                     "6) or on the numbers as they are."),
        click.option("--max-regression", type=float, metavar="EER",
                     help="Gate: no pair may be worse than in --baseline by more than this."),
        click.option("--baseline", type=click.Path(path_type=Path, dir_okay=False), metavar="OLD.json",
                     help="JSON of an earlier run of this command, for --max-regression."),
        click.option("--min-margin", type=float, metavar="EER",
                     help="Gate: the best pair must be ahead of the second by this."),
        click.option("--expect-best", metavar="FACE/VOICE", help="Gate: this pair must be the best."),
        click.option("--max-eer", type=float, metavar="EER", help="Gate: the best pair may have at most this EER."),
    ):  # fmt: skip
        function = option(function)
    return function


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
    return cache


def format_option(formats: tuple[str, ...]) -> Decorator:
    """--format, the first one by default."""
    return click.option(
        "--format", "form", type=click.Choice(formats), default=formats[0], show_default=True, help="What stdout gets."
    )


quiet_option = click.option("--quiet", "-q", is_flag=True, help="No notes or progress on stderr.")

coverage_option = click.option(
    "--coverage", type=click.FloatRange(0.5, 0.99), default=0.9, show_default=True,
    help="Fraction of intervals that contain the true value.",
)  # fmt: skip


def prediction_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Which card orders the pairs, and how sure its intervals are."""
    for option in (
        click.option("--regression", default="encsel-calibrated", show_default=True, metavar="CARD",
                     help="Card that orders the pairs: a shipped one by name (encsel-calibrated-weighted for the "
                     "scorer to deploy, upadhyay2026 for the study's), or the path of one made by `encsel fit`."),
        coverage_option,
        click.option("--within", metavar="COLUMN",
                     help="Shuffle people only within the groups of this column of the set. Default: sex or gender, "
                     "if every person has one."),
    ):  # fmt: skip
        function = option(function)
    return function


def min_identities_option(least: int, consequence: str) -> Decorator:
    """--min-identities."""
    text = f"Fewest people with both faces and voices. {consequence}".rstrip()
    return click.option("--min-identities", type=click.IntRange(least), default=30, show_default=True, help=text)


def result_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where the result goes, and in which form."""
    for option in (
        quiet_option,
        format_option(FORMATS),
        click.option("--output", "-o", "outputs", multiple=True, type=click.Path(path_type=Path, dir_okay=False),
                     help="Also write to this file, in the format of its suffix: "
                     f"{', '.join(FORMAT_OF_SUFFIX)}. Repeatable."),
        click.option("--show-names", is_flag=True,
                     help="Name skipped samples, and people in score files, instead of hashing their names. Files are "
                     "then readable by you only."),
        click.option("--strict-health", is_flag=True, help="Exit 4 if an encoder is unsound."),
    ):  # fmt: skip
        function = option(function)
    return function
