"""insightface's packs of ONNX models: finding, downloading and checking one, and running its models in onnxruntime."""

import json
import re
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from encsel.core import Runtime
from encsel.errors import EncoderFailed, NotHere, failing
from encsel.extras import imported
from encsel.loading.onnx_files import OnnxGraph, check_device, execution_providers, read_graph, session_options
from encsel.loading.vectors_out import beyond_one
from encsel.storage.files import read_whole

DEFAULT_PACK = "buffalo_l"
MANIFEST = "manifest.json"
HOME = "~/.insightface"
"""Where insightface keeps its packs; no environment variable changes it."""
Task = Literal["detection", "recognition"]


@dataclass(frozen=True)
class PackModel:
    """An ONNX file, classified by insightface's own rules; `side` and `batch` of its input, `dim` of its output.

    `task` is None for the other models of a pack, such as landmarks and age; sizes are None when not fixed.
    """

    path: Path
    task: Task | None
    side: int | None
    batch: int | None
    dim: int | None
    graph: OnnxGraph


@dataclass(frozen=True)
class Pack:
    """The two models; `has_manifest` when insightface must read their preprocessing from the pack's manifest."""

    recogniser: PackModel
    detector: PackModel | None
    has_manifest: bool = False


def find_pack(checkpoint: str | None, runtime: Runtime) -> Path:
    """Folder or file of a checkpoint, downloaded only for the default pack; NotHere if that is impossible here."""
    if checkpoint is not None and (path := _expanded(checkpoint)).exists():
        return path
    name = checkpoint or DEFAULT_PACK
    if not re.fullmatch(r"\w[\w.-]*", name) or name.endswith(".onnx"):
        raise EncoderFailed(f"There is no folder or file {name}. Give a folder of models, or an .onnx file.")
    root = _expanded(HOME)
    pack = root / "models" / name
    if pack.is_dir():
        return pack
    if name != DEFAULT_PACK:
        raise EncoderFailed(
            f"{name} is neither a folder nor a pack in {pack.parent}. "
            f"Get the pack with: insightface-cli model.download {name}"
        )
    if runtime.offline:
        raise NotHere(
            f"The pack {name} is not in {pack.parent}, and downloads are disabled (offline). "
            "Fetch it with a network: encsel encoders fetch arcface."
        )
    _download(pack, root)
    return pack


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # no $HOME, and no entry of this user (or ~USER) in the password database
        raise NotHere(f"{path} cannot be found: no home directory. Set HOME, or give a full path.") from error


def _download(pack: Path, root: Path) -> None:
    storage = imported("insightface.utils.storage")
    archive = storage.model_zoo_download_url(pack.name + ".zip")
    with failing(
        f"The pack {pack.name} could not be downloaded", f"Check the network, or unpack {archive} into {pack}."
    ):
        pack.parent.mkdir(parents=True, exist_ok=True)
        # Download beside the final place, then move: insightface takes an interrupted download for a whole pack.
        with tempfile.TemporaryDirectory(dir=root, prefix=".encsel-") as scratch, redirect_stdout(sys.stderr):
            Path(storage.download("models", pack.name, root=scratch)).rename(pack)


def read_pack(path: Path) -> Pack:
    """The models in a folder, or one recognition model alone; EncoderFailed if one is missing or unsuitable."""
    if path.is_file():
        model = _read_model(path)
        if model.task != "recognition":
            what = "a detector" if model.task == "detection" else "not a recognition model"
            raise EncoderFailed(
                f"{path.name} is {what}. A recognition model has one square input of at least 112 pixels, a multiple "
                "of 16, and one output. Give the recognition file of the pack, or the pack's folder."
            )
        return Pack(model, None)
    # Some packs unpack into a subfolder.
    folders = [path] if any(path.glob("*.onnx")) else sorted({file.parent for file in path.glob("*/*.onnx")})
    if len(folders) != 1:
        content = f"{len(folders)} folders with .onnx files" if folders else "no .onnx files"
        raise EncoderFailed(f"{path} holds {content}, not one pack. Fetch it again, or name the pack's folder.")
    folder = folders[0]
    if has_manifest(folder):
        with failing(f"The manifest.json of {folder} cannot be used", "Fetch the pack again."):
            package = imported("insightface.model_zoo").load_model_package(folder)
            paths = [Path(package.task(task).path) for task in ("detection", "recognition")]
        # insightface resolves links.
        if outside := [path.name for path in paths if path.parent != folder.resolve()]:
            raise EncoderFailed(f"The manifest.json of {folder} names {outside[0]} of another folder. Move it here.")
        detector, recogniser = map(_read_model, paths)
        return Pack(recogniser, detector, has_manifest=True)
    models = [_read_model(file) for file in sorted(folder.glob("*.onnx"))]
    # insightface takes the first model of each task.
    first = {model.task: model for model in reversed(models)}
    for task in ("detection", "recognition"):
        if task not in first:
            files = ", ".join(model.path.name for model in models)
            raise EncoderFailed(
                f"{folder} holds no {task} model ({files}); a pack has a detector and a recognition model. "
                "Fetch it again, or give a recognition model alone for aligned crops: arcface:FILE.onnx."
            )
    return Pack(first["recognition"], first["detection"])


def _read_model(path: Path) -> PackModel:
    """A model of a pack; EncoderFailed if the file is damaged, or has weights in another file."""
    graph = read_graph(path)
    if graph.locations:
        # insightface reads them wherever they are; packs have none.
        raise EncoderFailed(f"{path.name} keeps weights in another file. Join them with onnx.save_model.")
    shape = graph.inputs[0].shape
    side = shape[2] if len(shape) == 4 and shape[2] == shape[3] else None
    task: Task | None = None
    if len(graph.outputs) >= 5:
        task = "detection"
    elif side and side >= 112 and side % 16 == 0 and side != 192 and len(graph.inputs) == len(graph.outputs) == 1:
        task = "recognition"
    values = beyond_one(graph.outputs[0].shape)
    return PackModel(path, task, side, shape[0] if shape else None, values[0] if len(values) == 1 else None, graph)


def has_manifest(folder: Path) -> bool:
    try:
        return json.loads(read_whole(folder / MANIFEST))["manifest_version"] == 2
    except (OSError, ValueError, LookupError, TypeError):
        return False


def load_session(pack: Pack, task: Task, classes: tuple[type, ...], device: str, *, threads: int) -> Any:
    """insightface's model for a task on a device; EncoderFailed if not in `classes` or silently on another device."""
    onnxruntime, zoo = imported("onnxruntime"), imported("insightface.model_zoo")
    part = pack.detector if task == "detection" else pack.recogniser
    assert part is not None
    providers = execution_providers(device, onnxruntime.get_available_providers())
    with failing(f"{part.path.name} does not load in onnxruntime", "Fetch it again."):
        model = zoo.get_model(
            str(part.path),
            providers=list(providers),
            provider_options=list(providers.values()),
            sess_options=session_options(threads),
            model_task=task if pack.has_manifest else None,
        )
    if type(model) not in classes:
        raise EncoderFailed(
            f"insightface takes {part.path.name} for {type(model).__name__}, not for a {task} model. "
            "Give the pack's own files."
        )
    check_device(model.session, part.path.name, device)
    return model
