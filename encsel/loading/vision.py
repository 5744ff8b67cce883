"""What the transformers vision families share: checkpoint, image processor, model, batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from encsel.core import Encoder, EncoderFamily, Image, Runtime, Spec, Vectors
from encsel.errors import EncoderFailed, UnusableSample
from encsel.loading.hub import Snapshot, find_snapshot, load_transformers, read_json, sha256_of, torch_device

OPTIONS = ("revision", "dtype", "name")
LIBRARIES = ("transformers", "torch", "Pillow")
BACKEND = "pil"
"""Of the image processor; its other one differs by up to one grey level."""
ATTENTION = "sdpa"
MAX_ELONGATION = 100
"""Processors that scale the shorter side would need gigabytes for a picture of a few pixels by a million."""


@dataclass(frozen=True)
class Checkpoint:
    """A vision checkpoint, found and checked as far as its configuration tells."""

    spec: Spec
    runtime: Runtime
    name: str
    snapshot: Snapshot
    config: Mapping[str, Any]
    processor: Mapping[str, Any]
    """The image processor's settings, as the checkpoint's authors saved them."""


@dataclass(frozen=True)
class Architecture:
    """Which class of transformers reads a checkpoint, and which of its outputs is the embedding."""

    model: str
    output: str
    dim: Any
    """As the configuration gives it; checked here."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Values of the configuration that must be others than the library would read."""


def find_checkpoint(family: EncoderFamily, spec: Spec, runtime: Runtime, model_types: Sequence[str]) -> Checkpoint:
    """The checkpoint that a spec names, its weights hashed and nothing loaded.

    Args:
        model_types: values of `model_type` in config.json that the family reads.
    Raises:
        EncoderFailed: not there, another architecture, no image processor, or what `find_snapshot` raises.
    """
    assert family.checkpoint is not None
    name = spec.checkpoint or family.checkpoint
    snapshot = find_snapshot(
        name, runtime, revision=spec.options.get("revision"), may_be_pickled=name == family.checkpoint
    )
    config = snapshot.config()
    found = config.get("model_type")
    if found not in model_types:
        raise EncoderFailed(
            f"{name} is of the architecture {found!r}; {family.name} reads {' or '.join(model_types)}. "
            "Give the family it belongs to, or another checkpoint."
        )
    return Checkpoint(spec, runtime, name, snapshot, config, _processor_settings(snapshot.folder, name))


def vision_encoder(family: EncoderFamily, checkpoint: Checkpoint, architecture: Architecture) -> Encoder:
    """The encoder that a checkpoint becomes; `load` loads it.

    Raises:
        EncoderFailed: the configuration gives no dimension.
    """
    spec, snapshot, dim = checkpoint.spec, checkpoint.snapshot, architecture.dim
    if type(dim) is not int or dim < 1:
        raise EncoderFailed(f"{checkpoint.name} gives {dim!r} as its dimension in config.json. Fetch it again.")
    is_default = checkpoint.name == family.checkpoint
    card = f"the card of {PurePath(checkpoint.name).name if snapshot.revision is None else checkpoint.name}"
    return Encoder(
        name=spec.name,
        modality=family.modality,
        dim=dim,
        spec=str(spec),
        family=family.name,
        version=family.version,
        licence=family.licence if is_default else f"see {card}",
        source=family.source if is_default else f"see {card}",
        load=lambda: _load(checkpoint, architecture),
        revision=snapshot.revision,
        weights=snapshot.weights,
        folder=snapshot.folder,
        trained_on=family.trained_on if is_default else "",
        preprocessing={
            "processor": json.dumps(checkpoint.processor, sort_keys=True),
            "backend": BACKEND,
            "longest to shortest side, at most": MAX_ELONGATION,
            # Activation, number of heads and the like: they move the vectors and leave the weights as they are.
            "config sha256": sha256_of(snapshot.folder / "config.json"),
            "output": architecture.output,
            "attention": ATTENTION,
            "dtype": checkpoint.runtime.dtype,
            "weights": "pickle, weights_only" if snapshot.pickled else "safetensors",
        },
        libraries=family.libraries,
        flags=("pickled weights",) if snapshot.pickled else (),
    )


def write_tiny_model(folder: Path, model: str, config: Any, processor: str, settings: Mapping[str, Any]) -> None:
    """Write a model of random weights, the same ones every time, and its image processor into a folder."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = getattr(transformers, model)(config)
    made.save_pretrained(folder)
    getattr(transformers, processor)(**settings).save_pretrained(folder)


class VisionModel:
    """A loaded model and its image processor."""

    def __init__(self, model: Any, processor: Any, output: str) -> None:
        self._model, self._processor, self._output = model, processor, output
        first = next(model.parameters())
        self._device, self._dtype = first.device, first.dtype

    def prepare(self, sample: Image) -> Vectors:
        """(3, height, width) float32: resized, cropped and normalised as the checkpoint's authors did."""
        height, width = sample.shape[:2]
        if max(height, width) > MAX_ELONGATION * min(height, width):
            raise UnusableSample(f"too long and thin: {width}x{height} pixels")
        pixels = self._processor(images=sample, input_data_format="channels_last")["pixel_values"][0]
        # It comes as a view with the colours last; stacking such views takes several times as long.
        return np.ascontiguousarray(pixels, dtype=np.float32)

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        import torch

        with torch.inference_mode():
            # A copy from pinned memory runs beside the device's own work.
            host = torch.empty((len(batch), *batch[0].shape), pin_memory=self._device.type == "cuda")
            np.stack(batch, out=host.numpy())
            pixels = host.to(self._device, non_blocking=True).to(self._dtype)
            vectors = getattr(self._model(pixel_values=pixels), self._output)
            return vectors.float().cpu().numpy()[:, None]


def _load(checkpoint: Checkpoint, architecture: Architecture) -> VisionModel:
    torch_device(checkpoint.runtime.device)  # says what to do where torch does not load
    import transformers

    folder = checkpoint.snapshot.folder
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, backend=BACKEND, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library raises many kinds
        raise EncoderFailed(f"The image processor of {checkpoint.name} does not load ({_named(error)}).") from error
    if getattr(processor, "backend", None) != BACKEND:
        raise EncoderFailed(
            f"The image processor of {checkpoint.name}, {type(processor).__name__}, has no {BACKEND!r} backend, "
            "which encsel uses. Choose another checkpoint."
        )
    model = load_transformers(
        getattr(transformers, architecture.model),
        checkpoint.snapshot,
        checkpoint.runtime,
        attn_implementation=ATTENTION,
        **architecture.overrides,
    )
    loaded = VisionModel(model, processor, architecture.output)
    _try(loaded, checkpoint, architecture.dim)
    return loaded


def _try(loaded: VisionModel, checkpoint: Checkpoint, dim: int) -> None:
    """Find out before any sample whether processor and model fit."""
    try:
        pictures = [loaded.prepare(np.zeros((*shape, 3), np.uint8)) for shape in ((64, 96), (96, 64))]
        if pictures[0].shape != pictures[1].shape:
            raise ValueError(f"pictures come out as {pictures[0].shape} and {pictures[1].shape}")
        shape = loaded.embed(pictures[:1]).shape
        if shape != (1, 1, dim):
            raise ValueError(f"the model gives {shape[-1]} values, its configuration says {dim}")
    except Exception as error:
        raise EncoderFailed(
            f"Image processor and model of {checkpoint.name} do not fit ({_named(error)}). "
            "Give a checkpoint whose preprocessor_config.json is its own."
        ) from error


def _processor_settings(folder: Path, name: str) -> Mapping[str, Any]:
    """The settings the library will read: nested in processor_config.json first, as newer versions save them."""
    nested = folder / "processor_config.json"
    if nested.is_file():
        settings = read_json(nested).get("image_processor")
        if isinstance(settings, dict):
            return settings
    own = folder / "preprocessor_config.json"
    if not own.is_file():
        raise EncoderFailed(
            f"{name} has no preprocessor_config.json, which says how its images are resized and normalised. "
            "Take the one from where the checkpoint comes from."
        )
    return read_json(own)


def _named(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
