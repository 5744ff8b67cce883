"""What encsel adds to the time of a bare model: files read, decoded, prepared, batched and cached beside it.

    pytest -m slow tests/benchmarks -s
    pytest -m gpu tests/benchmarks -s

Both sides run the same loaded weights on the same samples in one process, in turns; medians are compared.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile

from encsel.core import SAMPLING_RATE, Encoder, Modality, Model, Runtime
from encsel.data.calibration_set import Calibration, open_calibration
from encsel.data.media import decode
from encsel.embedding.embed import BATCH_ON_CPU, BATCH_ON_GPU, embed
from encsel.loading.registry import checked_spec, open_encoders
from encsel.loading.speech import write_tiny_model as write_speech_model
from encsel.loading.vision import write_tiny_model as write_vision_model

MOST_COST_ON_CPU = 1.15
LEAST_THROUGHPUT = 0.85
N_ROUNDS = 5
CLIP_B16 = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 16, "projection_dim": 512,
}  # fmt: skip
WAVLM_LARGE = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    "conv_dim": (512,) * 7, "num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16,
    "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": False,
    # What the library would take by itself, in place of the small model's.
    "initializer_range": 0.02, "return_attention_mask": True,
}  # fmt: skip


def write_clip(folder: Path, **shape: int) -> str:
    from transformers import CLIPVisionConfig

    config = CLIPVisionConfig(**shape)
    settings = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
    write_vision_model(folder, "CLIPVisionModelWithProjection", config, "CLIPImageProcessorPil", settings)
    return f"clip:{folder}"


def write_wavlm(folder: Path) -> str:
    write_speech_model(folder, "WavLMModel", **WAVLM_LARGE)
    return f"wavlm:{folder}"


def write_set(root: Path, modality: Modality, n_people: int, n_samples: int, side: int = 224) -> Calibration:
    """People with pictures of `side` pixels or clips of 5 s; of the other modality as little as a layout needs."""
    rng = np.random.default_rng(0)
    for i in range(n_people):
        for side_of, count in (("face", n_samples), ("voice", n_samples)):
            folder = root / f"{side_of}s" / f"p{i:03d}"
            folder.mkdir(parents=True)
            for k in range(count if side_of == modality else 1):
                if side_of == "face":
                    coarse = PIL.Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
                    coarse.resize((side, side), PIL.Image.Resampling.BICUBIC).save(folder / f"{k:02d}.png")
                else:
                    clip = 0.1 * rng.standard_normal(5 * SAMPLING_RATE if modality == "voice" else 2000)
                    soundfile.write(folder / f"{k:02d}.wav", clip, SAMPLING_RATE)
    return open_calibration(root)


def opened(spec: str, modality: Modality, **runtime: Any) -> Encoder:
    (encoder,) = open_encoders(checked_spec(spec, modality), Runtime(offline=True, **runtime))
    return encoder


def ready_batches(model: Model, calibration: Calibration, modality: Modality, size: int) -> list[list[Any]]:
    paths = [s.path for s in calibration.samples if s.modality == modality]
    prepared = [model.prepare(decode(path.read_bytes(), modality, path.suffix)) for path in paths]
    return [prepared[i : i + size] for i in range(0, len(prepared), size)]


def seconds_of(work: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Measured:
    """Median seconds of both sides over the same samples, and the median of their ratios."""

    def __init__(self, encoder: Encoder, calibration: Calibration, size: int, n_rounds: int, cache: Path) -> None:
        model = encoder.load()
        batches = ready_batches(model, calibration, encoder.modality, size)
        self.n = sum(map(len, batches))
        for batch in (batches[0], batches[-1]):  # allocations and choices of kernels, once for each shape
            model.embed(batch)
        loaded = replace(encoder, load=lambda: model)
        bare, whole = [], []
        for k in range(n_rounds):

            def run_bare() -> None:
                for batch in batches:
                    model.embed(batch)

            def run_whole(k: int = k) -> None:
                found = embed(calibration, [loaded], cache=cache / str(k), batch_size=size)
                assert [len(e.vectors) for e in found.embeddings] == [self.n]

            sides = [(bare, run_bare), (whole, run_whole)]
            for times, run in sides if k % 2 else sides[::-1]:
                times.append(seconds_of(run))
        self.seconds = {"bare": statistics.median(bare), "encsel": statistics.median(whole)}
        # Within a round: what else the machine does changes from one to the next.
        self.rounds = sorted(w / b for w, b in zip(whole, bare, strict=True))
        self.ratio = statistics.median(self.rounds)

    def line(self, what: str) -> str:
        sides = ", ".join(f"{name} {t:.2f} s ({self.n / t:.1f}/s)" for name, t in self.seconds.items())
        rounds = " ".join(f"{ratio:.3f}" for ratio in self.rounds)
        return f"\n{what}, {self.n} samples: {sides}; time ratio {self.ratio:.3f} (rounds: {rounds})"


@pytest.mark.slow
def test_embedding_on_the_cpu_costs_little_more_than_the_bare_model(tmp_path):
    spec = write_clip(
        tmp_path / "model", hidden_size=384, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=6,
        image_size=224, patch_size=16, projection_dim=256,
    )  # fmt: skip
    calibration = write_set(tmp_path / "set", "face", n_people=30, n_samples=8, side=128)
    measured = Measured(opened(spec, "face", device="cpu"), calibration, BATCH_ON_CPU, N_ROUNDS, tmp_path / "cache")
    print(measured.line("CLIP of 6 layers, CPU, float32"))
    assert measured.ratio <= MOST_COST_ON_CPU


SHAPES = {"CLIP-B/16, 224 px": "face", "WavLM-large, 5 s": "voice"}


def write_shape(folder: Path, modality: Modality) -> str:
    return write_clip(folder, **CLIP_B16) if modality == "face" else write_wavlm(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("what", "modality"), SHAPES.items(), ids=SHAPES.values())
def test_full_size_model_keeps_its_throughput_on_the_cpu(tmp_path, what, modality):
    encoder = opened(write_shape(tmp_path / "model", modality), modality, device="cpu")
    calibration = write_set(tmp_path / "set", modality, n_people=6, n_samples=8 if modality == "face" else 2)
    measured = Measured(encoder, calibration, BATCH_ON_CPU if modality == "face" else 4, 3, tmp_path / "cache")
    print(measured.line(f"{what}, CPU, float32"))
    assert 1 / measured.ratio >= LEAST_THROUGHPUT


@pytest.fixture(scope="module")
def cuda() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return torch.cuda


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("what", "modality"), SHAPES.items(), ids=SHAPES.values())
def test_full_size_model_keeps_its_throughput_on_a_gpu(cuda, tmp_path, what, modality, dtype):
    encoder = opened(write_shape(tmp_path / "model", modality), modality, device="cuda", dtype=dtype)
    calibration = write_set(tmp_path / "set", modality, n_people=64, n_samples=32)
    cuda.reset_peak_memory_stats()
    measured = Measured(encoder, calibration, BATCH_ON_GPU, N_ROUNDS, tmp_path / "cache")
    peak = cuda.max_memory_allocated() / 2**30
    print(measured.line(f"{what}, {cuda.get_device_name()}, {dtype}"), f"peak memory {peak:.2f} GiB", sep="; ")
    assert 1 / measured.ratio >= LEAST_THROUGHPUT
