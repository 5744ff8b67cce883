"""Faces found by insightface's detectors and aligned by five points, as its recognition models need them."""

import contextlib
import sys
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from encsel.core import Image, Runtime, Vectors
from encsel.errors import EncoderFailed, NotHere, UnusableSample
from encsel.extras import imported, missing
from encsel.loading.hub import sha256_of
from encsel.loading.onnx_packs import DEFAULT_PACK, Pack, find_pack, load_session, read_pack

LIBRARIES = ("insightface", "onnxruntime", "opencv-python", "scikit-image")
DETECTION_SIDES = (128, 640)
"""Default of insightface 2.1, which finds both small faces and faces that fill the image; older versions differ."""
THRESHOLD, OVERLAP = 0.5, 0.4
BORDER = 0.5


def find_detector(runtime: Runtime) -> Pack:
    """insightface's default pack, on this machine already, for its detector; EncoderFailed if it is not there."""
    if lacking := missing(("insightface", "onnxruntime")):
        raise EncoderFailed(f"align=arcface: {lacking}")
    try:
        return read_pack(find_pack(None, replace(runtime, offline=True)))
    except NotHere as error:
        raise EncoderFailed(
            f"align=arcface needs the detector of insightface's pack {DEFAULT_PACK}, which is not on this machine. Get "
            "it with: encsel encoders fetch arcface"
        ) from error


def detector_facts(pack: Pack, runtime: Runtime) -> dict[str, str | int | float | bool]:
    """The file of a detector that is not in the folder of its encoder, and its SHA-256."""
    assert pack.detector is not None
    path = pack.detector.path
    return {"detector": f"{path.name} {sha256_of(path) if runtime.hash_weights else ''}".rstrip()}


def alignment_facts(pack: Pack, side: int) -> dict[str, str | int | float | bool]:
    """How the pack's detector finds and aligns faces, in words; EncoderFailed if no crop can have that side."""
    detector = pack.detector
    assert detector is not None
    if side % 112 and side % 128:
        raise EncoderFailed(
            f"it needs {side} pixels per side, but faces can only be aligned to multiples of 112 or 128. Give crops "
            "that are aligned already."
        )
    return {
        "detection sides": ", ".join(map(str, DETECTION_SIDES if detector.side is None else (detector.side,))),
        "detection threshold": THRESHOLD,
        "detection overlap": OVERLAP,
        "face": "largest box, then nearest the centre",
        "no face": f"black border of {BORDER:.0%} on each side and once more, else refused",
        "alignment": "five points, norm_crop",
    }


def load_aligner(pack: Pack, side: int, device: str) -> "Aligner":
    """Load the pack's detector; EncoderFailed if it does not load, or gives no points."""
    assert pack.detector is not None
    with contextlib.redirect_stdout(sys.stderr):
        zoo = imported("insightface.model_zoo")
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
    return Aligner(detector, side)


class Aligner:
    """A loaded detector that makes crops of one side."""

    def __init__(self, detector: Any, side: int) -> None:
        self._detector, self._side = detector, side

    def crop(self, image: Image) -> Image:
        """(side, side, 3): the face, upright and centred."""
        bgr = np.ascontiguousarray(image[..., ::-1])  # as insightface expects
        crop = self._aligned(bgr)
        if crop is None:  # a tight crop: detectors need surroundings. norm_crop, too, fills in black.
            height, width = (round(BORDER * side) for side in bgr.shape[:2])
            crop = self._aligned(np.pad(bgr, ((height, height), (width, width), (0, 0))))
        if crop is None:
            raise UnusableSample("no face found")
        return crop[..., ::-1]

    def _aligned(self, image: Image) -> Image | None:
        from insightface.utils.face_align import norm_crop2

        height, width = image.shape[:2]
        if min(height, width) * min(self._detector.input_sizes[0]) <= max(height, width):
            return None  # the detector would shrink a side to zero pixels
        boxes, points = self._detector.detect(image)
        if len(boxes) == 0:
            return None
        best = largest_face(boxes, (width / 2, height / 2))
        crop, transform = norm_crop2(image, points[best], self._side)
        # Coinciding points give no transform, only a black crop.
        return crop if np.isfinite(transform).all() else None


def largest_face(boxes: Vectors, centre: tuple[float, float]) -> int:
    """Row of the largest of (faces, x1 y1 x2 y2 ...) boxes; among equal areas (rounded), the one nearest the centre."""
    x1, y1, x2, y2 = np.asarray(boxes, np.float64)[:, :4].T
    area = np.round((x2 - x1) * (y2 - y1))
    distance = np.hypot((x1 + x2) / 2 - centre[0], (y1 + y2) / 2 - centre[1])
    return int(np.lexsort((distance, -area))[0])
