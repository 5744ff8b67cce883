"""Image models of libraries that use torchvision: weights loaded strictly, its transforms, batches."""

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from encsel.core import Image, Vectors
from encsel.errors import EncoderFailed, failing
from encsel.extras import imported
from encsel.loading.auto_inputs import check_elongation
from encsel.loading.checkpoint import Checkpoint
from encsel.loading.hub import Snapshot, stacked_on, torch_device


def with_torchvision(module: str) -> ModuleType:
    """Import a library that uses torchvision; EncoderFailed with a remedy if it, torch or torchvision does not load."""
    torch = imported("torch")
    remedy = f"torch here is {torch.__version__}. Install a pair that fits: pip install --upgrade torch torchvision"
    with failing("torchvision does not load", remedy):
        importlib.import_module("torchvision")
    return imported(module)


class ImageModel:
    """A loaded model, from (images, 3, height, width) to (images, dim), and the transform that prepares its images."""

    def __init__(self, model: Any, transform: Any) -> None:
        self._model, self._transform = model, transform
        first = next(model.parameters())
        self._device, self._dtype = first.device, first.dtype

    def prepare(self, sample: Image) -> Vectors:
        """(3, height, width) float32: resized, cropped and normalised as the checkpoint specifies."""
        import PIL.Image

        check_elongation(sample)
        return np.ascontiguousarray(self._transform(PIL.Image.fromarray(sample)).numpy())

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        import torch

        with torch.inference_mode():
            pixels = stacked_on(self._device, batch).to(self._dtype)
            return self._model(pixels).float().cpu().numpy()[:, None]


def read_weights(snapshot: Snapshot) -> dict[str, Any]:
    """The tensors of a checkpoint's weight files, by name."""
    weights: dict[str, Any] = {}
    for file in (snapshot.folder / name for name in snapshot.weights):
        with failing(f"{file.name} is damaged or holds more than weights", "Fetch the checkpoint again."):
            if snapshot.pickled:
                import torch

                weights |= torch.load(file, map_location="cpu", weights_only=True)
            else:
                from safetensors.torch import load_file

                weights |= load_file(file)
    return weights


def load_strictly(model: Any, weights: Mapping[str, Any], name: str, *, unused: Sequence[str] = ()) -> None:
    """Give a model all its weights, so that none stays random.

    Args:
        name: of the checkpoint.
        unused: parts of the checkpoint's model that this one lacks, such as a classifier.
    Raises:
        EncoderFailed: weights are missing, of other shapes, or of parts that this model does not have.
    """
    kind, remedy = type(model).__name__, "Check that the configuration and the weights are of one model."
    with failing(f"{name}: the weights do not load as {kind}", remedy):
        keys = model.load_state_dict(weights, strict=False)
    unknown = [key for key in keys.unexpected_keys if key.split(".")[0] not in unused]
    if keys.missing_keys or unknown:
        shown = ", ".join([*keys.missing_keys, *unknown][:4])
        raise EncoderFailed(
            f"{name} lacks {len(keys.missing_keys)} weights of {kind} and has {len(unknown)} of another model "
            f"({shown}); the embeddings would be wrong. {remedy}"
        )


def ready(model: Any, transform: Any, checkpoint: Checkpoint, dim: int) -> ImageModel:
    """The model for inference on the runtime's device, tried on two images."""
    import torch

    device = torch_device(checkpoint.runtime.device)
    if device.type == "cuda":
        # By default convolutions round float32 inputs to 10 bits of mantissa (TF32).
        torch.backends.cudnn.allow_tf32 = False
    loaded = ImageModel(model.eval().to(device, getattr(torch, checkpoint.runtime.dtype)), transform)
    problem = f"The preprocessing and the model of {checkpoint.name} do not fit together"
    with failing(problem, "Check its configuration, or choose another checkpoint."):
        images = [loaded.prepare(np.zeros((*shape, 3), np.uint8)) for shape in ((64, 96), (96, 64))]
        if images[0].shape != images[1].shape:
            raise ValueError(f"images are prepared as {images[0].shape} and {images[1].shape}")
        shape = loaded.embed(images[:1]).shape
        if shape != (1, 1, dim):
            raise ValueError(f"the model returns {shape[2:]} values an image, its configuration says {dim}")
    return loaded
