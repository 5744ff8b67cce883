"""Calibration sets with faults: how wrong predictions become, and whether encsel says so. A developer's script.

python pretrained_regression/spoiled_sets.py [--seeds 2] [--people 50 --people 100] [CARD ...]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click
import numpy as np

from encsel.core import MODALITIES, Embeddings, Modality
from encsel.embedding.labels import notes_on_labels
from encsel.metrics.centroids import median_samples
from encsel.prediction.card import CalibratedCard, estimate, load_calibrated, shipped_calibrated
from encsel.prediction.evidence import encoder_evidence, evidence_folds, pair_evidence
from encsel.simulation.populations import KINDS, Population, TruthSizes, truth

FIRST_SEED = 100
"""No population of the fit has this seed or a later one."""
SAMPLES, MOST_SAMPLES = 8, 40
Samples = dict[Modality, list[np.ndarray]]
"""By modality, (people, samples, dim) of each encoder."""
Sides = Mapping[Modality, list[list[np.ndarray]]]
"""By modality and encoder, (samples, dim) of each person."""


def rows_of(samples: Samples) -> dict[Modality, list[list[np.ndarray]]]:
    return {modality: [list(x) for x in encoders] for modality, encoders in samples.items()}


def wrong_labels(share: float) -> Callable[..., Sides]:
    """A share of the samples of either modality belongs to other people, for all its encoders."""

    def spoil(samples: Samples, rng: np.random.Generator) -> Sides:
        for modality, encoders in samples.items():
            n, m = encoders[0].shape[:2]
            chosen = rng.choice(n * m, max(2, round(share * n * m)), replace=False)
            moved = np.roll(chosen, 1)
            for i, x in enumerate(encoders):
                flat = x.reshape(n * m, -1).copy()
                flat[chosen] = flat[moved]
                samples[modality][i] = flat.reshape(x.shape)
        return rows_of(samples)

    return spoil


def garbage(samples: Samples, rng: np.random.Generator) -> Sides:
    """A tenth of the samples shows no face or voice: vectors around one direction of their own."""
    for modality, encoders in samples.items():
        n, m = encoders[0].shape[:2]
        chosen = rng.choice(n * m, round(0.1 * n * m), replace=False)
        for i, x in enumerate(encoders):
            flat, dim = x.reshape(n * m, -1).copy(), x.shape[2]
            placeholder = rng.normal(size=dim) + 0.5 * rng.normal(size=(len(chosen), dim))
            flat[chosen] = placeholder / np.linalg.norm(placeholder, axis=1, keepdims=True)
            samples[modality][i] = flat.reshape(x.shape)
    return rows_of(samples)


def twice(samples: Samples, _: np.random.Generator) -> Sides:
    """A tenth of the people stand under two names, with half of their samples each."""
    sides = rows_of(samples)
    n = len(samples["face"][0])
    for encoders in sides.values():
        for people in encoders:
            for i in range(n // 10):
                people[n - 1 - i], people[i] = people[i][1::2], people[i][::2]
    return sides


def uneven(samples: Samples, rng: np.random.Generator) -> Sides:
    """From 1 to 40 samples a person, log-uniformly."""
    sides = rows_of(samples)
    for encoders in sides.values():
        counts = np.exp(rng.uniform(0, np.log(MOST_SAMPLES), len(encoders[0]))).round().astype(int)
        for people in encoders:
            people[:] = [rows[:count] for rows, count in zip(people, counts, strict=True)]
    return sides


def hubs(samples: Samples, rng: np.random.Generator) -> Sides:
    """A tenth of the people of either modality lie near the middle of all, and so near to everybody."""
    for modality, encoders in samples.items():
        chosen = rng.choice(len(encoders[0]), len(encoders[0]) // 10, replace=False)
        for i, x in enumerate(encoders):
            moved = x.copy()
            middle = x.mean(axis=(0, 1))
            moved[chosen] = middle + 0.3 * (moved[chosen] - middle)
            samples[modality][i] = moved
    return rows_of(samples)


def as_they_are(samples: Samples, _: np.random.Generator) -> Sides:
    return rows_of(samples)


FAULTS: Mapping[str, Callable[..., Sides]] = {
    "none": as_they_are, "wrong labels 2 %": wrong_labels(0.02), "wrong labels 10 %": wrong_labels(0.1),
    "garbage 10 %": garbage, "people twice 10 %": twice, "1 to 40 samples": uneven, "hubs": hubs,
    "one sex": as_they_are, "noisier": as_they_are,
}  # fmt: skip


def drawn(population: Population, n: int, fault: str, rng: np.random.Generator) -> Sides:
    """A set of n people with a fault."""
    m = MOST_SAMPLES if fault == "1 to 40 samples" else SAMPLES
    people = population.people(4 * n if fault == "one sex" else n, m, rng)
    kept = np.arange(n)
    if fault == "one sex":
        both = (people.traits["face"][:, 0] > 0) & (people.traits["voice"][:, 0] > 0)
        kept = np.flatnonzero(both)[:n]
    samples: Samples = {}
    for modality in MODALITIES:
        samples[modality] = []
        for e in population.encoders[modality]:
            usual = e.noise_gain
            if fault == "noisier":
                e.noise_gain = 2 * usual
            samples[modality].append(population.embed(e, people, m, rng)[kept])
            e.noise_gain = usual
    return FAULTS[fault](samples, rng)


def embeddings_of(sides: Sides) -> list[Embeddings]:
    found = []
    for modality, encoders in sides.items():
        for k, people in enumerate(encoders):
            labels = np.repeat([f"id{i:04d}" for i in range(len(people))], [len(rows) for rows in people])
            names = np.concatenate([[f"s{j}" for j in range(len(rows))] for rows in people])
            vectors = np.concatenate(people).astype(np.float32)
            found.append(Embeddings(f"{modality}{k}", modality, vectors, labels, names))
    return found


def tried(kind: str, seed: int, sizes: tuple[int, ...], cards: tuple[CalibratedCard, ...]) -> list[dict[str, Any]]:
    """Every fault on one population: (fault, n, card, predicted d' minus true, inside, warned) of every pair."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        population = Population(kind, seed, n_faces=2, n_voices=2)
        true = truth(population.draw, np.random.default_rng([seed, 1]), TruthSizes(n_train=(999,), probes=(20,)))
        rows = []
        for n in sizes:
            for number, fault in enumerate(FAULTS):
                found = embeddings_of(drawn(population, n, fault, np.random.default_rng([seed, n, number])))
                warned = bool(notes_on_labels(found))
                folds = evidence_folds(n, seed=0)
                sides = [[e for e in found if e.modality == m] for m in MODALITIES]
                evidence = [[encoder_evidence(e.centroids, folds) for e in side] for side in sides]
                m = median_samples(found[0])
                for i, face in enumerate(evidence[0]):
                    for j, voice in enumerate(evidence[1]):
                        pair = pair_evidence(face, voice, folds)
                        for card in cards:
                            one = estimate(card, pair, n, m)
                            eer = float(true[["reference", "likelihood"].index(card.scorer), 0, 0, i, j])
                            inside = one.interval[0] <= min(eer, 0.5) <= one.interval[1]
                            rows.append(
                                {"fault": fault, "n": n, "card": card.name, "error": one.eer - eer, "inside": inside,
                                 "warned": warned}
                            )  # fmt: skip
    return rows


@click.command(help=__doc__)
@click.argument("names", nargs=-1, metavar="[CARD]...")
@click.option("--seeds", default=2, help="Populations of each kind.")
@click.option("--people", "sizes", multiple=True, default=(50, 100), help="Sizes of the sets.")
@click.option("--jobs", default=-1)
def main(names: tuple[str, ...], seeds: int, sizes: tuple[int, ...], jobs: int) -> None:
    from joblib import Parallel, delayed

    cards = tuple(map(load_calibrated, names or shipped_calibrated()))
    tasks = (delayed(tried)(kind, FIRST_SEED + s, sizes, cards) for s in range(seeds) for kind in KINDS)
    rows = [row for part in Parallel(n_jobs=jobs)(tasks) for row in part]
    click.echo("| card | fault | n | pairs | bias | RMSE | in 90 % interval | warned |\n| --- |" + " ---: |" * 7)
    for card in cards:
        for fault in FAULTS:
            for n in sizes:
                some = [r for r in rows if (r["card"], r["fault"], r["n"]) == (card.name, fault, n)]
                error = np.array([r["error"] for r in some])
                inside, warned = (np.mean([r[key] for r in some]) for key in ("inside", "warned"))
                click.echo(
                    f"| {card.name} | {fault} | {n} | {len(some)} | {error.mean():+.3f} | "
                    f"{np.sqrt(np.square(error).mean()):.3f} | {inside:.2f} | {warned:.2f} |"
                )


if __name__ == "__main__":
    main()
