"""Check calibrated cards on populations and people they were not fitted on. A developer's script, not part of encsel.

python pretrained_regression/check_cards.py --yardstick core.py --real DATA [CARD ...]
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from encsel.cli.calibrate import errors_table
from encsel.core import MODALITIES
from encsel.data.calibration_set import CalibrationSet
from encsel.errors import BadCalibration, EncselError, UsageError
from encsel.metrics.centroids import median_samples
from encsel.prediction.card import CalibratedCard, HeldOut, load_calibrated, shipped_calibrated
from encsel.prediction.predict import predict_pairs
from encsel.progress import OnStderr, Progress
from encsel.simulation.error_model import standard_deviation, tails_of
from encsel.simulation.fit import held_out
from encsel.simulation.order import best_chances
from encsel.simulation.populations import KINDS, Draw, Population, TruthSizes, drawn
from encsel.simulation.table import Table, design, table_of
from encsel.simulation.trials import TESTED_PEOPLE, TESTED_SAMPLES, Job, Trials, resumed, simulate

FIRST_SEED = 100
"""Seed of the first frozen or new population; the others follow. Those of the cards have smaller ones."""
LINE_UP = (4, 3)
"""Face and voice encoders of a new population, as many as in the study."""


@dataclass(frozen=True)
class Halves:
    """One pair of encoders: how halves of the people predict the cross-validated EER of the other halves.

    Attributes:
        n_inside: splits in which it lies within the interval stated by the first half.
        half_width: mean half-width of that interval.
        predicted, sd: EER at the reference size, mean and standard deviation over halves.
    """

    face: str
    voice: str
    n_identities: int
    n_splits: int
    n_inside: int
    half_width: float
    predicted: float
    sd: float

    def __str__(self) -> str:
        return (
            f"Real people, {self.face} x {self.voice}, {self.n_identities} predict {self.n_identities} others: "
            f"{self.n_inside} of {self.n_splits} cross-validated EERs within the stated interval (mean half-width "
            f"{self.half_width:.3f}); predicted at the reference size {self.predicted:.3f} (sd over halves "
            f"{self.sd:.3f})"
        )


def load_world(path: Path) -> Any:
    """The class `World` of a Python file, which is executed.

    Raises:
        UsageError: the file cannot be read or executed, or has no World.
    """
    try:
        spec = importlib.util.spec_from_file_location("yardstick", path)
        if spec is None or spec.loader is None:
            raise ImportError("not a .py file")
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(path.resolve().parent))  # it may import its neighbours
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.pop(0)
        return module.World
    except Exception as error:
        raise UsageError(f"{path}: {error}. Give a Python file with the class World.") from error


def population(path: Path, seed: int) -> Draw:
    """Draws people of `World(seed)`."""
    world = load_world(path)(seed)
    encoders = dict(zip(MODALITIES, (range(world.nf), range(world.nf, world.nf + world.nv)), strict=True))

    def draw(n: int, m: int, rng: np.random.Generator) -> dict:
        latents = world.latents(n, rng)
        return {modality: tuple(drawn(world.emb(k, latents, m, rng)) for k in ks) for modality, ks in encoders.items()}

    return draw


def frozen_trials(path: Path, seed: int, n_sets: int, sizes: TruthSizes) -> Trials:
    """Trials of one frozen population, `n_sets` sets for each tested number of people."""
    sets = [(n, TESTED_SAMPLES[i % len(TESTED_SAMPLES)]) for n in TESTED_PEOPLE for i in range(n_sets)]
    return simulate("yardstick", seed, population(path, seed), sets, sizes)


def frozen_job(path: Path, seed: int, n_sets: int, sizes: TruthSizes) -> Job:
    """The file name of the trials of one frozen population, and what simulates them."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    name = f"yardstick-{seed}-{digest}-{n_sets}-{sizes.n_draws}x{sizes.n_splits}"
    return name, functools.partial(frozen_trials, path, seed, n_sets, sizes)


def line_up_job(kind: str, seed: int, sizes: TruthSizes) -> Job:
    """The file name of the trials of one population with 4 x 3 encoders, and what simulates them."""
    faces, voices = LINE_UP
    sets = [(n, m) for n in TESTED_PEOPLE for m in TESTED_SAMPLES[:2]]

    def trials() -> Trials:
        return simulate(kind, seed, Population(kind, seed, n_faces=faces, n_voices=voices).draw, sets, sizes)

    return f"line-up-{kind}-{seed}-{faces}x{voices}-{sizes.n_draws}x{sizes.n_splits}", trials


def errors_by_people(card: CalibratedCard, table: Table) -> list[HeldOut]:
    """Errors of a finished card on populations it was not fitted on, by number of people."""
    d = design(table, card.features) @ np.ravel(card.coefficients)
    sd = standard_deviation(card.spread, card.own_error, table, d)
    kinds = np.unique(table.kind)
    half_width, p_best = tails_of(card, table.n) * sd, best_chances(card, table, d, sd).chance
    return [
        held_out(
            str(kinds[0]) if len(kinds) == 1 else "all",
            table.rows(rows),
            d[rows],
            half_width[rows],
            p_best[rows],
            training_mean=card.training_mean,
        )
        for rows in (table.n == n for n in np.unique(table.n))
    ]


def halves(
    cards: Sequence[CalibratedCard], data: Path, *, n_splits: int = 100, seed: int = 0, progress: Progress
) -> list[Halves]:
    """Split the people of a folder of embeddings into disjoint halves, `n_splits` times; the first card predicts.

    Raises:
        BadCalibration: fewer than 20 people, or no embeddings.
    """
    card, embeddings = cards[0], CalibrationSet.from_path(data).embeddings
    if not embeddings:
        raise BadCalibration(f"{data} holds no embeddings. Give a folder with faces/NAME.npz and voices/NAME.npz.")
    people = sorted(set.intersection(*(set(e.identities) for e in embeddings)))
    embeddings = tuple(e.rows(np.isin(e.labels, people)) for e in embeddings)
    faces, voices = ([e for e in embeddings if e.modality == m] for m in MODALITIES)
    x, y = ([e.centroids for e in side] for side in (faces, voices))
    samples = [median_samples(e) for e in faces], [median_samples(e) for e in voices]
    n = len(people) // 2
    rng = np.random.default_rng(seed)
    rows: dict[tuple[str, str], list[tuple[bool, float, float]]] = {}
    with progress.task("halves", n_splits) as task:
        for split in range(n_splits):
            order = rng.permutation(len(people))
            first, second = (
                predict_pairs([a[half] for a in x], [b[half] for b in y], samples, cards, seed=split, n_shuffles=1)
                for half in (order[:n], order[n : 2 * n])
            )
            for i, face in enumerate(faces):
                for j, voice in enumerate(voices):
                    stated, other = (side[i][j].measured[card.scorer] for side in (first, second))
                    low, high = stated.interval
                    row = (low <= other.eer <= high, (high - low) / 2, first[i][j].estimates[card.name].eer)
                    rows.setdefault((face.name, voice.name), []).append(row)
            task.advance()
    results = []
    for (face_name, voice_name), values in rows.items():
        inside, half_widths, predicted = (np.array(column) for column in zip(*values, strict=True))
        numbers = (float(half_widths.mean()), float(predicted.mean()), float(predicted.std()))
        results.append(Halves(face_name, voice_name, n, n_splits, int(inside.sum()), *numbers))
    return results


@click.command()
@click.argument("cards", nargs=-1)
@click.option(
    "--yardstick",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE.py",
    help="Test on the frozen populations of this Python file: World(seed), seeds from 100. The file is executed.",
)
@click.option(
    "--line-ups", type=click.IntRange(0), default=0, help="New populations of each kind, 4 x 3 encoders each."
)
@click.option("--populations", type=click.IntRange(1), default=8, show_default=True, help="Frozen populations.")
@click.option("--sets", type=click.IntRange(1), default=9, show_default=True, help="Sets of each size per population.")
@click.option("--quick", is_flag=True, help="Short truths: one draw of people and two splits.")
@click.option(
    "--real",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DATA",
    help="Predict one half of the people of these embeddings from the other half.",
)
@click.option("--splits", type=click.IntRange(1), default=100, show_default=True, help="Splits into halves.")
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("work"),
    show_default=True,
    help="Folder for simulated sets, which are reused if present.",
)
@click.option("--jobs", type=int, default=-1, show_default=True, help="Number of processes; -1 for one per core.")
def main(cards: tuple[str, ...], yardstick: Path | None, real: Path | None, work: Path, **numbers: Any) -> None:
    """Check CARDS (names or files; by default the shipped ones) on frozen populations and on real people."""
    progress = OnStderr()
    try:
        loaded = [load_calibrated(name) for name in cards or shipped_calibrated()]
        trials: list[Trials] = []
        if yardstick is not None:
            load_world(yardstick)  # fail before the long part
            sizes = TruthSizes(n_draws=1, n_splits=2) if numbers["quick"] else TruthSizes()
            seeds = range(FIRST_SEED, FIRST_SEED + numbers["populations"])
            jobs = [frozen_job(yardstick, seed, numbers["sets"], sizes) for seed in seeds]
            trials = list(resumed(jobs, work, n_jobs=numbers["jobs"], progress=progress))
        if numbers["line_ups"]:
            sizes = TruthSizes()
            seeds = range(FIRST_SEED, FIRST_SEED + numbers["line_ups"])
            jobs = [line_up_job(kind, seed, sizes) for seed in seeds for kind in KINDS]
            trials += resumed(jobs, work, n_jobs=numbers["jobs"], progress=progress)
        for card in loaded:
            click.echo(f"{card.name}, scorer '{card.scorer}'\n")
            if trials:
                click.echo(errors_table(errors_by_people(card, table_of(trials, card.scorer))))
            if real is not None:
                for pair in halves(
                    [card, load_calibrated("encsel-calibrated")], real, n_splits=numbers["splits"], progress=progress
                ):
                    click.echo(f"- {pair}")
    except EncselError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
