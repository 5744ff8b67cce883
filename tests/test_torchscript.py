"""torchscript on small modules whose answers are known: permission to load, inputs, outputs, number types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from encsel.core import SAMPLING_RATE, Encoder, Model, Runtime
from encsel.errors import EncoderFailed, UnusableSample, UsageError
from encsel.loading.fbank import Fbank
from encsel.loading.registry import checked_spec, open_encoders

ALLOWED = Runtime(device="cpu", offline=True, allow_pickle=True)
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore::FutureWarning")]


class Means(nn.Module):
    """The mean of each channel; `form` is what it is returned in."""

    def __init__(self, form: str = "") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))
        self.form = form

    def forward(self, x):
        means = x.mean((2, 3)) @ self.weight
        return {"": means, "four": means[:, :, None, None], "tuple": (means, x), "maps": x, "two": (means, means)}[
            self.form
        ]


class Levels(nn.Module):
    """The mean of what is above zero, over time."""

    def forward(self, x):
        return torch.relu(x).mean(1) if x.dim() == 3 else torch.stack([x.abs().mean(1), x.abs().amax(1)], 1)


def save(path: Path, module: nn.Module, *shape: int) -> Path:
    torch.jit.save(torch.jit.trace(module, torch.zeros(2, *shape)), str(path))
    return path


def opened(spec: object, modality: str = "face", runtime: Runtime = ALLOWED, family: str = "torchscript:") -> Encoder:
    (encoder,) = open_encoders(checked_spec(f"{family}{spec}", modality), runtime)
    return encoder


def embedded(model: Model, *samples: np.ndarray) -> np.ndarray:
    return model.embed([model.prepare(sample) for sample in samples])[:, 0]


def picture(seed: int = 0, side: int = 112) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 128, (side, side, 3)) + np.array([0, 60, 120])).astype(np.uint8)


def clip(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLING_RATE)).astype(np.float32)


@pytest.fixture
def face(tmp_path) -> Path:
    return save(tmp_path / "face.pt", Means(), 3, 112, 112)


def test_code_is_loaded_only_where_pickles_are_allowed(face, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(EncoderFailed, match=r"weights_only\). Pass --allow-pickle"):
        opened(face, runtime=Runtime(device="cpu"))


def test_file_of_weights_alone_is_refused_with_the_reason(tmp_path):
    torch.save(Means().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(EncoderFailed, match=r"weights.pt is not TorchScript. Weights alone"):
        opened(tmp_path / "weights.pt")
    with pytest.raises(EncoderFailed, match="there is no file"):
        opened(tmp_path / "absent.pt")


def test_face_is_prepared_as_options_say(face):
    images = picture(0), picture(1)
    means = np.array([image.reshape(-1, 3).mean(axis=0) for image in images])
    encoder = opened(face)
    assert encoder.dim == 3
    np.testing.assert_allclose(embedded(encoder.load(), *images), (means - 127.5) / 127.5, rtol=0, atol=1e-5)
    assert encoder.flags == (
        "no detection: images taken as aligned crops",
        "input side not stated: 112 pixels assumed",
    )
    bgr = opened(f"{face}@size=64,colour=bgr,mean=10,std=2+4+8")
    assert bgr.preprocessing["input"] == "nchw, 64x64"
    assert len(bgr.flags) == 1
    prepared = bgr.load().prepare(picture(0, 64))
    np.testing.assert_allclose(prepared, ((picture(0, 64)[..., ::-1] - 10.0) / [2, 4, 8]).transpose(2, 0, 1), rtol=1e-6)


@pytest.mark.parametrize("form", ["four", "tuple"])
def test_vector_is_found_among_axes_of_one_and_other_outputs(tmp_path, form):
    expected = embedded(opened(save(tmp_path / "a.pt", Means(), 3, 112, 112)).load(), picture())
    found = embedded(opened(save(tmp_path / "b.pt", Means(form), 3, 112, 112)).load(), picture())
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("form", ["maps", "two"])
def test_output_that_is_no_vector_is_refused_with_the_shapes(tmp_path, form):
    path = save(tmp_path / "a.pt", Means(form), 3, 112, 112)
    with pytest.raises(EncoderFailed, match=r"returns float32 \(1, 3.*one output of floats of shape \(N, dim\)"):
        opened(path)


def test_number_type_is_that_of_the_runtime_and_in_the_description(face):
    half = opened(f"{face}@dtype=bfloat16")
    assert half.preprocessing["dtype"] == "bfloat16"
    exact, coarse = (embedded(encoder.load(), picture()) for encoder in (opened(face), half))
    assert coarse.dtype == np.float32
    assert 0 < np.abs(coarse - exact).max() < 0.02


def test_samples_and_features_reach_a_voice_model(tmp_path):
    path = save(tmp_path / "wave.pt", Levels(), 16_000)
    clips = clip(), clip(1.0, 1)
    encoder = opened(path, "voice")
    expected = [[np.abs(c).mean(), np.abs(c).max()] for c in clips]
    np.testing.assert_allclose(embedded(encoder.load(), *clips), expected, rtol=1e-5)
    features = opened(f"{save(tmp_path / 'fbank.pt', Levels(), 98, 80)}@features=fbank80", "voice")
    assert features.dim == 80
    expected = [np.maximum(Fbank(80)(c), 0).mean(axis=0) for c in clips]
    np.testing.assert_allclose(embedded(features.load(), *clips), expected, rtol=0, atol=1e-5)
    assert features.libraries == ("torch", "kaldi-native-fbank")
    with pytest.raises(UsageError, match="waveform, fbank80"):
        opened(f"{path}@features=mfcc", "voice")


def test_clip_too_short_for_the_module_is_refused(tmp_path):
    layers = nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 4, 2, dilation=7999), nn.AdaptiveAvgPool1d(1), nn.Flatten()
    model = opened(save(tmp_path / "long.pt", nn.Sequential(*layers), 16_000), "voice").load()
    assert len(model.prepare(clip(0.62))) == 9600
    with pytest.raises(UnusableSample, match=r"at least 0.5 s"):
        model.prepare(clip(0.49))


def test_file_named_alone_is_of_the_modality_that_is_asked_for(face):
    assert opened(face, family="").family == "torchscript"
    with pytest.raises(UsageError, match="Say which, with --modality"):
        open_encoders(checked_spec(str(face)), ALLOWED)
