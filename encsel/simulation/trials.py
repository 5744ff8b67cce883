"""Simulated calibration sets: evidence of every pair beside its true EER, one file per population, resumable."""

import contextlib
import functools
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encsel.core import MODALITIES
from encsel.matching.crossval import MEASURED
from encsel.prediction.evidence import FEATURES, Evidence, encoder_evidence, evidence_folds, pair_evidence
from encsel.progress import Progress
from encsel.simulation.populations import KINDS, Draw, Population, TruthSizes, Values, truth
from encsel.threads import one_thread

TRIALS_VERSION = 6  # version of what is simulated and measured; files of other versions are ignored
TESTED_PEOPLE = (30, 50, 70, 100, 200)  # numbers of people for which errors are reported by kind
TESTED_SAMPLES = (4, 8, 20)
OTHER_PEOPLE = (30, 35, 40, 45, 50, 60, 70, 85, 100, 120, 140, 170, 200, 280, 350)
LARGE_PEOPLE = (500, 700, 1000, 1400, 2000)
OTHER_SAMPLES = (2, 3, 4, 4, 6, 8, 8, 12, 20, 20, 35, 50)
ENCODERS_PER_MODALITY = 3

Size = tuple[int, int]  # people, and samples of each
Job = tuple[str, Callable[[], "Trials"]]  # name of a file without suffix, and what simulates its content


@dataclass(frozen=True)
class Trials:
    """All simulated sets of one population: T sets, F faces, V voices, K features, S scorers (MEASURED)."""

    kind: str
    seed: int
    sizes: NDArray[np.int64]  # (T, 2) people, and samples per person
    values: Values  # (T, F, V, K) in the order of FEATURES
    errors: Values  # (T, S, F, V) standard error of the cross-validated d'
    eers: Values  # (T, S, F, V) cross-validated EER
    truth: Values  # (S, P, N, F, V) true EER with `probes` P samples a person after training on `n_train` N people
    probes: NDArray[np.int64]  # (P,)
    n_train: NDArray[np.int64]  # (N,)


def training_sizes(kind: str, seed: int) -> list[Size]:
    """Sets of a training population: tested sizes twice; 3 others; a large one for every fourth seed."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind), 2])
    sizes = [size for n in TESTED_PEOPLE for size in [(n, int(rng.choice(TESTED_SAMPLES)))] * (2 if n <= 70 else 1)]
    sizes += [(int(n), int(rng.choice(OTHER_SAMPLES))) for n in rng.choice(OTHER_PEOPLE, 3, replace=False)]
    if seed % 4 == 0:
        sizes.append((int(rng.choice(LARGE_PEOPLE)), int(rng.choice(TESTED_SAMPLES))))
    return sizes + [(n, int(rng.choice(TESTED_SAMPLES))) for n in TESTED_PEOPLE if n > 70]


def simulate(kind: str, seed: int, draw: Draw, sizes: Sequence[Size], truth_sizes: TruthSizes) -> Trials:
    """True EERs of a population, and evidence from sets of the given sizes."""

    with one_thread():
        true_eer = truth(draw, np.random.default_rng([seed, 1]), truth_sizes)
        rng = np.random.default_rng([seed, 2])
        sets = []
        for n, m in sizes:
            people, folds = draw(n, m, rng), evidence_folds(n, seed=0)
            faces, voices = ([encoder_evidence(x.centroids, folds) for x in people[mod]] for mod in MODALITIES)
            sets.append([[pair_evidence(f, v, folds) for v in voices] for f in faces])

    def stacked(value: Callable[[Evidence, str], float], names: Sequence[str]) -> Values:
        return np.array([[[[value(e, name) for name in names] for e in row] for row in pairs] for pairs in sets])

    return Trials(
        kind, seed, np.array(sizes),
        stacked(lambda e, name: e.values[name], tuple(FEATURES)),
        np.moveaxis(stacked(lambda e, scorer: e.standard_error[scorer], MEASURED), 3, 1),
        np.moveaxis(stacked(lambda e, scorer: e.cross_validated.scored[scorer].eer, MEASURED), 3, 1),
        true_eer, np.array(truth_sizes.probes), np.array(truth_sizes.n_train),
    )  # fmt: skip


def training_trials(kind: str, seed: int, truth_sizes: TruthSizes) -> Trials:
    population = Population(kind, seed, n_faces=ENCODERS_PER_MODALITY, n_voices=ENCODERS_PER_MODALITY)
    return simulate(kind, seed, population.draw, training_sizes(kind, seed), truth_sizes)


def training_job(kind: str, seed: int, truth_sizes: TruthSizes) -> Job:
    name = f"{kind}-{seed}-{truth_sizes.n_draws}x{truth_sizes.n_splits}"
    return name, functools.partial(training_trials, kind, seed, truth_sizes)


def resumed(jobs: Sequence[Job], work: Path, *, n_jobs: int = -1, progress: Progress) -> Iterator[Trials]:
    """Trials of every job, read from its file in `work` where a complete one exists, else simulated and written."""
    from joblib import Parallel, delayed

    work.mkdir(parents=True, exist_ok=True)
    paths = [work / f"{name}-v{TRIALS_VERSION}.npz" for name, _ in jobs]
    missing = [(path, make) for path, (_, make) in zip(paths, jobs, strict=True) if not _is_complete(path)]
    with progress.task("populations", len(jobs)) as task:
        task.advance(len(jobs) - len(missing))
        tasks = (delayed(_write)(path, make) for path, make in missing)
        for _ in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(tasks):
            task.advance()
    yield from map(_read, paths)


def end_processes() -> None:
    """End the processes that simulated or fitted: Python would wait for them, five idle minutes."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(kill_workers=True)


def _write(path: Path, make: Callable[[], Trials]) -> None:
    part = path.with_suffix(f".{os.getpid()}.part.npz")
    np.savez(part, **vars(make()))
    part.replace(path)


def _read(path: Path) -> Trials:
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    return Trials(str(arrays.pop("kind")), int(arrays.pop("seed")), **arrays)


def _is_complete(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return bool(_read(path))
    return False
