"""insightface's packs of ONNX models: finding, downloading and checking one, and running its models in onnxruntime."""

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from encsel.core import Runtime
from encsel.errors import EncoderFailed, NotHere, failing
from encsel.extras import imported
from encsel.storage.files import read_whole

DEFAULT_PACK = "buffalo_l"
MANIFEST = "manifest.json"
HOME = "~/.insightface"
"""Where insightface keeps its packs; no environment variable changes it."""
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_REMEDY = "Install onnxruntime-gpu in place of onnxruntime, with the CUDA version it needs, or use --device cpu."

Task = Literal["detection", "recognition"]


@dataclass(frozen=True)
class Graph:
    """An ONNX file, classified by insightface's own rules; `side` and `batch` of its input, `dim` of its output.

    `task` is None for the other models of a pack, such as landmarks and age; sizes are None when not fixed.
    """

    path: Path
    task: Task | None
    side: int | None
    batch: int | None
    dim: int | None


@dataclass(frozen=True)
class Pack:
    """The two models; `has_manifest` when insightface must read their preprocessing from the pack's manifest."""

    recogniser: Graph
    detector: Graph | None
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
        graph = _read_graph(path)
        if graph.task != "recognition":
            what = "a detector" if graph.task == "detection" else "not a recognition model"
            raise EncoderFailed(
                f"{path.name} is {what}. A recognition model has one square input of at least 112 pixels, a multiple "
                "of 16, and one output. Give the recognition file of the pack, or the pack's folder."
            )
        return Pack(graph, None)
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
        detector, recogniser = map(_read_graph, paths)
        return Pack(recogniser, detector, has_manifest=True)
    graphs = [_read_graph(file) for file in sorted(folder.glob("*.onnx"))]
    # insightface takes the first model of each task.
    first = {graph.task: graph for graph in reversed(graphs)}
    for task in ("detection", "recognition"):
        if task not in first:
            files = ", ".join(graph.path.name for graph in graphs)
            raise EncoderFailed(
                f"{folder} holds no {task} model ({files}); a pack has a detector and a recognition model. "
                "Fetch it again, or give a recognition model alone for aligned crops: arcface:FILE.onnx."
            )
    return Pack(first["recognition"], first["detection"])


def _read_graph(path: Path) -> Graph:
    """Inputs and outputs of an ONNX file; EncoderFailed if it is damaged or has weights in another file."""
    onnx = imported("onnx")
    with failing(f"{path.name} cannot be read as ONNX", "Fetch it again."):
        model = onnx.load(path, load_external_data=False)
        graph = model.graph
        weights = {tensor.name for tensor in graph.initializer}
        inputs, outputs = (
            [[d.dim_value if d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim] for value in values]
            for values in ([v for v in graph.input if v.name not in weights], graph.output)  # old files list both
        )
    if not inputs or not outputs:
        raise EncoderFailed(f"{path.name} holds no model: it is empty or damaged. Fetch it again.")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model, onnx.TensorProto)):
        # Weights in another file would be missing from the hash that keys the cache.
        raise EncoderFailed(f"{path.name} keeps weights in another file. Join them with onnx.save_model.")
    shape = inputs[0]
    side = shape[2] if len(shape) == 4 and shape[2] == shape[3] else None
    task: Task | None = None
    if len(outputs) >= 5:
        task = "detection"
    elif side and side >= 112 and side % 16 == 0 and side != 192 and len(inputs) == len(outputs) == 1:
        task = "recognition"
    return Graph(path, task, side, shape[0] if shape else None, outputs[0][-1] if outputs[0] else None)


def _tensors(message: Any, kind: type) -> Iterator[Any]:
    """Every tensor in a model, at any depth: initializers, constants, subgraphs and functions."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for part in value if isinstance(value, Sequence) else (value,):
            if isinstance(part, kind):
                yield part
            else:
                yield from _tensors(part, kind)


def has_manifest(folder: Path) -> bool:
    try:
        return json.loads(read_whole(folder / MANIFEST))["manifest_version"] == 2
    except (OSError, ValueError, LookupError, TypeError):
        return False


def load_session(pack: Pack, task: Task, classes: tuple[type, ...], device: str, *, threads: int) -> Any:
    """insightface's model for a task on a device; EncoderFailed if not in `classes` or silently on another device."""
    onnxruntime, zoo = imported("onnxruntime"), imported("insightface.model_zoo")
    graph = pack.detector if task == "detection" else pack.recogniser
    assert graph is not None
    providers = execution_providers(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # otherwise packs that declare a batch of one warn at every call
    with failing(f"{graph.path.name} does not load in onnxruntime", "Fetch it again."):
        model = zoo.get_model(
            str(graph.path),
            providers=list(providers),
            provider_options=list(providers.values()),
            sess_options=options,
            model_task=task if pack.has_manifest else None,
        )
    if type(model) not in classes:
        raise EncoderFailed(
            f"insightface takes {graph.path.name} for {type(model).__name__}, not for a {task} model. "
            "Give the pack's own files."
        )
    running = model.session.get_providers()
    if device.startswith("cuda") and CUDA not in running:
        raise EncoderFailed(f"{graph.path.name} runs on {running}, not on the requested device {device!r}. {_REMEDY}")
    return model


def execution_providers(device: str, available: Sequence[str]) -> dict[str, dict[str, str]]:
    """onnxruntime's providers for a device, with their options; "auto" is CUDA where onnxruntime has it."""
    kind, _, index = device.partition(":")
    if device == "cpu" or (device == "auto" and CUDA not in available):
        return {CPU: {}}
    if kind not in ("auto", "cuda") or (index and not index.isdigit()):
        raise EncoderFailed(f"onnxruntime cannot run on {device!r}. Use cpu, cuda or cuda:N.")
    if CUDA not in available:
        raise EncoderFailed(
            f"The device {device!r} is not available: this onnxruntime has {', '.join(available)}. {_REMEDY}"
        )
    # onnxruntime's default, TF32, multiplies float32 with ten bits of mantissa.
    return {CUDA: {"device_id": index or "0", "use_tf32": "0"}, CPU: {}}
