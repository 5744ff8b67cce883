"""encsel demo."""

from pathlib import Path
from typing import Any

import click

from encsel.cli.options import FOLDER, NO_CACHE, Grouped, format_option, prediction_options, quiet_option
from encsel.cli.output import progress_of
from encsel.cli.rank import run
from encsel.storage.result import FORMATS

OUTPUT, REPORT = Path("encsel-demo"), "report"


@click.command(cls=Grouped)
@click.option("--output", "-o", type=FOLDER, metavar="DIR", default=OUTPUT, help="Folder for the set and its report.")
@click.option("--media", is_flag=True,
              help="Draw faces and synthesise voices instead, and embed them with the classical encoders.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, help="Random seed.")
@prediction_options
@format_option(FORMATS)
@quiet_option
def demo(output: Path, media: bool, seed: int, quiet: bool, **options: Any) -> int:
    """Rank a made-up calibration set, to see what a ranking says. Needs no network, weights or data.

    The set holds embeddings of 80 invented people by two face encoders (portrait, blur) and two voice encoders
    (timbre, pitch). It shows a winner, a tie, a pair that only tells the sexes apart, pairs at chance and an unsound
    encoder: how encsel works, not which encoder is good.
    """
    from encsel.data.demo_embeddings import write_demo_embeddings
    from encsel.errors import UsageError

    progress = progress_of(quiet)
    try:
        others = {path.name for path in output.iterdir()} if output.exists() else set()
        if others - (set() if media else {"faces", "voices", REPORT}):
            raise UsageError(f"{output} is not empty. Choose a new folder for --output.")
        if media:
            _write_media(output, seed, progress)
        else:
            write_demo_embeddings(output, seed=seed)
        encoders = {"faces": ("pixels", "hog"), "voices": ("mfcc", "ltas")} if media else {"faces": (), "voices": ()}
        code = run(output, quiet=quiet, seed=seed, cache=NO_CACHE, folder=output / REPORT, **encoders, **options)
    except OSError as error:
        raise UsageError(f"The set cannot be written: {error}. Choose another --output.") from error
    progress.note(f"Why a pair is where it is: encsel rank {output} --explain FACE/VOICE")
    progress.note("Next, on a set of yours: encsel rank DATA (what it needs: encsel rank --help)")
    return code


def _write_media(output: Path, seed: int, progress: Any) -> None:
    """Write faces and voices of 64 people, beside the output first: an interrupted demo leaves no partial set."""
    import tempfile

    from encsel.data.demo_set import write_demo_set

    place = output.absolute().parent
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".encsel-demo-", dir=place) as temporary:
        root = Path(temporary) / "set"
        with progress.task("writing faces and voices", 64) as task:
            write_demo_set(root, seed=seed, on_progress=lambda done, total: task.advance())
        if output.exists():  # an empty folder, whose place Windows gives to no other
            output.rmdir()
        root.replace(output)
