"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def encoder_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--face and --voice."""
    for modality in ("voice", "face"):
        function = click.option(
            f"--{modality}", f"{modality}s", multiple=True, metavar="NAME",
            help=f"A {modality} encoder, or a file of embeddings; repeatable. Default: all that can run on the data.",
        )(function)  # fmt: skip
    return function


def data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How much of a calibration set is used, and by which seed it is chosen."""
    for option in (
        click.option("--max-skipped", type=click.FloatRange(0, 1), default=0.05, show_default=True,
                     help="Largest share of a modality's samples that may be unusable."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of every random choice."),
        click.option("--samples-per-identity", type=click.IntRange(1),
                     help="Use at most this many samples a person and modality."),
        click.option("--identities", type=click.IntRange(1), help="Use only this many people."),
    ):  # fmt: skip
        function = option(function)
    return function


def cache_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--cache and --no-cache, joined into `cache`: a path, "default" or None."""
    for option in (
        click.option("--no-cache", "cache", flag_value="", help="Keep no embeddings on disk."),
        click.option("--cache", "cache", type=str, default="default", metavar="DIR",
                     help="Folder of the embedding cache. Default: $ENCSEL_CACHE, or encsel/ in your cache folder."),
    ):  # fmt: skip
        function = option(function)
    return function


def format_option(formats: tuple[str, ...]) -> Decorator:
    """--format, the first one by default."""
    return click.option(
        "--format", "form", type=click.Choice(formats), default=formats[0], show_default=True, help="What stdout gets."
    )


quiet_option = click.option("--quiet", "-q", is_flag=True, help="No notes or progress on stderr.")
