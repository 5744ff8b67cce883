"""ONNX files: found in a folder or on the hub, read without being loaded, and run in onnxruntime."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from encsel.core import Runtime, Spec
from encsel.errors import EncoderFailed, UsageError, failing
from encsel.extras import imported, is_installed
from encsel.loading.hub import download, local_folder
from encsel.loading.spec import is_hub_id
from encsel.storage.folders import expanded

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_REMEDY = "Install onnxruntime-gpu in place of onnxruntime, with the CUDA version it needs, or use --device cpu."
_ON_HUB = ("*.onnx", "*.onnx.data", "*.onnx_data")
_PASSED = ("Cast", "Transpose", "Identity")
"""Operators that a graph may put between its input and its normalisation."""


@dataclass(frozen=True)
class Value:
    """An input or output: its number type by numpy's name, and its shape, where None is an axis of any length."""

    name: str
    kind: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.kind} ({', '.join('?' if n is None else str(n) for n in self.shape)})"


@dataclass(frozen=True)
class OnnxGraph:
    """What an ONNX file says of its model.

    Attributes:
        inputs: those without a default.
        locations: files beside it that hold weights, as the file names them.
        white: value of a white pixel that the graph expects where it normalises its own input; None if it does not.
        properties: further facts that its exporter wrote into it.
    """

    path: Path
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    locations: tuple[str, ...]
    white: float | None
    properties: Mapping[str, str]


def find_onnx(spec: Spec, runtime: Runtime) -> tuple[Path, str | None]:
    """The ONNX file of a spec's checkpoint, and its commit where it is from the hub.

    Raises:
        EncoderFailed: not found, or none or several .onnx files.
        UsageError: a revision was given for a folder or file.
    """
    checkpoint, revision = str(spec.checkpoint), spec.options.get("revision")
    if is_hub_id(checkpoint):
        folder = download(checkpoint, revision, _ON_HUB, runtime)
        return _only_onnx(folder, checkpoint), folder.name
    if revision is not None:
        raise UsageError(f"{checkpoint} is not on the hub, so it has no revision {revision!r}. Leave out revision=.")
    path = expanded(checkpoint)
    if path is not None and path.is_file():
        return path, None
    return _only_onnx(local_folder(checkpoint), checkpoint), None


def _only_onnx(folder: Path, checkpoint: str) -> Path:
    found = sorted(folder.glob("*.onnx")) or list(folder.glob("onnx/model.onnx"))
    if len(found) != 1:
        names = f" ({', '.join(path.name for path in found)})" if found else ""
        raise EncoderFailed(
            f"{checkpoint} holds {len(found)} .onnx files{names}; one is needed, or onnx/model.onnx. Give the file."
        )
    return found[0]


def has_input_axes(path: Path, *numbers: int) -> bool:
    """Whether a file, or the only .onnx file of a folder, takes an input with one of these numbers of axes.

    Every .onnx file does where onnx is not installed, so that what is missing can be named.
    """
    try:
        file = path if path.is_file() else _only_onnx(path, path.name)
        if file.suffix.lower() != ".onnx":
            return False
        return not is_installed("onnx") or len(read_graph(file).inputs[0].shape) in numbers
    except (EncoderFailed, OSError):
        return False


def read_graph(path: Path) -> OnnxGraph:
    """What an ONNX file says of its model; EncoderFailed if it is damaged or empty."""
    onnx = imported("onnx")
    with failing(f"{path.name} cannot be read as ONNX", "Fetch it again."):
        model = onnx.load(path, load_external_data=False)
        weights = {tensor.name for tensor in model.graph.initializer}  # old files list them as inputs, too
        inputs = tuple(_value(v) for v in model.graph.input if v.name not in weights)
        outputs = tuple(_value(v) for v in model.graph.output)
        if not inputs or not outputs:
            raise EncoderFailed(f"{path.name} holds no model: it is empty or damaged. Fetch it again.")
        apart = [t for t in _tensors(model, onnx.TensorProto) if t.data_location == onnx.TensorProto.EXTERNAL]
        locations = {
            place for t in apart for place in [e.value for e in t.external_data if e.key == "location"] or [""]
        }
        properties = {entry.key: entry.value for entry in model.metadata_props}
        white = _white(model.graph, inputs[0].name)
    return OnnxGraph(path, inputs, outputs, tuple(sorted(locations)), white, properties)


def _value(value: Any) -> Value:
    import onnx

    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    kind = {"float": "float32", "double": "float64"}.get(kind, kind)
    return Value(value.name, kind, tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim))


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


def _white(graph: Any, name: str) -> float | None:
    """`OnnxGraph.white`, from the arithmetic with constants that the input goes through first, whatever its name is.

    Of constants that cannot be read, a subtraction and a scaling count as insightface counts them: pixels to 255.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    scale, shift, operators, is_known = 1.0, 0.0, set(), True
    for _ in range(8):  # as many nodes as insightface looks at
        users = [node for node in graph.node if name in node.input and node.op_type != "Shape"]
        if len(users) != 1:
            break
        node, operator = users[0], users[0].op_type
        if operator in ("Add", "Sub", "Mul", "Div"):
            if operator in ("Sub", "Div") and node.input[0] != name:
                break
            (other,) = [i for i in node.input if i != name] or [name]
            operators.add(operator)
            constant = _mean(constants.get(other))
            is_known &= constant is not None
            if constant is not None and operator in ("Add", "Sub"):
                shift += constant if operator == "Add" else -constant
            elif constant:
                factor = constant if operator == "Mul" else 1 / constant
                scale, shift = scale * factor, shift * factor
        elif operator not in _PASSED:
            break
        name = node.output[0]
    is_normalised = "Sub" in operators and bool(operators & {"Mul", "Div"})
    if not is_known:
        return 255.0 if is_normalised else None
    centre = -shift / scale  # the value that becomes zero
    if 0 < centre <= 1:
        return 1.0
    return 255.0 if centre >= 0 and (is_normalised or centre > 2 or abs(scale) < 0.1) else None


def _mean(tensor: Any) -> float | None:
    """Mean of a constant; None if it is not in the file."""
    import onnx

    if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    return float(np.mean(onnx.numpy_helper.to_array(tensor).astype(np.float64)))


def data_files(graph: OnnxGraph) -> list[Path]:
    """Files that hold weights beside an ONNX file; EncoderFailed unless they are files of its own folder.

    A link counts as what it points to, which may lie beside what the ONNX file itself is a link to, as in the hub's
    cache.
    """
    paths = []
    for name in graph.locations:
        path = graph.path.parent / name
        folders = (graph.path.parent.resolve(), graph.path.resolve().parent)
        if PurePath(name).name != name or "\\" in name or path.resolve().parent not in folders:
            raise EncoderFailed(
                f"{graph.path.name} keeps weights in {name}, which is not a file of its own folder. Save it again "
                "with onnx.save_model."
            )
        if not path.is_file():
            raise EncoderFailed(f"{graph.path.name} keeps weights in {name}, which is missing. Put it beside it.")
        paths.append(path)
    return paths


def open_session(path: Path, device: str, *, threads: int) -> Any:
    """An onnxruntime session on a device; EncoderFailed if the file does not load or runs silently elsewhere."""
    onnxruntime = imported("onnxruntime")
    providers = execution_providers(device, onnxruntime.get_available_providers())
    with failing(f"{path.name} does not load in onnxruntime", "Fetch it again, or export it again."):
        session = onnxruntime.InferenceSession(
            str(path),
            session_options(threads),
            providers=list(providers),
            provider_options=list(providers.values()),
        )
    check_device(session, path.name, device)
    return session


def session_options(threads: int) -> Any:
    options = imported("onnxruntime").SessionOptions()
    options.intra_op_num_threads = threads
    # Otherwise models that declare a batch of one warn at every call, and errors are printed besides being raised.
    options.log_severity_level = 4
    return options


def check_device(session: Any, name: str, device: str) -> None:
    """Raise EncoderFailed if CUDA was requested and the session runs without it."""
    running = session.get_providers()
    if device.startswith("cuda") and CUDA not in running:
        raise EncoderFailed(f"{name} runs on {running}, not on the requested device {device!r}. {_REMEDY}")


def execution_providers(device: str, available: Sequence[str]) -> dict[str, dict[str, str]]:
    """onnxruntime's providers for a device, with their options; "auto" is CUDA where onnxruntime has it."""
    kind, _, index = device.partition(":")
    if kind == "cpu" or (device == "auto" and CUDA not in available):
        return {CPU: {}}
    if kind not in ("auto", "cuda") or (index and not index.isdigit()):
        raise EncoderFailed(f"onnxruntime cannot run on {device!r}. Use cpu, cuda or cuda:N.")
    if CUDA not in available:
        raise EncoderFailed(
            f"The device {device!r} is not available: this onnxruntime has {', '.join(available)}. {_REMEDY}"
        )
    # onnxruntime's default, TF32, multiplies float32 with ten bits of mantissa.
    return {CUDA: {"device_id": index or "0", "use_tf32": "0"}, CPU: {}}
