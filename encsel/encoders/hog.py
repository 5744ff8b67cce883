"""hog: histograms of oriented gradients, the classical face descriptor."""

import numpy as np

from encsel.core import EmbedBatch, EncoderFamily, Image, Vectors

SIDE, CELL, BLOCK, ORIENTATIONS = 96, 16, 2, 9
DIM = (SIDE // CELL - BLOCK + 1) ** 2 * BLOCK**2 * ORIENTATIONS


def load() -> EmbedBatch:
    import PIL.Image
    from skimage.feature import hog

    def describe(image: Image) -> Vectors:
        grey = PIL.Image.fromarray(image).convert("L").resize((SIDE, SIDE), PIL.Image.Resampling.BILINEAR)
        return hog(
            np.asarray(grey, dtype=np.float32) / 255, orientations=ORIENTATIONS, pixels_per_cell=(CELL, CELL),
            cells_per_block=(BLOCK, BLOCK), block_norm="L2-Hys",
        )  # fmt: skip

    return lambda images: np.stack([describe(image) for image in images]).astype(np.float32)


ENCODER = EncoderFamily(
    name="hog",
    modality="face",
    dim=DIM,
    version=1,
    licence="none needed: no weights",
    source="Dalal & Triggs 2005, doi:10.1109/CVPR.2005.177, as in scikit-image.",
    load=load,
    preprocessing={"grey": "ITU-R 601", "side": SIDE, "cell": CELL, "block": BLOCK, "orientations": ORIENTATIONS},
)
