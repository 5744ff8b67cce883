"""Simulated calibration sets: evidence of every pair beside its true EER, one file a population, resumed."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import MODALITIES, Modality
from encsel.errors import UsageError
from encsel.matching.crossval import MEASURED
from encsel.prediction.evidence import FEATURES, Evidence, encoder_evidence, folds_for, pair_evidence
from encsel.progress import Progress
from encsel.simulation.populations import KINDS, TRUE_DRAWS, TRUE_SPLITS, Centroids, Population, truth, unit_mean

VERSION = 1
"""Of what is simulated and measured; files of another version are not taken up again."""
YARDSTICK = "yardstick"
YARDSTICK_SEEDS = tuple(range(100, 108))
TESTED = (30, 50, 70, 100, 200)
"""People at which the recipe is tested."""
TESTED_SAMPLES = (4, 8, 20)
OTHER_PEOPLE = (30, 35, 40, 45, 50, 60, 70, 85, 100, 120, 140, 170, 200, 280, 350)
MANY_PEOPLE = (500, 700, 1000, 1400, 2000)
OTHER_SAMPLES = (2, 3, 4, 4, 6, 8, 8, 12, 20, 20, 35, 50)
PAIRS_OF_ENCODERS = 3
"""Encoders of each modality in a training population."""

Size = tuple[int, int]
"""People and samples of each."""


@dataclass(frozen=True)
class Trials:
    """All simulated sets of one population. T sets, F faces, V voices, K features, S = MEASURED scorers.

    Attributes:
        sizes: (T, 2) people and samples a person.
        values: (T, F, V, K) in the order of FEATURES.
        errors: (T, S, F, V) standard error of the cross-validated d'.
        eers: (T, S, F, V) cross-validated EER.
        correlations: (T, F, V, 12) of held-out canonical variates.
        truth: (S, F, V) EER at the reference size.
    """

    kind: str
    seed: int
    sizes: NDArray[np.int64]
    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    eers: NDArray[np.float64]
    correlations: NDArray[np.float64]
    truth: NDArray[np.float64]


def evidence_of(
    centroids: Mapping[Modality, tuple[NDArray[np.float64], ...]], *, seed: int = 0
) -> list[list[Evidence]]:
    """Evidence of every pair (faces, voices) from unit centroids of the same people."""
    folds = folds_for(len(centroids["face"][0]), seed=seed)
    faces, voices = ([encoder_evidence(x, folds) for x in centroids[m]] for m in MODALITIES)
    return [[pair_evidence(f, v, folds) for v in voices] for f in faces]


def training_sizes(kind: str, seed: int) -> list[Size]:
    """Sets drawn from one training population: the tested sizes, small ones twice, others, now and then a large one."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind), 2])
    sizes = []
    for n in TESTED:
        m = int(rng.choice(TESTED_SAMPLES))
        sizes += [(n, m)] * (2 if n <= 70 else 1)
    sizes += [(int(n), int(rng.choice(OTHER_SAMPLES))) for n in rng.choice(OTHER_PEOPLE, 4, replace=False)]
    if seed % 2 == 0:
        sizes.append((int(rng.choice(MANY_PEOPLE)), int(rng.choice(TESTED_SAMPLES))))
    return sizes


def yardstick_sizes(n_sets: int) -> list[Size]:
    return [(n, TESTED_SAMPLES[i % len(TESTED_SAMPLES)]) for n in TESTED for i in range(n_sets)]


def run_trials(
    kind: str, seed: int, centroids: Centroids, sizes: Sequence[Size], *, n_draws: int, n_splits: int
) -> Trials:
    """Truth of a population, then evidence on sets of these sizes."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        true = truth(centroids, np.random.default_rng([seed, 1]), n_draws=n_draws, n_splits=n_splits)
        rng = np.random.default_rng([seed, 2])
        sets = [evidence_of(centroids(n, m, rng)) for n, m in sizes]

    def stacked(take: Any) -> NDArray[np.float64]:
        return np.array([[[take(pair) for pair in row] for row in one] for one in sets])

    return Trials(
        kind,
        seed,
        np.array(sizes),
        stacked(lambda e: [e.values[name] for name in FEATURES]),
        np.moveaxis(stacked(lambda e: [e.standard_error[s] for s in MEASURED]), 3, 1),
        np.moveaxis(stacked(lambda e: [e.cross_validated.scored[s].eer for s in MEASURED]), 3, 1),
        stacked(lambda e: e.cross_validated.correlations),
        np.array([true.eer[s] for s in MEASURED]),
    )


def train(kind: str, seed: int, *, n_draws: int = TRUE_DRAWS, n_splits: int = TRUE_SPLITS) -> Trials:
    """Trials of one of the KINDS."""
    population = Population(kind, seed, n_faces=PAIRS_OF_ENCODERS, n_voices=PAIRS_OF_ENCODERS)
    sizes = training_sizes(kind, seed)
    return run_trials(kind, seed, population.centroids, sizes, n_draws=n_draws, n_splits=n_splits)


def measure_yardstick(
    script: str, seed: int, n_sets: int, *, n_draws: int = TRUE_DRAWS, n_splits: int = TRUE_SPLITS
) -> Trials:
    """Trials of a frozen population: `World(seed)` of a Python file, which is run."""
    world = load_world(Path(script))(seed)
    counts = {"face": (0, world.nf), "voice": (world.nf, world.nf + world.nv)}

    def centroids(n: int, m: int, rng: np.random.Generator) -> dict[Modality, tuple[NDArray[np.float64], ...]]:
        latents = world.latents(n, rng)
        return {
            modality: tuple(unit_mean(world.emb(k, latents, m, rng)) for k in range(*counts[modality]))
            for modality in MODALITIES
        }

    return run_trials(YARDSTICK, seed, centroids, yardstick_sizes(n_sets), n_draws=n_draws, n_splits=n_splits)


def trials(
    jobs: Sequence[tuple[str, int]],
    *,
    work: Path,
    yardstick: Path | None = None,
    n_sets: int = 9,
    n_draws: int = TRUE_DRAWS,
    n_splits: int = TRUE_SPLITS,
    n_jobs: int = -1,
    progress: Progress,
) -> Iterator[Trials]:
    """Trials of every (kind, seed), from their files in `work` where they are there, else simulated and written there.

    Args:
        work: folder, made when missing.
        yardstick: Python file with the frozen World, for jobs of kind YARDSTICK.
        n_jobs: processes, as joblib counts them.
    """
    from joblib import Parallel, delayed

    work.mkdir(parents=True, exist_ok=True)
    options = {"n_draws": n_draws, "n_splits": n_splits}

    script = "" if yardstick is None else _script_hash(yardstick)

    def path_of(job: tuple[str, int]) -> Path:
        sets = f"-{script}-{n_sets}" if job[0] == YARDSTICK else ""
        return work / f"{job[0]}-{job[1]}{sets}-{n_draws}x{n_splits}-v{VERSION}.npz"

    missing = [job for job in jobs if not _is_whole(path_of(job))]
    tasks = [
        delayed(_simulate)(path_of((kind, seed)), measure_yardstick, str(yardstick), seed, n_sets, **options)
        if kind == YARDSTICK
        else delayed(_simulate)(path_of((kind, seed)), train, kind, seed, **options)
        for kind, seed in missing
    ]
    with progress.task("populations", len(jobs)) as task:
        task.advance(len(jobs) - len(missing))
        for _ in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(tasks):
            task.advance()
    for job in jobs:
        yield _read(path_of(job))


def _simulate(path: Path, make: Any, *args: Any, **options: Any) -> None:
    """Make trials and leave them in their file, whole or not at all."""
    result: Trials = make(*args, **options)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        arrays: dict[str, Any] = {f.name: np.asarray(getattr(result, f.name)) for f in fields(Trials)}
        np.savez(file, **arrays)
    part.replace(path)


def _read(path: Path) -> Trials:
    with np.load(path, allow_pickle=False) as archive:
        found = {f.name: archive[f.name] for f in fields(Trials)}
    return Trials(**{**found, "kind": str(found["kind"]), "seed": int(found["seed"])})


def _is_whole(path: Path) -> bool:
    """The file is there and can be read; one that cannot is made again."""
    try:
        _read(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False
    return True


def _script_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. The Python file with World is needed.") from error


def load_world(path: Path) -> Any:
    """`World` of a Python file, which is run.

    Raises:
        UsageError: the file cannot be read or run, or has no World.
    """
    _script_hash(path)
    loader = importlib.machinery.SourceFileLoader("encsel_yardstick", str(path))
    spec = importlib.util.spec_from_loader("encsel_yardstick", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"{path} does not run: {error}. The Python file with the frozen World is needed.") from error
    if not hasattr(module, "World"):
        raise UsageError(f"{path} has no World; the Python file with the frozen World is needed.")
    return module.World
