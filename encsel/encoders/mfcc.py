"""mfcc: mean and standard deviation of mel-frequency cepstral coefficients, the classical voice descriptor."""

import numpy as np

from encsel.core import SAMPLING_RATE, Clip, EmbedBatch, EncoderFamily, Vectors

N_COEFFICIENTS = 20
N_FFT, HOP, N_MELS = 512, 160, 40
DYNAMIC_RANGE = 80
"""Decibels: power further below the clip's maximum is raised to this floor."""


def load() -> EmbedBatch:
    from scipy.fft import dct
    from scipy.signal import get_window

    window, filters = get_window("hann", N_FFT), mel_filters()

    def describe(clip: Clip) -> Vectors:
        # float64: divided by its peak in float32, a quiet copy of a clip would be rounded differently.
        padded = np.pad(clip.astype(np.float64), N_FFT // 2)
        peak = np.abs(padded).max()
        if peak == 0:  # silence
            return np.full(2 * N_COEFFICIENTS, np.nan)
        frames = np.lib.stride_tricks.sliding_window_view(padded / peak, N_FFT)[::HOP]
        mel = np.abs(np.fft.rfft(window * frames)) ** 2 @ filters.T
        decibel = 10 * np.log10(np.maximum(mel, mel.max() * 10 ** (-DYNAMIC_RANGE / 10)))
        # Coefficient 0 is left out: it measures the loudness of the recording, not the voice.
        coefficients = dct(decibel, type=2, norm="ortho", axis=1)[:, 1 : N_COEFFICIENTS + 1]
        return np.concatenate([coefficients.mean(axis=0), coefficients.std(axis=0)])

    return lambda clips: np.stack([describe(clip) for clip in clips]).astype(np.float32)


def mel_filters() -> Vectors:
    """Triangular filters of equal area, evenly spaced on the mel scale from 0 Hz to half the sampling rate.

    The scale is that of Slaney's Auditory Toolbox (1998): linear up to 1 kHz, logarithmic above.

    Returns:
        (N_MELS, N_FFT // 2 + 1) weights for the power at each frequency.
    """
    linear, log_step = 1000 / 15, np.log(6.4) / 27  # Hz per mel below 1 kHz (mel 15); log(Hz) per mel above
    mels = np.linspace(0, 15 + np.log(SAMPLING_RATE / 2 / 1000) / log_step, N_MELS + 2)
    hertz = np.where(mels < 15, mels * linear, 1000 * np.exp(log_step * (mels - 15)))[:, None]
    low, centre, high = hertz[:-2], hertz[1:-1], hertz[2:]
    frequencies = np.fft.rfftfreq(N_FFT, 1 / SAMPLING_RATE)
    triangles = np.minimum((frequencies - low) / (centre - low), (high - frequencies) / (high - centre))
    return np.maximum(triangles, 0) * 2 / (high - low)


ENCODER = EncoderFamily(
    name="mfcc",
    modality="voice",
    dim=2 * N_COEFFICIENTS,
    version=2,
    licence="none needed: no weights",
    source="Davis & Mermelstein 1980, doi:10.1109/TASSP.1980.1163420; mel filters of Slaney 1998, as in librosa.",
    load=load,
    preprocessing={
        "level": "peak 1",
        "coefficients": f"1-{N_COEFFICIENTS}",
        "n_fft": N_FFT,
        "hop": HOP,
        "mels": N_MELS,
        "dynamic range": DYNAMIC_RANGE,
    },
)
