"""TorchScript files: told from others without loading them, and run in torch where pickles are allowed."""

import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Runtime, Spec, Vectors
from encsel.errors import EncoderFailed, failing
from encsel.loading.hub import moved_to, torch_device
from encsel.loading.vectors_out import vectors_of
from encsel.storage.folders import expanded


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of TorchScript: with code, unlike saved weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)


def find_torchscript(spec: Spec, runtime: Runtime) -> Path:
    """The file of a spec; EncoderFailed if it is not there, is not TorchScript, or pickles are not allowed."""
    path = expanded(str(spec.checkpoint))
    if path is None or not path.is_file():
        raise EncoderFailed(f"there is no file {spec.checkpoint}. Give a file that torch.jit.save wrote.")
    if not is_torchscript(path):
        raise EncoderFailed(
            f"{path.name} is not TorchScript. Weights alone, or a pickled model, do not tell how to compute a vector: "
            "export the model with torch.jit.trace and torch.jit.save, or to ONNX."
        )
    if not runtime.allow_pickle:
        raise EncoderFailed(
            f"{path.name} is TorchScript, whose code torch runs to open it; it cannot be limited to weights "
            "(weights_only). Pass --allow-pickle if you trust it, or export the model to ONNX."
        )
    return path


class TorchScriptModel:
    """A module on one device, in one number type."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self._device = torch_device(runtime.device)
        import torch

        # Files in this format remain in use.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated", category=FutureWarning)
        self._dtype = getattr(torch, runtime.dtype)
        with failing(f"{path.name} does not load", "Export it again, with this version of torch."):
            module = torch.jit.load(str(path), map_location=self._device)
            self._module = module.eval().to(self._device, self._dtype)

    def embed(self, batch: Sequence[NDArray[Any]]) -> Vectors:
        """(samples, 1, dim) float32 of prepared samples of one shape."""
        import torch

        # Optimised, the first runs of a module would differ from later ones in the last digits.
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            outputs = self._module(moved_to(self._device, np.stack(batch)).to(self._dtype))
            outputs = outputs if isinstance(outputs, tuple | list) else [outputs]
            arrays = [x.float().cpu().numpy() for x in outputs if torch.is_tensor(x) and x.is_floating_point()]
        return vectors_of(arrays, len(batch))[:, None]
