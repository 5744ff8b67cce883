"""Models with real architectures and random weights, the images and clips they read, and a bare loop beside encsel."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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

N_THREADS = 8

BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_B16 = {**BASE, "image_size": 224, "patch_size": 16, "projection_dim": 512}
HUBERT_BASE = {**BASE, "conv_dim": (512,) * 7}
CLIP_OF_6_LAYERS = {
    "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6,
    "image_size": 224, "patch_size": 16, "projection_dim": 256,
}  # fmt: skip
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL_CLIP = {**SMALL, "image_size": 64, "patch_size": 16, "projection_dim": 32}
SMALL_HUBERT = {
    **SMALL, "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4
}  # fmt: skip


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


def bare_and_encsel(
    encoder: Encoder, calibration: CalibrationSet, *, batch_size: int
) -> tuple[Callable[[], None], Callable[[], None]]:
    """The bare loop over batches that are ready, and encsel from files to cache, without the check of five samples."""
    model = encoder.load()

    def prepare(path: Path) -> Vectors:
        return model.prepare(decode(path.read_bytes(), encoder.modality, path.suffix))

    with ThreadPoolExecutor(N_THREADS) as pool:
        prepared = list(pool.map(prepare, (s.path for s in calibration.samples)))
    batches = [prepared[i : i + batch_size] for i in range(0, len(prepared), batch_size)]

    def run_bare() -> None:
        for batch in batches:
            model.embed(batch)

    def run_encsel() -> None:
        with tempfile.TemporaryDirectory() as cache, patch.object(model_run, "N_CHECKED", 0):
            embed_all(calibration, encoder, cache=Path(cache), batch_size=batch_size)

    return run_bare, run_encsel
