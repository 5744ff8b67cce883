"""arcface: insightface's recognition models: find the face, align it by five points, embed it."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from encsel.core import Encoder, EncoderFamily, Image, Model, Runtime, Spec, Vectors
from encsel.errors import EncoderFailed, NotHere, UnusableSample
from encsel.loading.hub import sha256_of
from encsel.storage.reading import read_whole

PACK = "buffalo_l"
DIM = 512
DETECTION_SIDES = (128, 640)
"""insightface 2.1's own default, which finds faces that fill the image as well as small ones; older ones differ."""
THRESHOLD, OVERLAP = 0.5, 0.4
BORDER = 0.5
NO_FACE = "no face found"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
LICENCE = "insightface's models are for non-commercial research only"


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    if runtime.dtype != "float32":
        raise EncoderFailed(
            f"ONNX models run in float32; {runtime.dtype} was asked for. Say dtype=float32 for this one."
        )
    pack = _read_pack(_find(spec.checkpoint, runtime))
    recogniser, detector = pack.recogniser, pack.detector
    if recogniser.side is None or recogniser.dim is None or recogniser.batch not in (None, 1):
        raise EncoderFailed(
            f"{recogniser.path.name} does not fix its input side and output size, or fixes a batch larger than one. "
            "Export it with an input (N, 3, side, side) and an output (N, dim)."
        )
    preprocessing: dict[str, str | int | float | bool] = {
        "backend": "onnxruntime",
        "dtype": "float32",
        "side": recogniser.side,
        "channels and normalisation": "by get_feat, once, from BGR",
    }
    if detector is None:
        preprocessing |= {"alignment": "none: crops must be aligned", "resize": "bilinear, to a square"}
    else:
        if recogniser.side % 112 and recogniser.side % 128:
            raise EncoderFailed(
                f"{recogniser.path.name} wants {recogniser.side} pixels a side; faces can be aligned to multiples of "
                f"112 or 128. For crops that are aligned already, give the file: arcface:{recogniser.path.name}."
            )
        sides = DETECTION_SIDES if detector.side is None else (detector.side,)
        preprocessing |= {
            "detection sides": ", ".join(map(str, sides)),
            "detection threshold": THRESHOLD,
            "detection overlap": OVERLAP,
            "face": "largest box, then nearest the centre",
            "no face": f"black border of {BORDER:.0%} on each side and once more, else refused",
            "alignment": "five points, norm_crop",
        }
    is_default = spec.checkpoint in (None, PACK)
    graphs = [recogniser] if detector is None else [detector, recogniser]
    encoder = Encoder(
        name=spec.name,
        modality="face",
        dim=recogniser.dim,
        spec=str(spec),
        family="arcface",
        version=ENCODER.version,
        licence=LICENCE if is_default else f"of the pack or file; {LICENCE}",
        source=ENCODER.source,
        load=lambda: _load(pack, runtime.device),
        weights={g.path.name: sha256_of(g.path) if runtime.hash_weights else "" for g in graphs},
        folder=recogniser.path.parent,
        trained_on=ENCODER.trained_on if is_default else "",
        preprocessing=preprocessing,
        libraries=ENCODER.libraries,
        shares=str(spec),
        identity_trained=True,
        flags=("no detection: images taken as aligned crops",) if detector is None else (),
    )
    return (encoder,)


class _ArcFace:
    """Both models, loaded."""

    def __init__(self, recogniser: Any, detector: Any | None, *, one_by_one: bool) -> None:
        self._recogniser = recogniser
        self._detector = detector
        self._one_by_one = one_by_one

    def prepare(self, sample: Image) -> Any:
        """(side, side, 3) uint8 BGR: the face, upright and centred."""
        import cv2

        # insightface speaks BGR: turned here, and nowhere else. get_feat and detect turn it back themselves.
        image = np.ascontiguousarray(sample[..., ::-1])
        if self._detector is None:
            return cv2.resize(image, self._recogniser.input_size)  # as get_feat would, but in this thread
        crop = self._aligned(image)
        if crop is None:  # a tight crop: detectors want surroundings. Black is what norm_crop itself fills in.
            height, width = (round(BORDER * side) for side in image.shape[:2])
            crop = self._aligned(np.pad(image, ((height, height), (width, width), (0, 0))))
        if crop is None:
            raise UnusableSample(NO_FACE)
        return crop

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        # get_feat, never forward: that one normalises what is normalised already.
        groups = [[crop] for crop in batch] if self._one_by_one else [list(batch)]
        vectors = np.concatenate([self._recogniser.get_feat(group) for group in groups])
        return vectors.astype(np.float32).reshape(len(batch), 1, -1)

    def _aligned(self, image: Image) -> Image | None:
        from insightface.utils.face_align import norm_crop2

        assert self._detector is not None
        height, width = image.shape[:2]
        if min(height, width) * min(self._detector.input_sizes[0]) <= max(height, width):
            return None  # the detector would shrink a side to nothing
        boxes, points = self._detector.detect(image)
        if len(boxes) == 0:
            return None
        best = largest_face(boxes, (width / 2, height / 2))
        crop, transform = norm_crop2(image, points[best], self._recogniser.input_size[0])
        # Points that coincide give no transform, and a black crop.
        return crop if np.isfinite(transform).all() else None


def largest_face(boxes: Vectors, centre: tuple[float, float]) -> int:
    """Row of the largest box of (faces, x1 y1 x2 y2 ...); of equal ones, to a square pixel, that nearest the centre."""
    x1, y1, x2, y2 = np.asarray(boxes, np.float64)[:, :4].T
    area = np.round((x2 - x1) * (y2 - y1))
    distance = np.hypot((x1 + x2) / 2 - centre[0], (y1 + y2) / 2 - centre[1])
    return int(np.lexsort((distance, -area))[0])


Kind = Literal["detection", "recognition"]


@dataclass(frozen=True)
class _Graph:
    """What an ONNX file is, by the rule insightface tells models by.

    Attributes:
        kind: None for other models of a pack, such as landmarks and age.
        side, batch: of the input, where fixed.
        dim: of the output, where fixed.
    """

    path: Path
    kind: Kind | None
    side: int | None
    batch: int | None
    dim: int | None


@dataclass(frozen=True)
class _Pack:
    """The two models; `has_manifest` when insightface must read their preprocessing from the pack's manifest."""

    recogniser: _Graph
    detector: _Graph | None
    has_manifest: bool = False


def _find(checkpoint: str | None, runtime: Runtime) -> Path:
    """The folder or file a checkpoint means; only the default pack is ever downloaded."""
    if checkpoint is not None and (path := Path(checkpoint).expanduser()).exists():
        return path
    name = checkpoint or PACK
    if not re.fullmatch(r"\w[\w.-]*", name) or name.endswith(".onnx"):
        raise EncoderFailed(f"There is no folder or file {name}. Give a folder of models, or an .onnx file.")
    root = Path("~/.insightface").expanduser()  # insightface's own; it reads no variable
    pack = root / "models" / name
    if pack.is_dir():
        return pack
    if name != PACK:
        raise EncoderFailed(
            f"{name} is neither a folder here nor a pack in {pack.parent}. "
            f"Get the pack with: insightface-cli model.download {name}"
        )
    if runtime.offline:
        raise NotHere(
            f"The pack {PACK} is not in {pack.parent}, and offline was asked for. "
            "Fetch it where there is a network: encsel encoders fetch arcface."
        )
    _download(pack, root)
    return pack


def _download(pack: Path, root: Path) -> None:
    storage = _import("insightface.utils.storage")
    try:
        pack.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place and then moved: insightface takes what an interrupted download leaves for a whole pack.
        with tempfile.TemporaryDirectory(dir=root, prefix=".encsel-") as scratch, _stdout_kept():
            Path(storage.download("models", pack.name, root=scratch)).rename(pack)
    except Exception as error:  # requests, zipfile and the library raise their own kinds
        raise EncoderFailed(
            f"The pack {pack.name} could not be downloaded ({type(error).__name__}: {_first_line(error)}). "
            f"Check the network, or unpack {storage.model_zoo_download_url(pack.name + '.zip')} into {pack}."
        ) from error


def _read_pack(path: Path) -> _Pack:
    """The models of a folder, or a recognition model without a detector.

    Raises:
        EncoderFailed: one of them is missing, damaged, or something else.
    """
    if path.is_file():
        graph = _read_graph(path)
        if graph.kind != "recognition":
            found = "a detector" if graph.kind == "detection" else "no recognition model"
            raise EncoderFailed(
                f"{path.name} is {found}; one square input of 112 pixels or more, a multiple of 16, and one output "
                "are needed. Give the recognition file of the pack, or the pack's folder."
            )
        return _Pack(graph, None)
    folder = _unpacked(path)
    if _has_manifest(folder):
        return _read_manifest(folder)
    graphs = [_read_graph(file) for file in sorted(folder.glob("*.onnx"))]
    # The first of a kind, as insightface takes them.
    firsts = {graph.kind: graph for graph in reversed(graphs)}
    for kind in ("detection", "recognition"):
        if kind not in firsts:
            files = ", ".join(graph.path.name for graph in graphs)
            raise EncoderFailed(
                f"{folder} holds no {kind} model ({files}); a pack has a detector and a recognition model. "
                "Fetch it again, or give a recognition model alone for aligned crops: arcface:FILE.onnx."
            )
    return _Pack(firsts["recognition"], firsts["detection"])


def _unpacked(folder: Path) -> Path:
    """The folder itself, or the one folder in it that holds the models, as some packs unpack."""
    inside = sorted({file.parent for file in folder.glob("*/*.onnx")})
    if any(folder.glob("*.onnx")):
        return folder
    if len(inside) != 1:
        found = f"{len(inside)} folders with .onnx files" if inside else "no .onnx files"
        raise EncoderFailed(
            f"{folder} holds {found}; those of one pack are needed. Fetch it again, or name its folder."
        )
    return inside[0]


def _read_graph(path: Path) -> _Graph:
    onnx = _import("onnx")
    try:
        graph = onnx.load(path, load_external_data=False).graph
        weights = {tensor.name for tensor in graph.initializer}
        inputs = [_shape(value) for value in graph.input if value.name not in weights]  # old files list both
        outputs = [_shape(value) for value in graph.output]
    except Exception as error:  # protobuf and the operating system raise their own kinds
        raise EncoderFailed(f"{path.name} cannot be read as ONNX ({_first_line(error)}). Fetch it again.") from error
    if not inputs or not outputs:
        raise EncoderFailed(f"{path.name} holds no model: it is empty or damaged. Fetch it again.")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        # Its bytes would be missing from the hash that keys the cache.
        raise EncoderFailed(f"{path.name} keeps weights in another file. Join them with onnx.save_model.")
    shape = inputs[0]
    side = shape[2] if len(shape) == 4 and shape[2] == shape[3] else None
    kind: Kind | None = None
    if len(outputs) >= 5:
        kind = "detection"
    elif side and side >= 112 and side % 16 == 0 and side != 192 and len(inputs) == len(outputs) == 1:
        kind = "recognition"
    return _Graph(path, kind, side, shape[0] if shape else None, outputs[0][-1] if outputs[0] else None)


def _shape(value: Any) -> list[int | None]:
    return [d.dim_value if d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim]


def _has_manifest(folder: Path) -> bool:
    try:
        return json.loads(read_whole(folder / "manifest.json"))["manifest_version"] == 2
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _read_manifest(folder: Path) -> _Pack:
    zoo = _import("insightface.model_zoo")
    try:
        package = zoo.load_model_package(folder)
        detector, recogniser = (_read_graph(package.task(task).path) for task in ("detection", "recognition"))
    except EncoderFailed:
        raise
    except Exception as error:
        raise EncoderFailed(f"{folder} has a manifest.json that cannot be used ({_first_line(error)}).") from error
    return _Pack(recogniser, detector, has_manifest=True)


def _load(pack: _Pack, device: str) -> Model:
    with _stdout_kept():
        zoo = _import("insightface.model_zoo")
        recogniser = _session(pack, "recognition", (zoo.ArcFaceONNX,), device, threads=os.cpu_count() or 1)
        detector = None
        if pack.detector is not None:
            # One thread a call: prepare() is called from as many threads as there are cores.
            detector = _session(pack, "detection", (zoo.SCRFD, zoo.RetinaFace), device, threads=1)
            detector.prepare(
                0, input_size=[(side, side) for side in DETECTION_SIDES], det_thresh=THRESHOLD, nms_thresh=OVERLAP
            )
            if not detector.use_kps:
                raise EncoderFailed(
                    f"The detector {pack.detector.path.name} gives boxes without the five points that alignment needs. "
                    "Use a detector with key points, such as det_10g.onnx."
                )
    # Of norm_crop, for every image: it is insightface's to mend.
    warnings.filterwarnings("ignore", message="`estimate` is deprecated", category=FutureWarning)
    return _ArcFace(recogniser, detector, one_by_one=pack.recogniser.batch == 1)


def _session(pack: _Pack, task: Kind, kinds: tuple[type, ...], device: str, *, threads: int) -> Any:
    """insightface's model on the device asked for.

    Raises:
        EncoderFailed: it does not load, is of another kind, or would run elsewhere without a word.
    """
    onnxruntime, zoo = _import("onnxruntime"), _import("insightface.model_zoo")
    graph = pack.detector if task == "detection" else pack.recogniser
    assert graph is not None
    providers = _providers(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # else packs that declare a batch of one warn at every call
    try:
        model = zoo.get_model(
            str(graph.path),
            providers=list(providers),
            provider_options=list(providers.values()),
            sess_options=options,
            model_task=task if pack.has_manifest else None,
        )
    except Exception as error:  # onnxruntime's errors share no public base class
        raise EncoderFailed(
            f"{graph.path.name} does not load in onnxruntime ({type(error).__name__}: {_first_line(error)}). "
            "Fetch it again."
        ) from error
    if type(model) not in kinds:
        raise EncoderFailed(
            f"insightface takes {graph.path.name} for {type(model).__name__}, not for a {task} model. "
            "Give the pack's own files."
        )
    running = model.session.get_providers()
    if device.startswith("cuda") and CUDA not in running:
        raise EncoderFailed(f"The device {device!r} was asked for; {graph.path.name} runs on {running}. {_REMEDY}")
    return model


_REMEDY = "Install onnxruntime-gpu in place of onnxruntime, with the CUDA it names, or use --device cpu."


def _providers(device: str, available: Sequence[str]) -> dict[str, dict[str, str]]:
    """onnxruntime's providers and their options for a device; "auto" is CUDA where onnxruntime has it."""
    kind, _, index = device.partition(":")
    if device == "cpu" or (device == "auto" and CUDA not in available):
        return {CPU: {}}
    if kind not in ("auto", "cuda") or (index and not index.isdigit()):
        raise EncoderFailed(f"onnxruntime runs on cpu, cuda or cuda:N here, not on {device!r}. Use one of them.")
    if CUDA not in available:
        raise EncoderFailed(
            f"The device {device!r} was asked for; this onnxruntime has {', '.join(available)}. {_REMEDY}"
        )
    # Its own default multiplies float32 with ten bits of mantissa.
    return {CUDA: {"device_id": index or "0", "use_tf32": "0"}, CPU: {}}


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise EncoderFailed(
            f"{module} does not load ({_first_line(error)}). "
            "Install what it needs: pip install 'insightface>=2,<3' onnxruntime."
        ) from error


def _stdout_kept() -> contextlib.redirect_stdout[Any]:
    return contextlib.redirect_stdout(sys.stderr)  # insightface prints; stdout is for results


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def write_tiny(folder: Path) -> str:
    """A pack whose detector sees one face in every image, and whose recognition model is a random projection."""
    import onnx

    onnx.save(tiny_detector([(16, 16, 112, 112)]), folder / "det_tiny.onnx")
    weights = np.random.default_rng(0).normal(size=(7 * 7 * 3, 16)).astype(np.float32)
    node, numpy_helper = onnx.helper.make_node, onnx.numpy_helper
    onnx.save(
        onnx_model(
            [
                node("AveragePool", ["image"], ["small"], kernel_shape=[16, 16], strides=[16, 16]),
                node("Flatten", ["small"], ["flat"]),
                node("MatMul", ["flat", "weights"], ["embedding"]),
            ],
            ("image", ["n", 3, 112, 112]),
            [("embedding", ["n", 16])],
            [numpy_helper.from_array(weights, "weights")],
        ),
        folder / "w_tiny.onnx",
    )
    return f"arcface:{folder}"


def tiny_detector(faces: Sequence[tuple[float, float, float, float]]) -> Any:
    """An ONNX detector of input 128 x 128 that sees these x1 y1 x2 y2 boxes in every image, upright faces in them."""
    from insightface.utils.face_align import arcface_dst
    from onnx import helper, numpy_helper

    nodes: list[Any] = []
    outputs: list[tuple[str, list[int | str]]] = []
    n_anchors = {stride: 2 * (128 // stride) ** 2 for stride in (8, 16, 32)}
    arrays = {(kind, s): np.zeros((n, width), np.float32)
              for kind, width in (("score", 1), ("box", 4), ("points", 10)) for s, n in n_anchors.items()}  # fmt: skip
    for row, (x1, y1, x2, y2) in enumerate(faces):
        anchor = 32.0 * np.array([row // 2 % 4, row // 2 // 4])
        points = np.array([x1, y1]) + arcface_dst / 112 * np.array([x2 - x1, y2 - y1])
        arrays["score", 32][row] = 0.9
        arrays["box", 32][row] = np.concatenate([anchor - (x1, y1), np.array([x2, y2]) - anchor]) / 32
        arrays["points", 32][row] = ((points - anchor) / 32).ravel()
    for (kind, stride), array in arrays.items():
        name = f"{kind}{stride}"
        nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
        outputs.append((name, list(array.shape)))
    return onnx_model(nodes, ("image", [1, 3, 128, 128]), outputs)


def onnx_model(
    nodes: list[Any],
    image: tuple[str, list[int | str]],
    outputs: Sequence[tuple[str, list[int | str]]],
    weights: Sequence[Any] = (),
) -> Any:
    """An ONNX model of one image input, all values float."""
    from onnx import TensorProto, helper

    def value(name: str, shape: list[int | str]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(nodes, "tiny", [value(*image)], [value(*output) for output in outputs], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


ENCODER = EncoderFamily(
    name="arcface",
    modality="face",
    dim=DIM,
    version=1,
    licence=LICENCE,
    source="Deng et al. 2019, doi:10.1109/CVPR.2019.00482; the pack buffalo_l (w600k_r50) of insightface.",
    libraries=("insightface", "onnxruntime", "opencv-python", "scikit-image"),
    checkpoint=PACK,
    options=("dtype", "name"),
    open=open_,
    trained_on="WebFace600K, of WebFace260M; the detector: WIDER FACE",
    n_parameters=43_600_000,
    n_bytes=288_600_000,
    write_tiny=write_tiny,
)
