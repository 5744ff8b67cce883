"""What a model of transformers is given: the arrays that the checkpoint's own processor makes of a sample."""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from encsel.core import SAMPLING_RATE, Image, Modality, Vectors
from encsel.errors import EncoderFailed, UnusableSample, failing
from encsel.loading.checkpoint import Checkpoint
from encsel.loading.speech import COMMON_SECONDS, usable_part

BACKEND = "pil"
"""Backend of the image processor; the other one rounds differently."""
MAX_ELONGATION = 100
"""Processors that scale the shorter side need gigabytes for an image of a few by a million pixels."""
N_VALID = "n_valid"
_SIDE = 64

Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Inputs:
    """The processor of a checkpoint, and samples packed into one array each.

    Attributes:
        rate: Hz that the feature extractor takes; 0 for images.
        n_least: fewest samples at 16 kHz that the model takes.
        is_padded: the extractor pads clips, and its mask tells by how much.
    """

    modality: Modality
    processor: Any
    settings: Mapping[str, Any]
    rate: int = 0
    n_least: int = 0
    is_padded: bool = False
    _layouts: dict[int, list[tuple[str, tuple[int, ...], Any]]] = field(default_factory=dict)

    def sizes(self) -> Iterator[int]:
        """Sizes of samples to try on a model, the smallest first."""
        yield from (_SIDE,) if self.modality == "face" else (round(s * SAMPLING_RATE) for s in COMMON_SECONDS[::-1])

    def blank(self, size: int) -> Any:
        """A sample of that size without content."""
        if self.modality == "face":
            return np.zeros((size, size + size // 2, 3), np.uint8)
        return np.full(size, 0.1, np.float32)

    def arrays(self, sample: Any) -> Arrays:
        """Arrays by the names of the model's arguments, without the axis of samples; N_VALID is no argument."""
        if self.modality == "face":
            check_elongation(sample)
            made = self.processor(images=sample, input_data_format="channels_last")
            return {key: np.asarray(value[0]) for key, value in made.items()}
        clip = usable_part(sample, self.n_least, common=True)
        if self.rate != SAMPLING_RATE:
            import soxr

            clip = soxr.resample(clip, SAMPLING_RATE, self.rate, quality="HQ")
        made = self.processor(clip, sampling_rate=self.rate, return_tensors="np", **self._masked())
        arrays = {key: value[0] for key, value in made.items()}
        if self.is_padded:
            mask = arrays.pop("attention_mask")
            arrays[N_VALID] = np.array([mask.sum(), mask.size])
        return arrays

    def _masked(self) -> dict[str, bool]:
        return {"return_attention_mask": True} if self.is_padded else {}

    def packed(self, sample: Any) -> Vectors:
        """The arrays of a sample as one: as it is if there is one, else all values in a row."""
        arrays = self.arrays(sample)
        if len(arrays) == 1:
            # The processor returns a channels-last view; stacking such views is several times slower.
            ((key, value),) = arrays.items()
            self._layouts[0] = [(key, (), np.float32)]
            return np.ascontiguousarray(value, dtype=np.float32)
        row = np.concatenate([np.ravel(value).astype(np.float32) for value in arrays.values()])
        self._layouts[len(row)] = [(key, np.shape(value), np.asarray(value).dtype) for key, value in arrays.items()]
        return row

    def unpacked(self, prepared: Vectors) -> Arrays:
        if 0 in self._layouts:
            return {self._layouts[0][0][0]: prepared}
        arrays, start = {}, 0
        for key, shape, dtype in self._layouts[len(prepared)]:
            end = start + int(np.prod(shape))
            arrays[key] = prepared[start:end].reshape(shape).astype(dtype)
            start = end
        return arrays

    def batch(self, samples: Sequence[Arrays], model: Any) -> dict[str, Any]:
        """Tensors of samples, for those arguments that the model takes."""
        import torch

        takes = inspect.signature(model.forward).parameters
        tensors = {}
        for key in samples[0].keys() & takes.keys():
            stacked = np.stack([one[key] for one in samples])
            tensors[key] = torch.from_numpy(stacked.astype(np.float32) if stacked.dtype.kind == "f" else stacked)
        if not tensors:
            raise EncoderFailed(f"its processor makes {', '.join(samples[0])}, of which the model takes nothing.")
        return tensors

    def description(self) -> dict[str, str | int | float | bool]:
        """The processor and its settings, for the key of a vector."""
        facts = {
            "processor": json.dumps(self.settings, sort_keys=True),
            "class of processor": type(self.processor).__name__,
        }
        if self.modality == "face":
            return {**facts, "backend": BACKEND, "longest to shortest side, at most": MAX_ELONGATION}
        return {**facts, "sampling rate": self.rate}


def inputs_of(modality: Modality, checkpoint: Checkpoint) -> Inputs:
    """Load the processor of a checkpoint; EncoderFailed if it does not load or does not suit."""
    if modality == "face":
        return Inputs(modality, image_processor(checkpoint), checkpoint.processor)
    from transformers import AutoFeatureExtractor

    with failing(f"The feature extractor of {checkpoint.name} does not load", "Check its preprocessor_config.json."):
        extractor = AutoFeatureExtractor.from_pretrained(
            checkpoint.snapshot.folder, local_files_only=True, trust_remote_code=False
        )
    rate = getattr(extractor, "sampling_rate", SAMPLING_RATE)
    is_padded = False
    with failing(f"The feature extractor of {checkpoint.name} does not run", "Check its preprocessor_config.json."):
        clip = np.full(rate, 0.1, np.float32)
        if "return_attention_mask" in inspect.signature(extractor.__call__).parameters:
            mask = extractor(clip, sampling_rate=rate, return_tensors="np", return_attention_mask=True).get(
                "attention_mask"
            )
            is_padded = mask is not None and not np.asarray(mask).all()
    return Inputs(modality, extractor, checkpoint.processor, rate, is_padded=is_padded)


def check_elongation(image: Image) -> None:
    """Raise UnusableSample for an image that processors would need gigabytes for."""
    height, width = image.shape[:2]
    if max(height, width) > MAX_ELONGATION * min(height, width):
        raise UnusableSample(f"too long and thin: {width}x{height} pixels")


def image_processor(checkpoint: Checkpoint) -> Any:
    """The image processor of a checkpoint, with the backend that rounds as PIL does."""
    # transformers 5.17 exports a placeholder at its top level unless torchvision is installed.
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    remedy = "Check its preprocessor_config.json, or choose another checkpoint."
    with failing(f"The image processor of {checkpoint.name} does not load", remedy):
        processor = AutoImageProcessor.from_pretrained(
            checkpoint.snapshot.folder, backend=BACKEND, local_files_only=True, trust_remote_code=False
        )
    if getattr(processor, "backend", None) != BACKEND:
        raise EncoderFailed(
            f"The image processor of {checkpoint.name}, {type(processor).__name__}, has no {BACKEND!r} backend, "
            "which encsel needs. Choose another checkpoint."
        )
    return processor
