"""pixels, hog, mfcc, ltas on samples with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from encsel.core import SAMPLING_RATE, Vectors
from encsel.encoders import hog, ltas, mfcc, pixels
from encsel.loading.registry import encoder_family

TIME = np.arange(SAMPLING_RATE) / SAMPLING_RATE


def of(name: str, sample: np.ndarray) -> Vectors:
    (vector,) = encoder_family(name).load()([sample])
    return vector


def grey(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[..., None], 3, axis=2).astype(np.uint8)


def buzz() -> np.ndarray:
    """Falling harmonics of 150 Hz that swell four times a second."""
    clip = sum(np.sin(2 * np.pi * 150 * k * TIME) / k**2 for k in range(1, 40)) * (1.2 + np.sin(2 * np.pi * 4 * TIME))
    return (clip / np.abs(clip).max()).astype(np.float32)


@pytest.mark.parametrize("value", [0, 51, 255])
def test_pixels_of_a_uniform_image_are_its_grey_value(value):
    np.testing.assert_allclose(of("pixels", np.full((90, 70, 3), value, np.uint8)), value / 255, rtol=1e-6)


def test_pixels_weigh_colours_as_itu_601():
    red = np.zeros((40, 40, 3), np.uint8)
    red[..., 0] = 255
    assert of("pixels", red)[0] == pytest.approx(0.299, abs=0.5 / 255)


def test_pixels_average_boxes():
    small = np.random.default_rng(0).integers(0, 256, (pixels.SIDE, pixels.SIDE))
    large = np.kron(small, np.ones((4, 3)))
    np.testing.assert_allclose(of("pixels", grey(large)), small.ravel() / 255, rtol=1e-6)


@pytest.mark.parametrize(("direction", "orientation"), [("vertical", 0), ("horizontal", 4)])
def test_hog_of_an_edge_has_its_energy_in_one_orientation(direction, orientation):
    # The gradient of a vertical edge points along 0 degrees; bins are 20 degrees wide, so 90 degrees is in bin 4.
    edge = np.where(np.arange(hog.SIDE) < hog.SIDE // 2, 0, 255) * np.ones((hog.SIDE, 1))
    vector = of("hog", grey(edge if direction == "vertical" else edge.T))
    energy = (vector.reshape(-1, hog.ORIENTATIONS) ** 2).sum(axis=0)
    assert energy[orientation] > 0.99 * energy.sum()


def test_hog_ignores_brightness_and_contrast():
    plane = np.random.default_rng(0).integers(0, 100, (12, 12)).repeat(8, axis=0).repeat(8, axis=1)
    one, other = of("hog", grey(plane)), of("hog", grey(2 * plane + 50))
    # Block norms have a small constant in the denominator, so contrast cancels only nearly.
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_hog_of_a_uniform_image_is_zero():
    assert not of("hog", np.full((50, 50, 3), 90, np.uint8)).any()


@pytest.mark.parametrize("name", ["mfcc", "ltas"])
@pytest.mark.parametrize("gain", [0.5, 0.01, 1e-4])
def test_voice_encoder_ignores_loudness(name, gain):
    clip = buzz()
    # 1e-3 of values around 10 to 100 dB: what is left is float32 rounding.
    np.testing.assert_allclose(of(name, clip * np.float32(gain)), of(name, clip), atol=1e-3)


# librosa 0.11.0: feature.mfcc(y=util.normalize(buzz()), sr=16000, n_mfcc=21, n_fft=512, hop_length=160, n_mels=40)[1:],
# mean and standard deviation over frames.
LIBROSA = [
    112.1614, 10.6701, 24.0229, 6.0101, 11.6055, 1.6628, 5.5467, -0.1949, 2.1771, -0.8727,
    -0.3333, -0.9197, -1.4801, -0.8812, -2.8146, -0.7743, -2.8177, -1.0322, -3.1618, -1.2993,
    6.0825, 5.2196, 4.7355, 4.1149, 3.4682, 2.8556, 2.2363, 1.7329, 1.2401, 0.8704,
    0.5494, 0.2991, 0.3671, 0.4142, 0.6458, 0.6767, 0.7996, 0.7808, 0.8111, 0.7137,
]  # fmt: skip


def test_mfcc_equals_librosa():
    np.testing.assert_allclose(of("mfcc", buzz()), LIBROSA, atol=1e-4)  # stored to four decimals


@pytest.mark.parametrize(("hertz", "band"), [(500, 6), (1000, 13), (4000, 31)])
def test_frequency_falls_in_its_mel_band(hertz, band):
    # Band k is centred at k + 1 steps of 45.245 / 41 mel; 500 Hz is 6.8 steps, 1 kHz 13.6, 4 kHz 31.9.
    assert mfcc.mel_filters()[:, hertz * mfcc.N_FFT // SAMPLING_RATE].argmax() == band


def test_mfcc_cannot_use_silence():
    assert np.isnan(of("mfcc", np.zeros(SAMPLING_RATE, np.float32))).all()


def test_mfcc_deviation_is_larger_for_a_clip_that_changes():
    steady = np.sin(2 * np.pi * 300 * TIME).astype(np.float32)
    changing = np.sin(2 * np.pi * (300 + 2000 * TIME) * TIME).astype(np.float32)
    inner = slice(mfcc.N_COEFFICIENTS, None)
    assert of("mfcc", steady)[inner].mean() < 0.5 * of("mfcc", changing)[inner].mean()


@pytest.mark.parametrize("hertz", [500, 1000, 4000])
def test_ltas_of_a_sine_peaks_at_its_bin(hertz):
    spectrum = of("ltas", np.sin(2 * np.pi * hertz * TIME).astype(np.float32))
    assert spectrum.argmax() == hertz * ltas.WINDOW // SAMPLING_RATE


def test_ltas_of_white_noise_is_flat():
    noise = 0.1 * np.random.default_rng(0).normal(size=5 * SAMPLING_RATE).astype(np.float32)
    # About 310 half-overlapping windows: a bin scatters by 0.33 dB. The two ends are halved or without their mean.
    assert np.abs(of("ltas", noise)[2:-2]).max() < 1.5


def test_ltas_has_mean_zero():
    assert of("ltas", buzz()).mean() == pytest.approx(0, abs=1e-4)


def test_ltas_of_a_clip_and_of_the_clip_twice_are_alike():
    clip = buzz()
    np.testing.assert_allclose(of("ltas", np.tile(clip, 2)), of("ltas", clip), atol=1.5)


def test_ltas_cannot_use_a_constant_clip():
    assert np.isnan(of("ltas", np.full(SAMPLING_RATE, 0.3, np.float32))).all()
