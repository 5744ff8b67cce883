"""encsel demo."""

from pathlib import Path
from typing import Any

import click

from encsel.cli.options import FOLDER, NO_CACHE, format_option, prediction_options, quiet_option
from encsel.cli.output import progress_of
from encsel.cli.rank import run
from encsel.storage.result import FORMATS


@click.command()
@click.option("--output", "-o", type=FOLDER, metavar="DIR",
              help="Write the set to this new folder and keep it. Default: a temporary folder.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, help="Random seed.")
@prediction_options
@format_option(FORMATS)
@quiet_option
def demo(output: Path | None, seed: int, quiet: bool, **options: Any) -> int:
    """Write a small procedural calibration set and rank the classical encoders on it.

    Draw faces and synthesise voices of 64 invented people whose sex, build and age show in both, write them as PNG
    and WAV, and run `encsel rank` on them. Needs no network, weights or data. The ranking shows how encsel works, not
    which encoder is good.
    """
    import tempfile

    from encsel.data.demo_set import write_demo_set
    from encsel.errors import UsageError

    if output is not None and output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty. Choose a new folder for --output.")
    progress = progress_of(quiet)
    try:
        place = None if output is None else output.absolute().parent
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        # Written beside the output, so that an interrupted demo leaves no partial set there.
        with tempfile.TemporaryDirectory(prefix=".encsel-demo-", dir=place) as temporary:
            root = Path(temporary) / "set"
            with progress.task("writing faces and voices", 64) as task:
                write_demo_set(root, seed=seed, on_progress=lambda done, total: task.advance())
            if output is not None:
                if output.exists():  # an empty folder, whose place Windows gives to no other
                    output.rmdir()
                root = root.replace(output)
            encoders = {"faces": ("pixels", "hog"), "voices": ("mfcc", "ltas")}
            code = run(root, quiet=quiet, seed=seed, cache=NO_CACHE, **encoders, **options)
    except OSError as error:
        raise UsageError(f"The set cannot be written: {error}. Choose another --output.") from error
    if output is not None:
        progress.note(f"The set is in {output}. Rank it again with: encsel rank {output}")
    return code
