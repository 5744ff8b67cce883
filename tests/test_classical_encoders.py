"""pixels, hog, mfcc, ltas: what each says of samples whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from encsel.core import SAMPLING_RATE, Vectors
from encsel.encoders import hog, ltas, mfcc, pixels
from encsel.loading.registry import encoder_families

TIME = np.arange(SAMPLING_RATE) / SAMPLING_RATE


def of(name: str, sample: np.ndarray) -> Vectors:
    (vector,) = encoder_families()[name].load()([sample])
    return vector


def grey(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[..., None], 3, axis=2).astype(np.uint8)


def voiced(seed: int = 0) -> np.ndarray:
    """A buzz with falling harmonics that swells four times a second, over faint noise."""
    buzz = sum(np.sin(2 * np.pi * 150 * k * TIME) / k**2 for k in range(1, 40))
    clip = buzz * (1.2 + np.sin(2 * np.pi * 4 * TIME))
    return (clip / np.abs(clip).max() + 1e-4 * np.random.default_rng(seed).normal(size=len(TIME))).astype(np.float32)


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
    clip = voiced()
    # 1e-3 of values around 10 to 100 dB: what is left is float32 rounding.
    np.testing.assert_allclose(of(name, clip * np.float32(gain)), of(name, clip), atol=1e-3)


def test_mfcc_is_mean_and_deviation_of_the_cosine_transform_of_log_mel_power():
    import librosa
    from scipy.fft import dct

    clip = voiced() / np.abs(voiced()).max()
    mel = librosa.feature.melspectrogram(
        y=clip, sr=SAMPLING_RATE, n_fft=mfcc.N_FFT, hop_length=mfcc.HOP, n_mels=mfcc.N_MELS
    )
    decibel = 10 * np.log10(mel)
    frames = dct(np.maximum(decibel, decibel.max() - 80), axis=0, norm="ortho")[1 : mfcc.N_COEFFICIENTS + 1]
    expected = np.concatenate([frames.mean(axis=1), frames.std(axis=1)])
    np.testing.assert_allclose(of("mfcc", clip), expected, atol=1e-3)


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
    assert of("ltas", voiced()).mean() == pytest.approx(0, abs=1e-4)


def test_ltas_of_a_clip_and_of_the_clip_twice_are_alike():
    clip = voiced()
    np.testing.assert_allclose(of("ltas", np.tile(clip, 2)), of("ltas", clip), atol=1.5)


def test_ltas_cannot_use_a_constant_clip():
    assert np.isnan(of("ltas", np.full(SAMPLING_RATE, 0.3, np.float32))).all()
