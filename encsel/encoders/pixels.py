"""pixels: the face as a small grey image, the baseline every face encoder must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from encsel.core import EmbedBatch, EncoderFamily, Image, Vectors

SIDE = 32


def load() -> EmbedBatch:
    import PIL.Image

    def embed(images: Sequence[Image]) -> Vectors:
        small = (
            PIL.Image.fromarray(image).convert("L").resize((SIDE, SIDE), PIL.Image.Resampling.BOX) for image in images
        )
        return np.stack([np.asarray(picture, dtype=np.float32).ravel() / 255 for picture in small])

    return embed


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
