"""Check predictions on real people: from some of a set's people to what is measured on the others. Not part of encsel.

python pretrained_regression/yardstick.py DATA [DATA ...]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from encsel.core import MODALITIES, Vectors
from encsel.data.calibration_set import CalibrationSet
from encsel.errors import BadCalibration, EncselError
from encsel.matching.crossval import MEASURED, held_out_evidence, sides
from encsel.matching.folds import folds_of
from encsel.metrics.centroids import median_samples
from encsel.prediction.card import PROBE_SAMPLES, load_calibrated
from encsel.prediction.predict import PairPrediction, predict_pairs
from encsel.prediction.shipped import CALIBRATED
from encsel.progress import OnStderr, Progress
from encsel.regression.association import spearman
from encsel.reports.tables import markdown_table
from encsel.storage.sections import number, table

LEAST_TRAINED, MOST_TRAINED = 100, 3000
N_SHUFFLES = 99


@dataclass(frozen=True)
class RealSet:
    """Centroids (n, dim) of the same people, and median samples a person, by encoder, of faces and of voices."""

    name: str
    names: tuple[Sequence[str], Sequence[str]]
    x: tuple[Sequence[Vectors], Sequence[Vectors]]
    samples: tuple[Sequence[float], Sequence[float]]

    def __len__(self) -> int:
        return len(self.x[0][0])

    def shuffled(self, order: NDArray[np.intp]) -> RealSet:
        """Every voice given to another person."""
        return RealSet(self.name, self.names, (self.x[0], [y[order] for y in self.x[1]]), self.samples)

    def predict(self, people: NDArray[np.intp], level: int, seed: int) -> list[PairPrediction]:
        """Predictions from these people for a matcher of `level` training people, by face, then voice."""
        cards = [load_calibrated(name).at(level, PROBE_SAMPLES) for name in CALIBRATED.values()]
        faces, voices = ([one[people] for one in side] for side in self.x)
        return list(chain(*predict_pairs(faces, voices, self.samples, cards, seed=seed, n_shuffles=N_SHUFFLES)))

    def measure(self, people: NDArray[np.intp], seed: int) -> list[dict[str, float]]:
        """Cross-validated EER of each pair on these people, by scorer."""
        folds = folds_of(len(people), n_repeats=1, seed=seed)
        face, voice = ([sides(one[people], folds) for one in side] for side in self.x)
        measured = (held_out_evidence(f, v, folds).scored for f in face for v in voice)
        return [{s: rates[s].eer for s in MEASURED} for rates in measured]


def real_set(path: Path) -> RealSet:
    """The embeddings of a folder, of people who have them from every encoder.

    Raises:
        BadCalibration: it holds no embeddings.
    """
    embeddings = CalibrationSet.from_path(path).embeddings
    if not embeddings:
        raise BadCalibration(f"{path} holds no embeddings. Give a folder with faces/NAME.npz and voices/NAME.npz.")
    people = sorted(set.intersection(*(set(e.identities) for e in embeddings)))
    faces, voices = (
        [e.rows(np.isin(e.labels, people)) for e in embeddings if e.modality == modality] for modality in MODALITIES
    )
    return RealSet(
        path.name,
        ([e.name for e in faces], [e.name for e in voices]),
        ([e.centroids for e in faces], [e.centroids for e in voices]),
        ([median_samples(e) for e in faces], [median_samples(e) for e in voices]),
    )


def rows_of(data: RealSet, n: int, draws: int, progress: Progress) -> list[dict[str, str]]:
    """One row per scorer: `n` people predict what is measured on the others, and order pairs as they do."""
    found: dict[str, list[tuple[float, ...]]] = {scorer: [] for scorer in MEASURED}
    trained = (len(data) - n) * 4 // 5
    level = min(max(trained, LEAST_TRAINED), MOST_TRAINED)
    with progress.task(data.name, draws) as task:
        for seed in range(draws):
            order = np.random.default_rng(seed).permutation(len(data))
            predicted, measured = data.predict(order[:n], level, seed), data.measure(order[n:], seed)
            for scorer, card in CALIBRATED.items():
                truth = np.array([m[scorer] for m in measured])
                eer = np.array([p.estimates[card].eer for p in predicted])
                low, high = np.array([p.estimates[card].interval for p in predicted]).T
                own = np.array([p.measured[scorer].eer for p in predicted])
                inside = (low <= truth) & ((truth <= high) | (high >= 0.5))
                best = truth[np.argmin(eer)] - truth.min()
                found[scorer].append(
                    (spearman(eer, truth) or 0, spearman(own, truth) or 0, inside.mean(), np.mean((eer - truth) ** 2),
                     np.mean((own - truth) ** 2), best)
                )  # fmt: skip
            task.advance()
    rows = []
    for scorer, values in found.items():
        order, own, inside, squared, own_squared, regret = np.mean(values, axis=0)
        rows.append({
            "set": data.name, "scorer": scorer, "pairs": str(len(data.names[0]) * len(data.names[1])),
            "people": f"{n} of {len(data)}", "trained on": str(trained),
            "Spearman": number(order, 2), "of CV": number(own, 2), "RMSE": number(np.sqrt(squared)),
            "of CV ": number(np.sqrt(own_squared)), "regret": number(regret), "held": number(inside, 2),
        })  # fmt: skip
    return rows


def at_chance(data: RealSet, n: int, draws: int, progress: Progress) -> list[dict[str, str]]:
    """One row per scorer: people with the voices of others."""
    found: dict[str, list[tuple[float, ...]]] = {scorer: [] for scorer in MEASURED}
    with progress.task(f"{data.name}, shuffled", draws) as task:
        for seed in range(draws):
            rng = np.random.default_rng([seed, 1])
            moved = data.shuffled(rng.permutation(len(data)))
            predicted = moved.predict(rng.permutation(len(data))[:n], 999, seed)
            for scorer, card in CALIBRATED.items():
                estimates = [p.estimates[card] for p in predicted]
                told = [p.null.told for p in predicted]
                holds = [e.interval[1] >= 0.5 for e in estimates]
                found[scorer].append((float(np.mean([e.eer for e in estimates])), float(np.mean(holds)), any(told)))
            task.advance()
    return [
        {"set": data.name, "scorer": scorer, "people": str(n), "draws": str(draws), "predicted": number(eer),
         "intervals with 0.5": number(holds, 2), "sets with a pair above chance": number(told, 2)}
        for scorer, (eer, holds, told) in ((s, np.mean(v, axis=0)) for s, v in found.items())
    ]  # fmt: skip


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--people", type=click.IntRange(30), default=50, show_default=True, help="People to predict from.")
@click.option("--draws", type=click.IntRange(1), default=8, show_default=True, help="Draws of these people.")
@click.option("--shuffled", type=click.IntRange(0), default=20, show_default=True, help="Sets with voices of others.")
def main(data: tuple[Path, ...], people: int, draws: int, shuffled: int) -> None:
    """Predict from some people of each folder of embeddings, and measure on the others; then with voices of others.

    A set without 60 people more is predicted from half of it, at the level of 100 training people and not of the fewer
    behind what is measured.
    """
    progress, rows, chance = OnStderr(), [], []
    try:
        for path in data:
            one = real_set(path)
            n = people if len(one) >= people + 60 else len(one) // 2
            if n >= 30:
                rows += rows_of(one, n, draws, progress)
            if shuffled and len(one) >= 30:
                chance += at_chance(one, min(people, len(one)), shuffled, progress)
    except EncselError as error:
        raise click.ClickException(str(error)) from error
    for title, cells in (("Predicted from some people, measured on the others", rows), ("Voices of others", chance)):
        if cells:
            (section,) = table("", cells)
            click.echo(f"{title}\n\n{markdown_table(section.header, section.rows)}")


if __name__ == "__main__":
    main()
