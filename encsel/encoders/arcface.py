"""arcface: recognition models of insightface: find the face, align it by five points, embed it."""

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encsel.core import Encoder, EncoderFamily, Image, Model, Runtime, Spec, Vectors
from encsel.errors import EncoderFailed, UnusableSample
from encsel.extras import imported
from encsel.loading.checkpoint import encoder_of
from encsel.loading.hub import hashes_of
from encsel.loading.onnx_packs import DEFAULT_PACK, MANIFEST, Pack, find_pack, has_manifest, load_session, read_pack

DETECTION_SIDES = (128, 640)
"""Default of insightface 2.1, which finds both small faces and faces that fill the image; older versions differ."""
THRESHOLD, OVERLAP = 0.5, 0.4
BORDER = 0.5
LICENCE = "insightface's models are for non-commercial research only"


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    if runtime.dtype != "float32":
        raise EncoderFailed(f"ONNX models run in float32, not in {runtime.dtype}. Add @dtype=float32 to the encoder.")
    pack = read_pack(find_pack(spec.checkpoint, runtime))
    recogniser, detector = pack.recogniser, pack.detector
    if recogniser.side is None or recogniser.dim is None or recogniser.batch not in (None, 1):
        raise EncoderFailed(
            f"{recogniser.path.name} must have a fixed input side and output size, and no fixed batch above one. "
            "Export it with input (N, 3, side, side) and output (N, dim)."
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
                f"{recogniser.path.name} needs {recogniser.side} pixels per side, but faces can only be aligned to "
                f"multiples of 112 or 128. For crops already aligned, give the file: arcface:{recogniser.path.name}."
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
    folder, graphs = recogniser.path.parent, [recogniser] if detector is None else [detector, recogniser]
    encoder = encoder_of(
        ENCODER,
        spec,
        dim=recogniser.dim,
        load=lambda: _load(pack, runtime.device),
        weights=hashes_of([g.path for g in graphs], runtime),
        files=hashes_of([folder / MANIFEST] if pack.has_manifest else [], runtime),
        folder=folder,
        preprocessing=preprocessing,
        flags=("no detection: images taken as aligned crops",) if detector is None else (),
    )
    return (encoder,)


class _ArcFace:
    """The loaded recognition model and, unless images are aligned crops, the detector."""

    def __init__(self, recogniser: Any, detector: Any | None, *, one_by_one: bool) -> None:
        self._recogniser, self._detector, self._one_by_one = recogniser, detector, one_by_one

    def prepare(self, sample: Image) -> Any:
        """(side, side, 3) uint8 BGR: the face, upright and centred."""
        import cv2

        # insightface expects BGR: converted here and nowhere else. get_feat and detect convert it back themselves.
        image = np.ascontiguousarray(sample[..., ::-1])
        if self._detector is None:
            return cv2.resize(image, self._recogniser.input_size)  # as get_feat does, but in this thread
        crop = self._aligned(image)
        if crop is None:  # a tight crop: detectors need surroundings. norm_crop, too, fills in black.
            height, width = (round(BORDER * side) for side in image.shape[:2])
            crop = self._aligned(np.pad(image, ((height, height), (width, width), (0, 0))))
        if crop is None:
            raise UnusableSample("no face found")
        return crop

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        # get_feat, not forward, which would normalise a second time.
        groups = [[crop] for crop in batch] if self._one_by_one else [list(batch)]
        vectors = np.concatenate([self._recogniser.get_feat(group) for group in groups])
        return vectors.astype(np.float32).reshape(len(batch), 1, -1)

    def _aligned(self, image: Image) -> Image | None:
        from insightface.utils.face_align import norm_crop2

        assert self._detector is not None
        height, width = image.shape[:2]
        if min(height, width) * min(self._detector.input_sizes[0]) <= max(height, width):
            return None  # the detector would shrink a side to zero pixels
        boxes, points = self._detector.detect(image)
        if len(boxes) == 0:
            return None
        best = largest_face(boxes, (width / 2, height / 2))
        crop, transform = norm_crop2(image, points[best], self._recogniser.input_size[0])
        # Coinciding points give no transform, only a black crop.
        return crop if np.isfinite(transform).all() else None


def largest_face(boxes: Vectors, centre: tuple[float, float]) -> int:
    """Row of the largest of (faces, x1 y1 x2 y2 ...) boxes; among equal areas (rounded), the one nearest the centre."""
    x1, y1, x2, y2 = np.asarray(boxes, np.float64)[:, :4].T
    area = np.round((x2 - x1) * (y2 - y1))
    distance = np.hypot((x1 + x2) / 2 - centre[0], (y1 + y2) / 2 - centre[1])
    return int(np.lexsort((distance, -area))[0])


def _load(pack: Pack, device: str) -> Model:
    with contextlib.redirect_stdout(sys.stderr):
        zoo = imported("insightface.model_zoo")
        recogniser = load_session(pack, "recognition", (zoo.ArcFaceONNX,), device, threads=os.cpu_count() or 1)
        detector = None
        if pack.detector is not None:
            # One thread per call: prepare() is called from as many threads as there are cores.
            detector = load_session(pack, "detection", (zoo.SCRFD, zoo.RetinaFace), device, threads=1)
            detector.prepare(
                0, input_size=[(side, side) for side in DETECTION_SIDES], det_thresh=THRESHOLD, nms_thresh=OVERLAP
            )
            if not detector.use_kps:
                raise EncoderFailed(
                    f"The detector {pack.detector.path.name} returns boxes without the five points alignment needs. "
                    "Use a detector with key points, such as det_10g.onnx."
                )
    # insightface's norm_crop triggers it for every image.
    warnings.filterwarnings("ignore", message="`estimate` is deprecated", category=FutureWarning)
    return _ArcFace(recogniser, detector, one_by_one=pack.recogniser.batch == 1)


def write_tiny(folder: Path) -> str:
    """Write a pack whose detector finds one face in every image and whose recognition model is a random projection."""
    import onnx
    import onnx.parser

    onnx.save(tiny_detector([(16, 16, 112, 112)]), folder / "det_tiny.onnx")
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 17]>
        tiny (float[n, 3, 112, 112] image) => (float[n, 16] embedding) {
            small = AveragePool <kernel_shape = [16, 16], strides = [16, 16]> (image)
            flat = Flatten (small)
            embedding = MatMul (flat, weights)
        }
    """)
    weights = np.random.default_rng(0).normal(size=(7 * 7 * 3, 16)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    onnx.save(model, folder / "w_tiny.onnx")
    return f"arcface:{folder}"


def tiny_detector(faces: Sequence[tuple[float, float, float, float]]) -> Any:
    """An ONNX detector of 128 x 128 pixels that finds upright faces in these x1 y1 x2 y2 boxes of every image."""
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
    """An ONNX model with one image input; all values are float."""
    from onnx import TensorProto, helper

    def value(name: str, shape: list[int | str]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(nodes, "tiny", [value(*image)], [value(*output) for output in outputs], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


ENCODER = EncoderFamily(
    name="arcface",
    modality="face",
    dim=512,
    version=1,
    licence=LICENCE,
    source="Deng et al. 2019, doi:10.1109/CVPR.2019.00482; the pack buffalo_l (w600k_r50) of insightface.",
    libraries=("insightface", "onnxruntime", "opencv-python", "scikit-image"),
    needs=("insightface", "onnx", "onnxruntime"),
    recognises=lambda path: path.is_dir() and (has_manifest(path) or len([*path.glob("*.onnx")]) > 1),
    checkpoint=DEFAULT_PACK,
    options=("dtype", "name"),
    open=open_,
    trained_on="WebFace600K, of WebFace260M; the detector: WIDER FACE",
    n_parameters=43_600_000,
    n_bytes=288_600_000,
    write_tiny=write_tiny,
)
