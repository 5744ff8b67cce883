"""Shared by the transformers vision families: checkpoint, image processor, model, batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from encsel.core import Encoder, EncoderFamily, Image, Runtime, Spec, Vectors
from encsel.errors import EncoderFailed, UnusableSample, first_line
from encsel.loading.hub import Snapshot, find_snapshot, load_transformers, read_json, sha256_of, torch_device

OPTIONS = ("revision", "dtype", "name")
LIBRARIES = ("transformers", "torch", "Pillow")
BACKEND = "pil"
"""Backend of the image processor; the other backend differs by up to one grey level."""
ATTENTION = "sdpa"
MAX_ELONGATION = 100
"""Processors that scale the shorter side need gigabytes for an image of a few by a million pixels."""


@dataclass(frozen=True)
class Checkpoint:
    """A vision checkpoint on this machine with its configuration read and checked; nothing is loaded."""

    spec: Spec
    runtime: Runtime
    name: str
    snapshot: Snapshot
    config: Mapping[str, Any]
    processor: Mapping[str, Any]
    """Settings of the image processor, as saved in the checkpoint."""


@dataclass(frozen=True)
class Architecture:
    """The transformers class that reads a checkpoint, and the output that is the embedding."""

    model: str
    output: str
    dim: Any
    """Value from the configuration, not yet checked."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Configuration values that replace those transformers would read."""


def find_checkpoint(family: EncoderFamily, spec: Spec, runtime: Runtime, model_types: Sequence[str]) -> Checkpoint:
    """Find the checkpoint of a spec and hash its weights; nothing is loaded.

    Args:
        model_types: values of `model_type` in config.json that the family reads.
    Raises:
        EncoderFailed: not found, another architecture, no image processor, or what `find_snapshot` raises.
    """
    assert family.checkpoint is not None
    name = spec.checkpoint or family.checkpoint
    snapshot = find_snapshot(
        name, runtime, revision=spec.options.get("revision"), may_be_pickled=name == family.checkpoint
    )
    config = snapshot.config()
    model_type = config.get("model_type")
    if model_type not in model_types:
        raise EncoderFailed(
            f"{name} has the architecture {model_type!r}; {family.name} reads {' or '.join(model_types)}. "
            "Choose a checkpoint of such an architecture."
        )
    return Checkpoint(spec, runtime, name, snapshot, config, _processor_settings(snapshot.folder, name))


def vision_encoder(family: EncoderFamily, checkpoint: Checkpoint, architecture: Architecture) -> Encoder:
    """Describe the encoder of a checkpoint; its `load` loads the model.

    Raises:
        EncoderFailed: the configuration gives no valid dimension.
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
            # The activation or the number of heads, for example, changes vectors without changing weights.
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
    """Write a model with reproducible random weights, and its image processor, into a folder."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = getattr(transformers, model)(config)
    network.save_pretrained(folder)
    getattr(transformers, processor)(**settings).save_pretrained(folder)


class VisionModel:
    """A loaded model and its image processor."""

    def __init__(self, model: Any, processor: Any, output: str) -> None:
        self._model, self._processor, self._output = model, processor, output
        first = next(model.parameters())
        self._device, self._dtype = first.device, first.dtype

    def prepare(self, sample: Image) -> Vectors:
        """(3, height, width) float32: resized, cropped and normalised as the checkpoint specifies."""
        height, width = sample.shape[:2]
        if max(height, width) > MAX_ELONGATION * min(height, width):
            raise UnusableSample(f"too long and thin: {width}x{height} pixels")
        pixels = self._processor(images=sample, input_data_format="channels_last")["pixel_values"][0]
        # The processor returns a channels-last view; stacking such views is several times slower.
        return np.ascontiguousarray(pixels, dtype=np.float32)

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        import torch

        with torch.inference_mode():
            # Pinned memory is copied while the device computes.
            host = torch.empty((len(batch), *batch[0].shape), pin_memory=self._device.type == "cuda")
            np.stack(batch, out=host.numpy())
            pixels = host.to(self._device, non_blocking=True).to(self._dtype)
            vectors = getattr(self._model(pixel_values=pixels), self._output)
            return vectors.float().cpu().numpy()[:, None]


def _load(checkpoint: Checkpoint, architecture: Architecture) -> VisionModel:
    torch_device(checkpoint.runtime.device)  # raises EncoderFailed with a remedy when torch does not load
    import transformers

    # transformers 5.17 exports a placeholder at its top level unless torchvision is installed.
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    folder = checkpoint.snapshot.folder
    try:
        processor = AutoImageProcessor.from_pretrained(
            folder, backend=BACKEND, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises many types
        raise EncoderFailed(
            f"The image processor of {checkpoint.name} does not load ({type(error).__name__}: {first_line(error)}). "
            "Check its preprocessor_config.json, or choose another checkpoint."
        ) from error
    if getattr(processor, "backend", None) != BACKEND:
        raise EncoderFailed(
            f"The image processor of {checkpoint.name}, {type(processor).__name__}, has no {BACKEND!r} backend, "
            "which encsel needs. Choose another checkpoint."
        )
    model = load_transformers(
        getattr(transformers, architecture.model),
        checkpoint.snapshot,
        checkpoint.runtime,
        attn_implementation=ATTENTION,
        **architecture.overrides,
    )
    loaded = VisionModel(model, processor, architecture.output)
    _check_fit(loaded, checkpoint, architecture.dim)
    return loaded


def _check_fit(loaded: VisionModel, checkpoint: Checkpoint, dim: int) -> None:
    """Check on two black images that processor and model fit together."""
    try:
        images = [loaded.prepare(np.zeros((*shape, 3), np.uint8)) for shape in ((64, 96), (96, 64))]
        if images[0].shape != images[1].shape:
            raise ValueError(f"images are prepared as {images[0].shape} and {images[1].shape}")
        shape = loaded.embed(images[:1]).shape
        if shape != (1, 1, dim):
            raise ValueError(f"the model returns {shape[-1]} values, its configuration says {dim}")
    except Exception as error:
        raise EncoderFailed(
            f"The image processor and the model of {checkpoint.name} do not fit together "
            f"({type(error).__name__}: {first_line(error)}). Use the preprocessor_config.json made for this model."
        ) from error


def _processor_settings(folder: Path, name: str) -> Mapping[str, Any]:
    """The settings transformers reads: those in processor_config.json first, where newer versions save them."""
    nested = folder / "processor_config.json"
    if nested.is_file():
        settings = read_json(nested).get("image_processor")
        if isinstance(settings, dict):
            return settings
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise EncoderFailed(
            f"{name} has no preprocessor_config.json, which defines how images are resized and normalised. "
            "Copy it from the source of the checkpoint."
        )
    return read_json(path)
