"""Compare trained heads with the scorers, on real and on simulated people. A developer's script, not part of encsel.

python pretrained_regression/compare_matchers.py --data DATA --simulated 1
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from encsel.core import MODALITIES
from encsel.data.calibration_set import CalibrationSet
from encsel.errors import BadCalibration, EncselError
from encsel.matching import likelihood
from encsel.matching.axes import Side, project
from encsel.matching.evaluate import LEVELS
from encsel.matching.folds import Folds, protocol_folds
from encsel.matching.heads import COMPARED, HeadsCompared, compare_heads
from encsel.matching.projections import Fold, Projections, project_encoder
from encsel.matching.scorers import REFERENCE_TRAIN
from encsel.progress import OnStderr, Progress
from encsel.simulation.populations import Drawn, Population, TruthSizes

KINDS = ("traits", "heavy-tailed", "clustered", "many-weak")
FIRST_SEED = 100
"""Seed of the first simulated population of each kind; the others follow."""
MAX_APART = 3
"""Pairs of a set that have a row each; of more there is one row, their mean."""


@dataclass(frozen=True)
class Row:
    """One line of the table: results of some pairs, which are averaged."""

    label: str
    pairs: Sequence[HeadsCompared]
    n_folds: int

    def __str__(self) -> str:
        cells = []
        for matcher in COMPARED:
            people, single = (np.mean([p.levels[level][matcher].eer for p in self.pairs]) for level in LEVELS)
            cells.append(f"{people:.3f} ({single:.3f})")
        first = self.pairs[0]
        numbers = (len(self.pairs), first.n_train, first.n_test, f"{first.n_repeats} x {self.n_folds}")
        return f"| {self.label} | {' | '.join([*map(str, numbers), *cells])} |"


def header() -> str:
    names = ("people", "pairs", "to fit", "to test", "repeats x folds", *COMPARED)
    return f"| {' | '.join(names)} |\n|{' --- |' * len(names)}"


def measured(label: str, faces: Sequence[Projections], voices: Sequence[Projections], folds: Folds) -> Row:
    """All pairs of the projected encoders, averaged."""
    pairs = [compare_heads(f, v, folds, seed=0, device=_device()) for f, v in itertools.product(faces, voices)]
    return Row(label, pairs, len(folds[0]))


def real(data: Path) -> Iterator[Row]:
    """Rows of a folder of embeddings, measured as `encsel validate --only head` does.

    Raises:
        BadCalibration: no embeddings, or too few people.
    """
    embeddings = CalibrationSet.from_path(data).embeddings
    if not embeddings:
        raise BadCalibration(f"{data} holds no embeddings. Give a folder with faces/NAME.npz and voices/NAME.npz.")
    people = sorted(set.intersection(*(set(e.identities) for e in embeddings)))
    folds = protocol_folds(len(people), "crossval", seed=0)
    rows = [e.rows(np.isin(e.labels, people)) for e in embeddings]
    faces, voices = (
        {e.name: project_encoder(e, e.centroids, folds, seed=0) for e in rows if e.modality == m} for m in MODALITIES
    )
    if len(faces) * len(voices) > MAX_APART:
        yield measured(f"{data.name}, mean of pairs", [*faces.values()], [*voices.values()], folds)
        return
    for (face, f), (voice, v) in itertools.product(faces.items(), voices.items()):
        yield measured(f"{data.name}, {face} x {voice}", [f], [v], folds)


def simulated(kind: str, n_populations: int, progress: Progress) -> Row:
    """One pair of each population of a kind, at the reference size, averaged."""
    sizes = TruthSizes()
    n = REFERENCE_TRAIN + sizes.n_test
    folds: Folds = [[(np.arange(REFERENCE_TRAIN), np.arange(REFERENCE_TRAIN, n))]]

    def projections(one: Drawn) -> Projections:
        ((train, test),) = folds[0]
        side = project(np.vstack([one.centroids, one.single]), train, np.r_[test, n + test], n_axes=likelihood.N_AXES)
        people, single = np.split(side.test, 2)
        return [[Fold(Side(side.train, people, side.sd), single, test, {})]]

    pairs: list[HeadsCompared] = []
    with progress.task(kind, n_populations) as task:
        for seed in range(FIRST_SEED, FIRST_SEED + n_populations):
            people = Population(kind, seed, n_faces=1, n_voices=1).draw(n, sizes.n_samples, np.random.default_rng(seed))
            faces, voices = ([projections(one) for one in people[m]] for m in MODALITIES)
            pairs += measured(kind, faces, voices, folds).pairs
            task.advance()
    return Row(f"simulated, {kind}", pairs, 1)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@click.command()
@click.option(
    "--data",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DATA",
    help="Measure the pairs of these embeddings. Repeatable.",
)
@click.option(
    "--simulated",
    "n_populations",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help=f"Simulated populations of each of these kinds: {', '.join(KINDS)}.",
)
def main(folders: tuple[Path, ...], n_populations: int) -> None:
    """Print a Markdown table: EER of people and, in brackets, of one image against one clip."""
    progress = OnStderr()
    try:
        click.echo(header())
        for folder in folders:
            for row in real(folder):
                click.echo(str(row))
        for kind in KINDS if n_populations else ():
            click.echo(str(simulated(kind, n_populations, progress)))
    except EncselError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
