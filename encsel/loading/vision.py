"""Families of transformers vision models: image processor, model, batch."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from encsel.core import Encoder, EncoderFamily, Image, Runtime, Spec, Vectors
from encsel.errors import EncoderFailed, failing
from encsel.loading.auto import OPTIONS, encoders_of
from encsel.loading.auto_inputs import BACKEND, MAX_ELONGATION, check_elongation, image_processor
from encsel.loading.checkpoint import Checkpoint, is_of_types, open_checkpoint, save_tiny
from encsel.loading.hub import load_transformers, stacked_on, torch_device

ATTENTION = "sdpa"
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 8}


@dataclass(frozen=True)
class Architecture:
    """The transformers class and output, the unchecked dimension, and values that override the configuration."""

    model: str
    output: str
    dim: Any
    overrides: Mapping[str, Any] = field(default_factory=dict)


def vision_family(
    *,
    model_types: Sequence[str],
    architecture: Callable[[Mapping[str, Any]], Architecture],
    tiny: Mapping[str, Any],
    tiny_processor: tuple[str, Mapping[str, Any]],
    **facts: Any,
) -> EncoderFamily:
    """A family of vision models, from values of `model_type` that it reads and the architecture of a configuration.

    Args:
        tiny: configuration of the model for tests, beyond TINY.
        tiny_processor: its image processor, a class of transformers and its settings.
    """

    def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
        checkpoint = open_checkpoint(family, spec, runtime, model_types=model_types, processor="image_processor")
        found = architecture(checkpoint.config)
        if {"layer", "pooling"} & spec.options.keys():
            return encoders_of(checkpoint, found.model)
        return (_encoder(checkpoint, found),)

    def write_tiny(folder: Path) -> str:
        import transformers

        processor = getattr(transformers, tiny_processor[0])(**tiny_processor[1])
        save_tiny(folder, architecture(tiny).model, {**TINY, **tiny}, processor)
        return f"{family.name}:{folder}"

    family = EncoderFamily(
        modality="face", libraries=("transformers", "torch", "Pillow"), options=OPTIONS,
        needs=("transformers", "torch"), open=open_,
        recognises=lambda path: is_of_types(path, model_types, but_for=("CLIPVisionModel",)),  # it lacks a projection
        write_tiny=write_tiny, **facts,
    )  # fmt: skip
    return family


def _encoder(checkpoint: Checkpoint, architecture: Architecture) -> Encoder:
    name, dim = checkpoint.name, architecture.dim
    if type(dim) is not int or dim < 1:
        raise EncoderFailed(f"{name} gives {dim!r} as its dimension in config.json. Fetch it again.")
    return checkpoint.encoder(
        dim=dim,
        load=lambda: _load(checkpoint, architecture),
        preprocessing={
            "processor": json.dumps(checkpoint.processor, sort_keys=True),
            "backend": BACKEND,
            "longest to shortest side, at most": MAX_ELONGATION,
            "output": architecture.output,
            "attention": ATTENTION,
        },
    )


class VisionModel:
    """A loaded model and its image processor."""

    def __init__(self, model: Any, processor: Any, output: str) -> None:
        self._model, self._processor, self._output = model, processor, output
        first = next(model.parameters())
        self._device, self._dtype = first.device, first.dtype

    def prepare(self, sample: Image) -> Vectors:
        """(3, height, width) float32: resized, cropped and normalised as the checkpoint specifies."""
        check_elongation(sample)
        pixels = self._processor(images=sample, input_data_format="channels_last")["pixel_values"][0]
        # The processor returns a channels-last view; stacking such views is several times slower.
        return np.ascontiguousarray(pixels, dtype=np.float32)

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        import torch

        with torch.inference_mode():
            pixels = stacked_on(self._device, batch).to(self._dtype)
            vectors = getattr(self._model(pixel_values=pixels), self._output)
            return vectors.float().cpu().numpy()[:, None]


def _load(checkpoint: Checkpoint, architecture: Architecture) -> VisionModel:
    torch_device(checkpoint.runtime.device)  # raises EncoderFailed with a remedy when torch does not load
    import transformers

    processor = image_processor(checkpoint)
    model = load_transformers(
        getattr(transformers, architecture.model),
        checkpoint.snapshot,
        checkpoint.runtime,
        attn_implementation=ATTENTION,
        **architecture.overrides,
    )
    loaded = VisionModel(model, processor, architecture.output)
    problem = f"The image processor and the model of {checkpoint.name} do not fit together"
    with failing(problem, "Use the preprocessor_config.json made for this model."):
        images = [loaded.prepare(np.zeros((*shape, 3), np.uint8)) for shape in ((64, 96), (96, 64))]
        if images[0].shape != images[1].shape:
            raise ValueError(f"images are prepared as {images[0].shape} and {images[1].shape}")
        n_values = loaded.embed(images[:1]).shape[-1]
        if n_values != architecture.dim:
            raise ValueError(f"the model returns {n_values} values, its configuration says {architecture.dim}")
    return loaded
