"""GPU benchmark: speed, peak memory and agreement with the CPU. Run it by hand from the root of a checkout.

    PYTHONPATH=. python tests/benchmarks/gpu.py --json gpu.json
    PYTHONPATH=. python tests/benchmarks/gpu.py --quick    # small sizes, on the CPU if there is no GPU

Needs torch, transformers, scikit-learn, Pillow, soundfile (with cffi and pycparser) and soxr. Needs no network, no
pretrained weights, no pytest and no installed encsel.

Models have real architectures and random weights; images and clips are generated. The bare model loop and encsel run
the same loaded weights on the same samples, in turns. The loop has its batches ready in memory; encsel reads, decodes,
prepares, batches and caches.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from encsel.core import Encoder, Modality, Vectors
from encsel.data.calibration_set import CalibrationSet
from encsel.metrics.curvature import curvature
from encsel.metrics.linear_cka import cka_of_grams, gram, null_of_matched
from encsel.metrics.neighbours import nearest_neighbours
from tests.benchmarks.models import (
    CLIP_B16,
    HUBERT_BASE,
    SMALL_CLIP,
    SMALL_HUBERT,
    bare_and_encsel,
    embed_all,
    load_encoder,
    write_model,
    write_set,
)

PACKAGES = {
    "torch": "torch", "transformers": "transformers", "sklearn": "scikit-learn", "PIL": "Pillow",
    "soundfile": "soundfile", "soxr": "soxr",
}  # fmt: skip
"""Module to import: name of the package that provides it."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        shapes: configuration of the model of each modality.
        n_samples: files per identity of each modality.
        n_compared: samples of each modality that the CPU embeds as well.
        n_rows, dim: cloud whose neighbours are searched: those of all rows, and those of `n_sampled`.
        n_checked: rows of it whose neighbours the CPU searches as well.
        n_people: rows of the Gram matrices.
    """

    shapes: Mapping[Modality, dict[str, Any]]
    n_identities: int
    n_samples: Mapping[Modality, int]
    seconds: float
    batch_size: int
    n_rounds: int
    n_compared: int
    n_rows: int
    dim: int
    n_sampled: int
    n_checked: int
    n_people: int
    n_permutations: int
    k: int = 50


FULL = Sizes(
    {"face": CLIP_B16, "voice": HUBERT_BASE}, 64, {"face": 32, "voice": 16}, seconds=5.0, batch_size=64, n_rounds=5,
    n_compared=64, n_rows=100_000, dim=1024, n_sampled=5000, n_checked=2000, n_people=2000, n_permutations=100,
)  # fmt: skip
QUICK = Sizes(
    {"face": SMALL_CLIP, "voice": SMALL_HUBERT}, 2, {"face": 4, "voice": 4}, seconds=0.3, batch_size=4, n_rounds=1,
    n_compared=4, n_rows=1000, dim=32, n_sampled=100, n_checked=50, n_people=50, n_permutations=5,
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    part: str
    measure: str
    value: float
    unit: str = ""


@dataclass(frozen=True)
class Speed:
    """Samples per second of the bare loop and of encsel, medians over rounds.

    Attributes:
        ratios: throughput of encsel over that of the bare loop, in each round, ascending.
    """

    bare: float
    encsel: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median over rounds: the load of the machine differs more between rounds than within one."""
        return statistics.median(self.ratios)


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time of one call, until the device is idle."""
    torch = sys.modules.get("torch")
    synchronize = torch.cuda.synchronize if torch is not None and torch.cuda.is_available() else lambda: None
    gc.collect()
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def median_seconds(work: Callable[[], object], n_rounds: int) -> float:
    """Median wall time of `n_rounds` calls, after one that warms up."""
    work()
    return statistics.median(seconds_of(work) for _ in range(n_rounds))


def measure_speed(encoder: Encoder, calibration: CalibrationSet, *, batch_size: int, n_rounds: int) -> Speed:
    """Time the bare loop and encsel in turns, after a round that warms up."""
    run_bare, run_encsel = bare_and_encsel(encoder, calibration, batch_size=batch_size)
    n = len(calibration.samples)
    bare: list[float] = []
    encsel: list[float] = []
    for k in range(n_rounds + 1):
        sides = [(bare, run_bare), (encsel, run_encsel)]
        for times, run in sides if k % 2 else sides[::-1]:
            times.append(seconds_of(run))
    del bare[0], encsel[0]
    ratios = sorted(b / e for b, e in zip(bare, encsel, strict=True))
    return Speed(n / statistics.median(bare), n / statistics.median(encsel), tuple(ratios))


class _Instant:
    """A model that prepares samples like another and embeds them in no time."""

    def __init__(self, encoder: Encoder) -> None:
        self.prepare = encoder.load().prepare
        self._dim = encoder.dim
        self._rng = np.random.default_rng(0)

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        return self._rng.standard_normal((len(batch), 1, self._dim), np.float32)


def reset_peak() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory(part: str) -> Iterator[Result]:
    """Peak of the GPU memory allocated since `reset_peak`; no result without a GPU."""
    import torch

    if torch.cuda.is_available():
        yield Result(part, "peak GPU memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")


def measure_embedding(modality: Modality, sizes: Sizes, device: str, folder: Path) -> Iterator[Result]:
    """Speed, memory and agreement with the CPU of one model in float32 and bfloat16."""
    spec = write_model(folder / "model", modality, sizes.shapes[modality])
    calibration = write_set(
        folder / "set", modality, sizes.n_identities, sizes.n_samples[modality], seconds=sizes.seconds
    )
    n = len(calibration.samples)
    compared = replace(calibration, samples=calibration.samples[:: n // sizes.n_compared])
    on_cpu = load_encoder(spec, device="cpu")
    reference = embed_all(compared, on_cpu)
    instant = _Instant(on_cpu)
    without_model = partial(embed_all, calibration, replace(on_cpu, load=lambda: instant), batch_size=sizes.batch_size)
    yield Result(f"{spec.family} files", "encsel without the model", n / median_seconds(without_model, 2), "samples/s")
    for dtype in ("float32", "bfloat16"):
        part = f"{spec.family} {dtype}"
        reset_peak()
        encoder = load_encoder(spec, device=device, dtype=dtype)
        speed = measure_speed(encoder, calibration, batch_size=sizes.batch_size, n_rounds=sizes.n_rounds)
        yield Result(part, "bare model loop", speed.bare, "samples/s")
        yield Result(part, "encsel", speed.encsel, "samples/s")
        yield Result(part, "encsel / bare, median of rounds", speed.ratio)
        yield Result(part, "encsel / bare, lowest round", speed.ratios[0])
        yield from peak_memory(part)
        vectors = embed_all(compared, encoder)
        del encoder
        yield Result(part, "max |difference| from CPU float32", float(np.abs(vectors - reference).max()))
        yield Result(part, "max |value| on the CPU", float(np.abs(reference).max()))
        yield Result(part, "lowest cosine with CPU float32", lowest_cosine(vectors, reference))
        # Random weights give all samples much the same embedding: the mean hides what tells them apart.
        mean = reference.mean(axis=0)
        yield Result(part, "lowest cosine, mean removed", lowest_cosine(vectors - mean, reference - mean))


def lowest_cosine(a: Vectors, b: Vectors) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(((a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


def measure_neighbours(sizes: Sizes, device: str) -> Iterator[Result]:
    """Nearest neighbours and curvature of a curved cloud, and agreement with scikit-learn on some of its rows."""
    from sklearn.neighbors import NearestNeighbors

    n, dim, k = sizes.n_rows, sizes.dim, sizes.k
    rng = np.random.default_rng(0)
    surface = np.sin(rng.standard_normal((n, 8), np.float32) @ rng.standard_normal((8, dim), np.float32) / 2)
    x = surface + 0.05 * rng.standard_normal((n, dim), np.float32)
    part = f"{n:,} x {dim}"
    reset_peak()
    search = partial(nearest_neighbours, x, k, device=device)
    yield Result(part, f"{k} nearest neighbours", median_seconds(search, 3), "s")
    yield from peak_memory(part)

    some = np.sort(rng.choice(n, sizes.n_sampled, replace=False))
    search_some = partial(nearest_neighbours, x, k, of=some, device=device)
    reset_peak()
    yield Result(part, f"the same of a sample of {len(some):,} rows", median_seconds(search_some, 3), "s")
    yield from peak_memory(f"{part}, sample")

    neighbours = search()
    off = np.abs(search_some().distances - neighbours.distances[some]).max()
    yield Result(part, "max |difference| of sampled distances", float(off))
    rows = rng.choice(n, sizes.n_checked, replace=False)
    centred = x - x.mean(axis=0, dtype=np.float64)
    brute = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(centred)
    start = time.perf_counter()
    distances, index = brute.kneighbors(centred[rows])
    yield Result(part, f"the same for {len(rows):,} rows on the CPU", time.perf_counter() - start, "s")
    assert (index[:, 0] == rows).all(), "every row is its own nearest"
    distances, index = distances[:, 1:], index[:, 1:]
    difference = np.abs(neighbours.distances[rows] - distances).max()
    yield Result(part, "max |difference| of distances", float(difference))
    yield Result(part, "median distance", float(np.median(distances)))
    yield Result(part, "fraction of equal neighbours", float((neighbours.index[rows] == index).mean()))

    points = rows[:1000]
    start = time.perf_counter()
    bend = curvature(x, points, neighbours.index[points]).mean_absolute_median
    yield Result(part, f"curvature at {len(points):,} points (CPU only)", time.perf_counter() - start, "s")
    reference = curvature(x, points, index[: len(points)]).mean_absolute_median
    yield Result(part, "median |mean curvature|", reference)
    yield Result(part, "|difference| of curvature", abs(bend - reference))


def measure_cka(sizes: Sizes, device: str) -> Iterator[Result]:
    """The permutation null of CKA on the CPU and on the device."""
    rng = np.random.default_rng(1)
    n, dim = sizes.n_people, sizes.dim
    latent = rng.standard_normal((n, 16))
    x, y = (latent @ rng.standard_normal((16, dim)) + 3 * rng.standard_normal((n, dim)) for _ in range(2))
    permutations = np.stack([rng.permutation(n) for _ in range(sizes.n_permutations)])
    part = f"CKA of {n:,} people"
    reset_peak()
    k, q, nulls = gram(x), gram(y), []
    for where, name in (("cpu", "CPU"), (device, "device")):
        null = partial(null_of_matched, [k], [q], permutations=permutations, device=where)
        yield Result(part, f"{len(permutations)} permutations, {name}", median_seconds(null, 1), "s")
        nulls.append(null())
    yield from peak_memory(part)
    yield Result(part, "debiased CKA", cka_of_grams(k, q).debiased)
    yield Result(part, "max |difference| of permuted CKA", float(np.abs(nulls[0] - nulls[1]).max()))


def table(results: Sequence[Result]) -> str:
    rows = [("part", "measure", "value", "unit"), *((r.part, r.measure, f"{r.value:.5g}", r.unit) for r in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        f"{part:<{widths[0]}}  {measure:<{widths[1]}}  {value:>{widths[2]}}  {unit}".rstrip()
        for part, measure, value, unit in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, on the CPU if there is no GPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON, anew after every part")
    options = parser.parse_args()
    missing = [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        sys.exit(f"Missing packages: {', '.join(missing)}. Install them, or carry their wheels.")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers

    has_cuda = torch.cuda.is_available()
    if not has_cuda and not options.quick:
        sys.exit("No CUDA device. Run this on a machine with a GPU, or pass --quick to try the script on the CPU.")
    # "cpu:0" takes torch's path through the geometry; "cpu" would compare the CPU with itself.
    device, name = ("cuda", torch.cuda.get_device_name()) if has_cuda else ("cpu:0", "CPU")
    sizes = QUICK if options.quick else FULL
    transformers.utils.logging.disable_progress_bar()
    for lazy in ("CLIPVisionModelWithProjection", "HubertModel"):
        getattr(transformers, lazy)
    # Each run of encsel ends with a full collection, which takes as long as a short round with all these modules in it.
    gc.collect()
    gc.freeze()
    results: list[Result] = []
    failures: dict[str, str] = {}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        parts = {
            "neighbours": partial(measure_neighbours, sizes, device),
            "cka": partial(measure_cka, sizes, device),
            "face": partial(measure_embedding, "face", sizes, device, Path(folder, "face")),
            "voice": partial(measure_embedding, "voice", sizes, device, Path(folder, "voice")),
        }
        for part, measure in parts.items():
            print(f"{time.perf_counter() - start:6.1f} s  {part}", file=sys.stderr, flush=True)
            try:
                for result in measure():
                    results.append(result)
            except Exception as error:  # GPU time is scarce: the other parts still run
                failures[part] = f"{type(error).__name__}: {error}"
            document = {
                "device": name, "torch": torch.__version__, "cuda": torch.version.cuda, "quick": options.quick,
                "seconds": time.perf_counter() - start, "sizes": asdict(sizes),
                "results": [asdict(r) for r in results], "failures": failures,
            }  # fmt: skip
            if options.json is not None:
                options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{name}, torch {torch.__version__}, {time.perf_counter() - start:.0f} s\n\n{table(results)}")
    for part, reason in failures.items():
        print(f"{part} failed: {reason}", file=sys.stderr)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
