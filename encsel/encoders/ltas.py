"""ltas: the long-term average spectrum of a clip, in decibels about its own mean."""

import numpy as np

from encsel.core import SAMPLING_RATE, Clip, EmbedBatch, EncoderFamily, Vectors

WINDOW = 512
FLOOR = 1e-8
"""Fraction of the largest power (80 dB below it). An absolute floor would depend on the loudness of the recording."""


def load() -> EmbedBatch:
    from scipy.signal import welch

    def describe(clip: Clip) -> Vectors:
        # float64: in float32 the rounding error of a constant clip would look like a spectrum.
        _, power = welch(clip.astype(np.float64), fs=SAMPLING_RATE, nperseg=WINDOW)
        if not power.any():  # a constant clip: no sound
            return np.full_like(power, np.nan)
        decibel = 10 * np.log10(power + FLOOR * power.max())
        return decibel - decibel.mean()

    return lambda clips: np.stack([describe(clip) for clip in clips]).astype(np.float32)


ENCODER = EncoderFamily(
    name="ltas",
    modality="voice",
    dim=WINDOW // 2 + 1,
    version=1,
    licence="none needed: no weights",
    source="Byrne et al. 1994, doi:10.1121/1.410152; Welch's method as in SciPy.",
    load=load,
    preprocessing={"window": WINDOW, "floor of maximum": FLOOR, "level": "mean of decibels removed"},
)
