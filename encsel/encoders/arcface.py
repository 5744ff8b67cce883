"""arcface: recognition models of insightface: find the face, align it by five points, embed it."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encsel.core import Encoder, EncoderFamily, Image, Model, Runtime, Spec, Vectors
from encsel.errors import EncoderFailed
from encsel.extras import imported
from encsel.loading.alignment import LIBRARIES, Aligner, alignment_facts, load_aligner
from encsel.loading.checkpoint import encoder_of
from encsel.loading.hub import hashes_of
from encsel.loading.onnx_packs import DEFAULT_PACK, MANIFEST, Pack, find_pack, has_manifest, load_session, read_pack
from encsel.loading.onnx_tiny import tiny_detector, tiny_projection

LICENCE = "insightface's models are for non-commercial research only"


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    if runtime.dtype != "float32":
        raise EncoderFailed(f"ONNX models run in float32, not in {runtime.dtype}. Add @dtype=float32 to the encoder.")
    pack = read_pack(find_pack(spec.checkpoint, runtime))
    recogniser, detector = pack.recogniser, pack.detector
    models = [recogniser] if detector is None else [detector, recogniser]
    for model in models:
        if (kind := model.graph.inputs[0].kind) != "float32":
            raise EncoderFailed(
                f"{model.path.name} takes {kind}; float32 input is needed. Convert it with keep_io_types=True, or name "
                f"a recognition model onnx:{recogniser.path.name} for crops that are aligned already."
            )
    if recogniser.side is None or recogniser.dim is None or recogniser.batch not in (None, 1):
        raise EncoderFailed(
            f"{recogniser.path.name} must have a fixed input side and output size, and no fixed batch above one. "
            "Export it with input (N, 3, side, side) and output (N, dim)."
        )
    own = _own_normalisation(pack)
    preprocessing: dict[str, str | int | float | bool] = {
        "backend": "onnxruntime",
        "dtype": "float32",
        "side": recogniser.side,
        "channels and normalisation": "by get_feat, once, from BGR"
        if own is None
        else f"of 0 to {own:g}, by the graph",
    }
    if detector is None:
        preprocessing |= {"alignment": "none: crops must be aligned", "resize": "bilinear, to a square"}
    else:
        preprocessing |= alignment_facts(pack, recogniser.side)
    folder = recogniser.path.parent
    encoder = encoder_of(
        ENCODER,
        spec,
        dim=recogniser.dim,
        load=lambda: _load(pack, runtime.device),
        weights=hashes_of([model.path for model in models], runtime),
        files=hashes_of([folder / MANIFEST] if pack.has_manifest else [], runtime),
        folder=folder,
        preprocessing=preprocessing,
        flags=("no detection: images taken as aligned crops",) if detector is None else (),
    )
    return (encoder,)


def _own_normalisation(pack: Pack) -> float | None:
    """Value of a white pixel as the recognition model takes it if it normalises its input; None if get_feat does it."""
    return None if pack.has_manifest else pack.recogniser.graph.white


class _ArcFace:
    """The loaded recognition model and, unless images are aligned crops, the detector."""

    def __init__(self, recogniser: Any, aligner: Aligner | None, *, one_by_one: bool) -> None:
        self._recogniser, self._aligner, self._one_by_one = recogniser, aligner, one_by_one

    def prepare(self, sample: Image) -> Any:
        """(side, side, 3) uint8 BGR: the face, upright and centred."""
        import cv2

        crop = sample if self._aligner is None else self._aligner.crop(sample)
        # get_feat expects BGR. It would resize, too, but not in this thread.
        return cv2.resize(np.ascontiguousarray(crop[..., ::-1]), self._recogniser.input_size)

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        # get_feat, not forward, which would normalise a second time.
        groups = [[crop] for crop in batch] if self._one_by_one else [list(batch)]
        vectors = np.concatenate([self._recogniser.get_feat(group) for group in groups])
        return vectors.astype(np.float32).reshape(len(batch), 1, -1)


def _load(pack: Pack, device: str) -> Model:
    with contextlib.redirect_stdout(sys.stderr):
        zoo = imported("insightface.model_zoo")
        recogniser = load_session(pack, "recognition", (zoo.ArcFaceONNX,), device, threads=os.cpu_count() or 1)
    own, side = _own_normalisation(pack), pack.recogniser.side
    if own is not None:  # insightface knows it by the names of nodes, which exporters choose
        recogniser.input_mean, recogniser.input_std = 0.0, 255 / own
    aligner = None if pack.detector is None or side is None else load_aligner(pack, side, device)
    return _ArcFace(recogniser, aligner, one_by_one=pack.recogniser.batch == 1)


def write_tiny(folder: Path) -> str:
    """Write a pack whose detector finds one face in every image and whose recognition model is a random projection."""
    import onnx

    onnx.save(tiny_detector([(16, 16, 112, 112)]), folder / "det_tiny.onnx")
    onnx.save(tiny_projection(), folder / "w_tiny.onnx")
    return f"arcface:{folder}"


ENCODER = EncoderFamily(
    name="arcface",
    modality="face",
    dim=512,
    version=1,
    licence=LICENCE,
    source="Deng et al. 2019, doi:10.1109/CVPR.2019.00482; the pack buffalo_l (w600k_r50) of insightface.",
    libraries=LIBRARIES,
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
