"""mfcc: mean and deviation of mel-frequency cepstral coefficients over a clip, the classical voice descriptor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from encsel.core import SAMPLING_RATE, Clip, EmbedBatch, EncoderFamily, Vectors

N_COEFFICIENTS = 20
N_FFT, HOP, N_MELS = 512, 160, 40


def load() -> EmbedBatch:
    import librosa

    def describe(clip: Clip) -> Vectors:
        # Coefficient 0 is the loudness of the recording, not the voice: computed, then left out. Quiet clips would
        # still differ, cut off at librosa's absolute floor, were they not raised to the same peak first.
        frames = librosa.feature.mfcc(
            y=librosa.util.normalize(clip), sr=SAMPLING_RATE, n_mfcc=N_COEFFICIENTS + 1, n_fft=N_FFT, hop_length=HOP,
            n_mels=N_MELS,
        )[1:]  # fmt: skip
        return np.concatenate([frames.mean(axis=1), frames.std(axis=1)])

    def embed(clips: Sequence[Clip]) -> Vectors:
        return np.stack([describe(clip) for clip in clips]).astype(np.float32)

    return embed


ENCODER = EncoderFamily(
    name="mfcc",
    modality="voice",
    dim=2 * N_COEFFICIENTS,
    version=1,
    licence="none needed: no weights",
    source="Davis & Mermelstein 1980, doi:10.1109/TASSP.1980.1163420, as in librosa; mean and deviation over frames.",
    load=load,
    preprocessing={
        "level": "peak 1",
        "coefficients": f"1-{N_COEFFICIENTS}",
        "n_fft": N_FFT,
        "hop": HOP,
        "mels": N_MELS,
    },
)
