"""Packages beyond those of `pip install encsel`, and the extra that installs each."""

import contextlib
import importlib
import importlib.util
from types import ModuleType

from encsel.errors import EncoderFailed, first_line

EXTRA_OF = {
    "torch": "hf",
    "transformers": "hf",
    "huggingface_hub": "hf",
    "timm": "timm",
    "torchvision": "timm",
    "open_clip": "open_clip",
    "insightface": "insightface",
    "speechbrain": "speechbrain",
    "torchaudio": "speechbrain",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "kaldi_native_fbank": "onnx",
    "ot": "gw",
    "distributed": "dask",
    "ray": "ray",
}
"""The extra of encsel that installs a module."""
PACKAGE_OF = {"open_clip": "open_clip_torch", "ot": "POT", "kaldi_native_fbank": "kaldi-native-fbank"}
"""The package that has a module, where the two have different names."""


def is_installed(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    with contextlib.suppress(ValueError):  # one without a spec, put into sys.modules by hand
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    return True


def command_for(*modules: str) -> str:
    """The command that installs the extra with the first of these modules."""
    return f"pip install 'encsel[{EXTRA_OF[modules[0].partition('.')[0]]}]'"


def missing(modules: tuple[str, ...]) -> str | None:
    """Which of these modules are not installed, and the command that installs them; None if all are."""
    absent = [m for m in modules if not is_installed(m)]
    if not absent:
        return None
    names = " and ".join(PACKAGE_OF.get(m, m) for m in absent)
    return (
        f"{names} {'is' if len(absent) == 1 else 'are'} not installed. Install what it needs: {command_for(*modules)}"
    )


def imported(module: str) -> ModuleType:
    """Import a module; EncoderFailed with the command that installs it, if it does not import."""
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise EncoderFailed(
            f"{module} does not load ({type(error).__name__}: {first_line(error)}). Install a version that fits: "
            f"{command_for(module)}"
        ) from error
