"""Show what joint training does to what encsel measures. A script of the repository, not part of encsel.

python pretrained_regression/joint_training.py --output EXAMPLE [--data DATA]
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

import encsel
from encsel.core import MODALITIES, Embeddings, Modality, Traits, Vectors
from encsel.data.calibration_set import CalibrationSet
from encsel.data.embedding_files import write_embeddings
from encsel.errors import EncselError, UsageError
from encsel.matching.axes import project as on_axes
from encsel.matching.joint import PROJECTIONS, project
from encsel.matching.likelihood import N_AXES
from encsel.reports.tables import render_sections
from encsel.rows import unit_rows
from encsel.simulation.populations import KINDS, Population
from encsel.storage.sections import number, table

SPACE = "joint-example"
SAMPLES = 8
"""Samples of each simulated person on either side."""
Rows = NDArray[np.intp]
Both = dict[Modality, Embeddings]


def simulated(kind: str, n: int, seed: int) -> Both:
    """A face and a voice encoder that see `n` simulated people."""
    population, rng = Population(kind, seed, n_faces=1, n_voices=1), np.random.default_rng(seed)
    people = population.people(n, SAMPLES, rng)
    labels = np.repeat([f"person {i:05d}" for i in range(n)], SAMPLES)
    samples = np.tile([f"{j}" for j in range(SAMPLES)], n)
    made: Both = {}
    for modality, (encoder,) in population.encoders.items():
        rows = population.embed(encoder, people, SAMPLES, rng).reshape(n * SAMPLES, -1)
        made[modality] = Embeddings(modality, modality, rows, labels, samples)
    return made


def of_set(data: Path, face: str | None, voice: str | None) -> Both:
    """One face and one voice encoder of a folder of embedding files, of the people that both have."""
    chosen: Both = {}
    found = CalibrationSet.from_path(data).embeddings
    for modality, name in zip(MODALITIES, (face, voice), strict=True):
        names = [e.name for e in found if e.modality == modality]
        if name not in (None, *names) or not names:
            raise UsageError(f"{data} has the {modality} files {', '.join(names) or '(none)'}; {name} is not one.")
        chosen[modality] = next(e for e in found if e.modality == modality and e.name in (name, names[0]))
    people = sorted(set.intersection(*(set(e.identities) for e in chosen.values())))
    return {modality: e.rows(np.isin(e.labels, people)) for modality, e in chosen.items()}


def mispaired(both: Both, people: NDArray[np.str_], rng: np.random.Generator) -> Both:
    """The same embeddings, with each of these people given the voices of another one of them."""
    order = rng.permutation(people)
    other = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    labels = np.array([other.get(label, label) for label in both["voice"].labels.tolist()])
    return {**both, "voice": replace(both["voice"], labels=labels)}


def trained(both: Both, train: Rows) -> Both:
    """All samples in the joint space of projections trained on the people numbered `train`."""
    sides = []
    for e in both.values():
        people = e.centroids
        rows = np.vstack([people, unit_rows(e.vectors.astype(np.float64))])
        sides.append(on_axes(rows, train, np.arange(len(people), len(rows)), n_axes=N_AXES))
    projected: tuple[Vectors, Vectors] = project(*sides)
    if not all(np.any(rows) for rows in projected):
        raise UsageError("Training found nothing that these faces and voices share. Take more people or another kind.")
    return {
        modality: replace(e, vectors=rows.astype(np.float32), traits=Traits(space=SPACE))
        for (modality, e), rows in zip(both.items(), projected, strict=True)
    }


def measured(both: Both, folder: Path, seed: int) -> dict[str, str]:
    """What `encsel rank` says of the two encoders, written into a folder as embedding files."""
    for modality, e in both.items():
        write_embeddings(e, folder / f"{modality}s" / f"{modality}.npz")
    pair = encsel.rank(folder, min_identities=10, seed=seed, cache=None).best
    cosine = None if pair.joint_space is None else pair.joint_space.cosine_eer
    return {
        "CKA debiased": number(pair.cka.debiased), "Predicted EER": number(pair.predicted_eer),
        "CV EER": number(pair.cross_validated and pair.cross_validated.eer), "Cosine EER": number(cosine),
    }  # fmt: skip


@click.command()
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR",
              help="Folder for the sets of embedding files, a folder each.")  # fmt: skip
@click.option("--data", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DATA",
              help="Take the embeddings of this set instead of simulated people.")  # fmt: skip
@click.option("--face", metavar="NAME", help="Face encoder of DATA. Default: the first.")
@click.option("--voice", metavar="NAME", help="Voice encoder of DATA. Default: the first.")
@click.option("--kind", type=click.Choice(tuple(KINDS)), default="dominated", show_default=True,
              help="Kind of simulated people.")  # fmt: skip
@click.option("--people", type=click.IntRange(30), default=800, show_default=True, help="Number of simulated people.")
@click.option("--train", type=click.FloatRange(0.1, 0.9), default=0.75, show_default=True,
              help="Fraction of the people to train on.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Random seed.")
def main(
    output: Path,
    data: Path | None,
    face: str | None,
    voice: str | None,
    kind: str,
    people: int,
    train: float,
    seed: int,
) -> None:
    """Train projections of a face and a voice encoder jointly, and rank held-out people before and after."""
    try:
        both = simulated(kind, people, seed) if data is None else of_set(data, face, voice)
        names = np.unique(both["face"].labels)
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(names))
        chosen, held_out = np.sort(order[: round(train * len(names))]), np.sort(order[round(train * len(names)) :])

        def only(of: Both, who: Rows) -> Both:
            return {modality: e.rows(np.isin(e.labels, names[who])) for modality, e in of.items()}

        after, control = trained(both, chosen), trained(mispaired(both, names[chosen], rng), chosen)
        sets = {
            "before": ("before training", "held out", only(both, held_out)),
            "after": ("joint training", "held out", only(after, held_out)),
            "control": ("with the voices of others", "held out", only(control, held_out)),
            "control-trained": ("with the voices of others", "as trained on", only(control, chosen)),
        }
        rows = [
            {"Training": training, "People": people} | measured(of, output / folder, seed)
            for folder, (training, people, of) in sets.items()
        ]
        who = f"Simulated people ({kind})" if data is None else f"People of {data.name}"
        section = table(
            "Jointly trained encoders", rows,
            f"{who}, {len(chosen)} to train on and {len(held_out)} held out. Projections: {PROJECTIONS}.",
            "The last line has people whose face and voice are not of one person: on the people trained on, CKA rises "
            "whatever they share. Only held-out people are evidence.", n_names=2,
        )  # fmt: skip
        click.echo(render_sections(section, "markdown"), nl=False)
    except EncselError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
