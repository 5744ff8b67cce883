"""pixels: the face as a small grey image, the baseline every face encoder must beat."""

import numpy as np

from encsel.core import EmbedBatch, EncoderFamily, Image, Vectors

SIDE = 32


def load() -> EmbedBatch:
    import PIL.Image

    def describe(image: Image) -> Vectors:
        grey = PIL.Image.fromarray(image).convert("L").resize((SIDE, SIDE), PIL.Image.Resampling.BOX)
        return np.asarray(grey, dtype=np.float32).ravel() / 255

    return lambda images: np.stack([describe(image) for image in images])


ENCODER = EncoderFamily(
    name="pixels",
    modality="face",
    dim=SIDE * SIDE,
    version=1,
    licence="none needed: no weights",
    source="Grey values after box averaging to 32x32 (Pillow); the template of Turk & Pentland 1991.",
    load=load,
    preprocessing={"grey": "ITU-R 601", "side": SIDE, "resample": "box"},
)
