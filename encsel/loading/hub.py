"""Find pretrained weights in a local folder or on the Hugging Face hub, hash them, and load them safely."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Runtime, Spec
from encsel.errors import EncoderFailed, NotHere, UsageError, failing
from encsel.extras import imported, is_installed
from encsel.loading.spec import is_hub_id
from encsel.storage.files import read_whole
from encsel.storage.folders import expanded

SAFE, PICKLED = "*.safetensors", ("*.bin", "*.ckpt", "*.pt", "*.pth")
_SMALL_FILES = ("*.json", "*.txt", "*.model")
_ONE_FILE = {".safetensors": "model.safetensors", ".bin": "pytorch_model.bin"}
"""Name of a model's only weight file, by suffix; with `.index.json` behind it, of the list of several."""
_SETTINGS = (
    "config.json", "preprocessor_config.json", "processor_config.json",
    *(f"{name}.index.json" for name in _ONE_FILE.values()),
)  # fmt: skip
"""Files beside the weights that can change vectors."""
_ADAPTER = "adapter_config.json"
_ONLY_TRAINED = frozenset({"masked_spec_embed", "mask_token"})
"""Last parts of the names of weights that only training reads."""


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint's files on this machine.

    Attributes:
        revision: commit of the hub; None for a folder of the user.
        weights: SHA-256 of each weight file that is loaded, by name.
        files: the same of the files with settings.
        pickled: the weights are pickles.
    """

    folder: Path
    revision: str | None
    weights: Mapping[str, str]
    files: Mapping[str, str]
    pickled: bool

    def config(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json")


def local_folder(checkpoint: str) -> Path:
    """The folder of that name on this machine; EncoderFailed if there is none."""
    folder = expanded(checkpoint)
    if folder is None or not folder.is_dir():
        raise EncoderFailed(f"{checkpoint} is not a folder and not ORG/NAME on the Hugging Face hub. Give one of them.")
    return folder


def find_snapshot(
    spec: Spec,
    default: str | None,
    runtime: Runtime,
    *,
    safe: str = SAFE,
    pickled: Sequence[str] = ("pytorch_model*.bin",),
) -> Snapshot:
    """Find a checkpoint's files in a local folder or on the hub, downloading them unless `runtime.offline`.

    Args:
        spec: its checkpoint is a folder, or ORG/NAME on the Hugging Face hub.
        default: ORG/NAME on the hub for a spec without a checkpoint, if the family has one; its weights may be pickled,
            those of others only with `runtime.allow_pickle`.
        safe: pattern of the safetensors files this family reads.
        pickled: patterns of the pickled weight files it reads, used only without safetensors.
    Raises:
        EncoderFailed: not found, not reachable, without weights, weights that are not plain files of the folder,
            pickled without permission, or a base model with an adapter beside it.
        UsageError: a revision was given for a folder.
    """
    checkpoint, revision = spec.checkpoint or default, spec.options.get("revision")
    assert checkpoint is not None
    allowed = checkpoint == default or runtime.allow_pickle
    commit = None
    if is_hub_id(checkpoint):
        folder = download(checkpoint, revision, [*_SMALL_FILES, safe], runtime)
        if allowed and not any(folder.glob(safe)):
            folder = download(checkpoint, revision, [*_SMALL_FILES, safe, *pickled], runtime)
        commit = folder.name
    else:
        folder = local_folder(checkpoint)
        if revision is not None:
            raise UsageError(f"{checkpoint} is a folder, which has no revision {revision!r}. Leave out revision=.")
    if (folder / _ADAPTER).is_file():
        raise EncoderFailed(
            f"{checkpoint} has an adapter ({_ADAPTER}), which encsel does not apply. Merge it into the model first: "
            "PeftModel.merge_and_unload()."
        )
    files = _weight_files(folder, (safe,))
    is_pickled = not files
    if is_pickled:
        files = _weight_files(folder, pickled)
        if not allowed and (files or commit):
            raise EncoderFailed(
                f"{checkpoint} has only pickled weights, which encsel does not read by default. "
                "Pass --allow-pickle if you trust them, or convert them to safetensors."
            )
    if not files:
        raise EncoderFailed(f"{checkpoint} holds no weights ({safe} or {', '.join(pickled)}). Fetch it again.")
    settings = [path for name in _SETTINGS if (path := folder / name).is_file()]
    return Snapshot(folder, commit, hashes_of(files, runtime), hashes_of(settings, runtime), is_pickled)


def _weight_files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The weight files that transformers loads from a folder, by its rules; else all that match the patterns."""
    suffix = PurePath(patterns[0]).suffix
    one = _ONE_FILE.get(suffix)
    if one is not None and not PurePath(one).match(patterns[0]):
        one = None
    if one is not None and (folder / one).is_file():
        return [folder / one]
    if one is None or not (folder / f"{one}.index.json").is_file():
        return sorted(path for pattern in patterns for path in folder.glob(pattern))
    index = f"{one}.index.json"
    parts = read_json(folder / index).get("weight_map")
    names = sorted({str(name) for name in parts.values()}) if isinstance(parts, dict) else []
    for name in names or [""]:
        if PurePath(name).name != name or "\\" in name or not name.endswith(suffix):
            raise EncoderFailed(
                f"{folder.name}/{index} names the weights {name!r}; {suffix} files of the folder itself are needed. "
                "Save the model again."
            )
        if not (folder / name).is_file():
            raise EncoderFailed(f"{folder.name} lacks {name}, named in {index}. Fetch the checkpoint again.")
    return [folder / name for name in names]


def weight_names(snapshot: Snapshot) -> list[str]:
    """The names of the tensors in a checkpoint's weight files, read without their values."""
    names: list[str] = []
    for file in (snapshot.folder / name for name in snapshot.weights):
        with failing(f"{file.name} is damaged or holds more than weights", "Fetch the checkpoint again."):
            if snapshot.pickled:
                import torch

                names += torch.load(file, map_location="meta", weights_only=True)
            else:
                from safetensors import safe_open

                with safe_open(file, framework="numpy") as tensors:
                    names += tensors.keys()
    return names


def hashes_of(paths: Iterable[Path], runtime: Runtime) -> dict[str, str]:
    """SHA-256 of files by name; empty texts where the runtime wants no hashes."""
    return {path.name: sha256_of(path) if runtime.hash_weights else "" for path in paths}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; EncoderFailed if it is missing or damaged."""
    try:
        content = json.loads(read_whole(path).decode())
    except OSError as error:
        raise EncoderFailed(f"{path} cannot be read: {error.strerror}. Fetch the checkpoint again.") from error
    except ValueError as error:
        raise EncoderFailed(f"{path} is damaged: {error}. Fetch the checkpoint again.") from error
    if not isinstance(content, dict):
        raise EncoderFailed(f"{path} does not hold a JSON object. Fetch the checkpoint again.")
    return content


def load_transformers(
    cls: Any, snapshot: Snapshot, runtime: Runtime, *, optional: frozenset[str] = frozenset(), **options: Any
) -> Any:
    """Load a transformers model for inference on the runtime's device, with every weight except the `optional` keys.

    Raises:
        EncoderFailed: weights damaged, missing, of another architecture or of other shapes.
    """
    import torch

    # Otherwise transformers starts a thread that asks the hub for a converted copy of pickled weights.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    device = torch_device(runtime.device)
    if device.type == "cuda":
        # By default convolutions round float32 inputs to 10 bits of mantissa (TF32).
        torch.backends.cudnn.allow_tf32 = False
    name = snapshot.folder.name
    problem = f"{name}: the weights do not load as {cls.__name__}"
    with failing(problem, "Fetch the checkpoint again, or check its family."), _quiet_transformers():
        model, info = cls.from_pretrained(
            snapshot.folder,
            local_files_only=True,
            output_loading_info=True,
            dtype=getattr(torch, runtime.dtype),
            trust_remote_code=False,
            use_safetensors=not snapshot.pickled,
            ignore_mismatched_sizes=True,  # listed below; transformers' own error lists none
            **options,
        )
    missing = sorted(key for key in set(info["missing_keys"]) - optional if key.split(".")[-1] not in _ONLY_TRAINED)
    mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info.get("mismatched_keys") or ())
    if missing or mismatched:
        shown = ", ".join([*missing, *mismatched][:4])
        raise EncoderFailed(
            f"{name} lacks {len(missing)} weights of {cls.__name__} and has {len(mismatched)} of "
            f"another shape ({shown}); the embeddings would be random. Check the checkpoint and the family."
        )
    return model.to(device)  # in evaluation mode already


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bar and its table of unused weights."""
    from transformers.utils import logging

    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()


def check_devices(runtime: Runtime) -> None:
    """Raise EncoderFailed, before any work, for a device that is not on this machine, where encoders run on it."""
    for device in runtime.devices if runtime.backend == "local" else ():
        # Without torch, onnxruntime may have one, and says so itself.
        if device not in ("auto", "cpu") and (is_installed("torch") or not is_installed("onnxruntime")):
            torch_device(device)


def torch_device(device: str) -> Any:
    """The torch device of that name, "auto" the best there is; EncoderFailed, never a silent fallback."""
    with failing("torch ends a process without a current folder", "Change to a folder that exists."):
        Path.cwd()
    imported("torch")
    import torch

    if device == "auto":
        has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        return torch.device("cuda" if has_cuda else "mps" if has_mps else "cpu")
    with failing(f"The device {device!r} cannot be used", "Use --device cpu, or fix the driver."):
        torch.empty(1, device=torch.device(device))
    return torch.device(device)


def moved_to(device: Any, array: NDArray[Any]) -> Any:
    """The array as a tensor on a torch device; a CUDA device copies it while it computes."""
    import torch

    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def stacked_on(device: Any, batch: Sequence[NDArray[Any]]) -> Any:
    """A torch tensor of float32 arrays of one shape on a device; CUDA copies them while it computes."""
    import torch

    is_pinned = device.type == "cuda"
    host = torch.empty((len(batch), *batch[0].shape), pin_memory=is_pinned)
    np.stack(batch, out=host.numpy())
    return host.to(device, non_blocking=is_pinned)


def download(checkpoint: str, revision: str | None, patterns: Sequence[str], runtime: Runtime) -> Path:
    """The folder of a repository's files on this machine, fetched from the hub unless `runtime.offline`.

    Raises:
        NotHere: not on this machine, and offline.
        EncoderFailed: not on the hub, not to be had without accepting terms or logging in, or no connection.
    """
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # otherwise requests report installed versions
    imported("huggingface_hub")
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    constants.HF_HUB_DISABLE_TELEMETRY = True  # when already imported
    offline = runtime.offline or constants.HF_HUB_OFFLINE
    at = f"{checkpoint} at revision {revision}" if revision else checkpoint
    try:
        with failing(f"{at} could not be downloaded", "Check the name and the network, or give a local folder."):
            folder = huggingface_hub.snapshot_download(
                checkpoint, revision=revision, allow_patterns=list(patterns), local_files_only=offline
            )
    except EncoderFailed as error:
        cause = error.__cause__
        if isinstance(cause, GatedRepoError):
            raise EncoderFailed(
                f"{checkpoint} is gated: accept its terms at {constants.ENDPOINT}/{checkpoint}, then log in (hf auth "
                "login, or HF_TOKEN)."
            ) from error
        if isinstance(cause, RepositoryNotFoundError):
            raise EncoderFailed(
                f"{checkpoint} is not on the hub, or is private. Check the name, log in (hf auth login, or HF_TOKEN), "
                f"or name a folder: ./{checkpoint}."
            ) from error
        if offline:
            raise NotHere(
                f"{at} is not in the hub cache of this machine, and downloads are disabled (offline). "
                "Fetch it with a network: encsel encoders fetch."
            ) from error
        raise
    return Path(folder)
