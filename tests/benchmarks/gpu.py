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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from encsel.core import SAMPLING_RATE, Encoder, Modality, Runtime, Spec, Vectors
from encsel.data.calibration_set import CalibrationSet
from encsel.data.media import decode
from encsel.embedding import model_run
from encsel.embedding.embed import embed
from encsel.loading.registry import open_encoders
from encsel.metrics.curvature import curvature
from encsel.metrics.linear_cka import cka_of_grams, gram, null_of_matched
from encsel.metrics.neighbours import nearest_neighbours

PACKAGES = {
    "torch": "torch", "transformers": "transformers", "sklearn": "scikit-learn", "PIL": "Pillow",
    "soundfile": "soundfile", "soxr": "soxr",
}  # fmt: skip
"""Module to import: name of the package that provides it."""
N_THREADS = 8

BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_B16 = {**BASE, "image_size": 224, "patch_size": 16, "projection_dim": 512}
HUBERT_BASE = {**BASE, "conv_dim": (512,) * 7}
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL_CLIP = {**SMALL, "image_size": 64, "patch_size": 16, "projection_dim": 32}
SMALL_HUBERT = {
    **SMALL, "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        shapes: configuration of the model of each modality.
        n_samples: files per identity of each modality.
        n_compared: samples of each modality that the CPU embeds as well.
        n_rows, dim: cloud whose neighbours are searched.
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
    n_checked: int
    n_people: int
    n_permutations: int
    k: int = 50


FULL = Sizes(
    {"face": CLIP_B16, "voice": HUBERT_BASE}, 64, {"face": 32, "voice": 16}, seconds=5.0, batch_size=64, n_rounds=5,
    n_compared=64, n_rows=100_000, dim=1024, n_checked=2000, n_people=2000, n_permutations=100,
)  # fmt: skip
QUICK = Sizes(
    {"face": SMALL_CLIP, "voice": SMALL_HUBERT}, 2, {"face": 4, "voice": 4}, seconds=0.3, batch_size=4, n_rounds=1,
    n_compared=4, n_rows=1000, dim=32, n_checked=50, n_people=50, n_permutations=5,
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


def write_model(folder: Path, modality: Modality, shape: Mapping[str, Any]) -> Spec:
    """Write a CLIP image model or a HuBERT model with random weights and return its spec."""
    import torch
    import transformers

    torch.manual_seed(0)
    model: Any
    processor: Any
    if modality == "face":
        side = shape["image_size"]
        model = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**shape))
        processor = transformers.CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
    else:
        model = transformers.HubertModel(transformers.HubertConfig(**shape))
        processor = transformers.Wav2Vec2FeatureExtractor()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Spec("clip" if modality == "face" else "hubert", str(folder))


def write_set(
    root: Path, modality: Modality, n_identities: int, n_samples: int, *, seconds: float = 5.0
) -> CalibrationSet:
    """Write a calibration set and open its samples of one modality: 256-pixel images or clips, no two alike."""
    import PIL.Image
    import soundfile

    def write_face(path: Path, rng: np.random.Generator) -> None:
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((256, 256), PIL.Image.Resampling.BICUBIC))
        noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255)
        PIL.Image.fromarray(noisy.astype(np.uint8)).save(path, quality=90)

    def write_voice(path: Path, rng: np.random.Generator) -> None:
        t = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
        pitch, weights = rng.uniform(90, 250), rng.uniform(0.2, 1.0, 8)
        tones = sum(w * np.sin(2 * np.pi * pitch * k * t) for k, w in enumerate(weights, start=1))
        soundfile.write(path, 0.05 * tones + rng.normal(0, rng.uniform(0.01, 0.1), len(t)), SAMPLING_RATE)

    def write_identity(i: int) -> None:
        for kind, suffix, write in (("face", "jpg", write_face), ("voice", "wav", write_voice)):
            folder = root / f"{kind}s" / f"p{i:03d}"
            folder.mkdir(parents=True)
            for k in range(n_samples if kind == modality else 1):  # a set needs both modalities
                write(folder / f"{k:02d}.{suffix}", np.random.default_rng([i, k]))

    with ThreadPoolExecutor(N_THREADS) as pool:
        list(pool.map(write_identity, range(n_identities)))
    calibration = CalibrationSet.from_path(root)
    return replace(calibration, samples=tuple(s for s in calibration.samples if s.modality == modality))


def load_encoder(spec: Spec, *, device: str, dtype: str = "float32") -> Encoder:
    """The encoder of a spec, its model loaded once for all runs, which are in this process as that of the bare loop."""
    (encoder,) = open_encoders(spec, Runtime(device=device, dtype=dtype, offline=True))
    model = encoder.load()
    return replace(encoder, load=lambda: model, runtime=None)


def embed_all(calibration: CalibrationSet, encoder: Encoder, **options: Any) -> Vectors:
    """The embedding of every sample, by encsel."""
    outcome = embed(calibration, [encoder], **options)
    if outcome.failures:
        raise RuntimeError(outcome.failures[0].reason)
    vectors = outcome.embeddings[0].vectors
    if len(vectors) != len(calibration.samples):
        raise RuntimeError(f"{len(vectors)} of {len(calibration.samples)} samples embedded: {outcome.skipped[0]}")
    return vectors


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
    """Time the bare loop and encsel in turns, after a round that warms up, without the check of five samples."""
    model, n = encoder.load(), len(calibration.samples)

    def prepare(path: Path) -> Vectors:
        return model.prepare(decode(path.read_bytes(), encoder.modality, path.suffix))

    with ThreadPoolExecutor(N_THREADS) as pool:
        prepared = list(pool.map(prepare, (s.path for s in calibration.samples)))
    batches = [prepared[i : i + batch_size] for i in range(0, n, batch_size)]

    def run_bare() -> None:
        for batch in batches:
            model.embed(batch)

    def run_encsel() -> None:
        with tempfile.TemporaryDirectory() as cache, patch.object(model_run, "N_CHECKED", 0):
            embed_all(calibration, encoder, cache=Path(cache), batch_size=batch_size)

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

    neighbours = search()
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
