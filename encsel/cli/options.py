"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from encsel.cli.completion import cards, encoders
from encsel.storage.result import FORMAT_OF_SUFFIX, FORMATS

MODALITIES = ("face", "voice")
"""Those of `encsel.core`, whose import takes longer than `--help` may."""

NO_CACHE = "\0"
"""Value of --no-cache: no folder can have this name."""
PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


OTHER = "Other options"


class Grouped(click.Command):
    """A command whose --help lists options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                groups.setdefault(getattr(param, "group", OTHER), []).append(record)
        for title, records in sorted(groups.items(), key=lambda group: group[0] == OTHER):
            with formatter.section(title):
                formatter.write_dl(records)


def together(*decorators: Decorator, group: str | None = None) -> Decorator:
    """One decorator that adds several options; --help lists them in this order, under the title of their group."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        before = len(getattr(function, "__click_params__", ()))
        for decorator in reversed(decorators):
            function = decorator(function)
        for param in getattr(function, "__click_params__", ())[before:] if group else ():
            param.group = group
        return function

    return add


def _encoder_option(modality: str) -> Decorator:
    return click.option(
        f"--{modality}", f"{modality}s", multiple=True, metavar="ENCODER", shell_complete=encoders(modality),
        help=f"A {modality} encoder, [FAMILY:]CHECKPOINT_OR_PATH[@key=value,...] or a family alone, or a file of "
        "embeddings; repeatable. Default: every encoder that runs on the data without a download.",
    )  # fmt: skip


set_options = together(
    together(
    _encoder_option("face"),
    _encoder_option("voice"),
    click.option("--device", default="auto", metavar="DEVICE",
                 help="cpu, cuda, cuda:1, mps or xpu; auto is CUDA, else MPS (Apple), else the CPU. On several, "
                 "cuda:0,cuda:1, encoders run side by side."),
    click.option("--dtype", type=click.Choice(("float32", "bfloat16", "float16")), default="float32",
                 help="Number type of the models."),
    click.option("--batch-size", type=click.IntRange(1), help="Samples per batch. Default: 16, or 64 on a GPU."),
    click.option("--offline", is_flag=True, help="Do not use the network; use weights that are on this machine."),
    click.option("--allow-pickle", is_flag=True,
                 help="Also read pickled weights (weights only) of checkpoints that are not defaults."),
    click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
                 help="Abandon an encoder that takes longer than this to download, or to load and run. The others "
                 "continue; exit code 4."),
    click.option("--backend", type=click.Choice(("local", "dask", "ray")), default="local",
                 help="Where encoders run and pairs are evaluated: on this machine, or on the workers of a Dask or Ray "
                 "cluster, which see the same paths (`encsel help scale`)."),
    click.option("--scheduler", metavar="ADDRESS",
                 help="The Dask scheduler, tcp://HOST:8786 or tls://HOST:8786; or the Ray cluster, HOST:6379. "
                 "Embeddings of people travel to it: use TLS or a trusted network."),
        group="Encoders",
    ),
    together(
    click.option("--identities", type=click.IntRange(1), help="Use only this many people."),
    click.option("--samples-per-identity", type=click.IntRange(1),
                 help="Use at most this many samples per person and modality."),
    click.option("--seed", type=click.IntRange(0), default=0, help="Random seed."),
    click.option("--max-skipped", type=click.FloatRange(0, 1), default=0.05,
                 help="Largest fraction of a modality's samples that may be unusable."),
    click.option("--clip", type=click.Choice(("first", "middle", "loudest")), default="first",
                 help="Which 5 seconds of a longer clip to use; first skips leading digital silence."),
    click.option("--ffmpeg", is_flag=True,
                 help="Decode clips that libsndfile cannot read, such as m4a and video, with this machine's ffmpeg."),
    click.option("--allow-outside", is_flag=True, help="Also read files that a manifest names outside its own folder."),
        group="Calibration set",
    ),
    together(
    click.option("--cache", default="default", show_default=False, metavar="DIR",
                 help="Folder of the embedding cache. Default: $ENCSEL_CACHE, or encsel/ in your cache folder."),
    click.option("--no-cache", "cache", flag_value=NO_CACHE, help="Keep no embeddings on disk."),
        group="Cache",
    ),
)  # fmt: skip
"""The encoders, where they run, how much of the set is used, and the cache."""

gate_options = together(
    click.option("--max-eer", type=float, metavar="EER", help="Gate: the best pair may have at most this EER."),
    click.option("--expect-best", metavar="FACE/VOICE", help="Gate: this pair must be the best."),
    click.option("--min-margin", type=float, metavar="EER", help="Gate: the best pair must be this far ahead of the "
                 "second."),
    click.option("--baseline", type=FILE, metavar="OLD.json",
                 help="JSON of an earlier run of this command, for --max-regression."),
    click.option("--max-regression", type=float, metavar="EER",
                 help="Gate: no pair's EER may exceed that in --baseline by more than this."),
    click.option("--above-chance", is_flag=True,
                 help="Gate: the best pair must be above chance (family-wise); passes or is inconclusive."),
    click.option("--gate-on", type=click.Choice(("interval", "point")), default="interval",
                 help="Judge gates on intervals (if one straddles the limit, the gate is inconclusive: exit code 6) or "
                 "on point estimates."),
    group="Gates",
)  # fmt: skip
"""What a CI job requires of the result."""

coverage_option = click.option("--coverage", type=click.FloatRange(0.5, 0.99), default=0.9,
                               help="Fraction of intervals that contain the true value.")  # fmt: skip

level_options = together(
    click.option("--train-people", type=click.IntRange(100, 3000), default=999, metavar="N",
                 help="Predict for a matcher trained on this many people, 100 to 3000."),
    click.option("--probe-samples", type=click.Choice(("20", "1")), default="20", callback=lambda *a: int(a[-1]),
                 help="Samples per person at test to predict for: means of 20, or one photo against one clip."),
)  # fmt: skip

prediction_options = together(
    click.option("--regression", default="encsel-likelihood", metavar="CARD", shell_complete=cards,
                 help="Card that orders the pairs: the name of a shipped one (encsel-calibrated for the study's "
                 "scorer, upadhyay2026 for the study's own card), or the path of one made by `encsel fit`."),
    coverage_option,
    level_options,
    click.option("--within", metavar="COLUMN",
                 help="Shuffle people only within the groups of this column of the set. Default: sex or gender, if "
                 "known for every person."),
    group="Prediction",
)  # fmt: skip
"""Which card orders the pairs, what it predicts for, and the coverage of its intervals."""

modality_option = click.option(
    "--modality", type=click.Choice(MODALITIES), help="Modality, for a family that reads both faces and voices."
)


def _log(ctx: click.Context, param: click.Parameter, level: int) -> None:
    """Show what encsel logs on stderr: INFO once, DEBUG twice."""
    if level:
        import logging

        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("encsel").setLevel(logging.INFO if level == 1 else logging.DEBUG)


quiet_option = together(
    click.option("--quiet", "-q", is_flag=True, help="No notes or progress on stderr."),
    click.option("--verbose", "-v", count=True, expose_value=False, callback=_log, show_default=False,
                 help="Log more on stderr; -vv adds tracebacks of failed encoders."),
    group="Output",
)  # fmt: skip
"""How much is written to stderr."""


def cache_of(cache: str) -> str | None:
    """The `cache` of `encsel.rank` for the value of --cache or --no-cache."""
    if not cache:
        raise click.UsageError("--cache is empty; a folder is needed. Pass --no-cache to keep nothing.")
    return None if cache == NO_CACHE else cache


report_option = click.option(
    "--report", "folder", type=FOLDER, metavar="DIR",
    help="Write a page to read and pass on, DIR/index.html, and beside it the JSON, a CSV and figures/*.png.",
)  # fmt: skip


def format_option(formats: tuple[str, ...]) -> Decorator:
    """--format, the first one by default."""
    return click.option("--format", "form", type=click.Choice(formats), default=formats[0], help="Format of stdout.")


def min_identities_option(least: int, consequence: str) -> Decorator:
    """--min-identities."""
    text = f"Fewest people with both faces and voices. {consequence}".rstrip()
    option = click.option("--min-identities", type=click.IntRange(least), default=30, help=text)
    return together(option, group="Calibration set")


result_options = together(
    prediction_options,
    gate_options,
    together(
        click.option("--strict-health", is_flag=True, help="Exit 4 if an encoder is unsound."), group="Gates"
    ),
    together(
    click.option("--show-names", is_flag=True,
                 help="Show the names of skipped samples, and of people in score files, instead of hashes. Files are "
                 "then readable only by you."),
    click.option("--output", "-o", "outputs", multiple=True, type=FILE,
                 help=f"Also write to this file, in the format of its suffix: {', '.join(FORMAT_OF_SUFFIX)}. "
                 "Repeatable."),
    format_option(FORMATS),
    click.option("--wide", is_flag=True, help="Print every column and note of the table."),
        group="Output",
    ),
    quiet_option,
)  # fmt: skip
"""Prediction, gates, and where and in which format the result is written."""
