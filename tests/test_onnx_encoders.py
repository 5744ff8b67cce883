"""onnx on small graphs whose answers are known: every input, normalisation and output that is read, and refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import onnx
import onnx.parser
import onnxruntime
import PIL.Image
import pytest
from onnx_models import write_channel_means, write_detector

from encsel.core import SAMPLING_RATE, Encoder, Model, Runtime
from encsel.errors import EncoderFailed, UnusableSample, UsageError
from encsel.loading import onnx_files
from encsel.loading.registry import checked_spec, open_encoders

OFFLINE = Runtime(device="cpu", offline=True)
MEANS = "y = ReduceMean <axes = [2, 3], keepdims = 0> ({})"


def save(path: Path, inputs: str, body: str, outputs: str = "float[n, d] y", properties: dict | None = None) -> Path:
    """An ONNX file from the text of its graph."""
    text = f'<ir_version: 9, opset_import: ["": 17]> g ({inputs}) => ({outputs}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for key, value in (properties or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


def opened(spec: object, modality: str = "face", runtime: Runtime = OFFLINE, family: str = "onnx:") -> Encoder:
    (encoder,) = open_encoders(checked_spec(f"{family}{spec}", modality), runtime)
    return encoder


def embedded(model: Model, *samples: np.ndarray) -> np.ndarray:
    return model.embed([model.prepare(sample) for sample in samples])[:, 0]


def picture(seed: int = 0, height: int = 112, width: int = 112) -> np.ndarray:
    """Noise whose red, green and blue differ in level."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 128, (height, width, 3)) + np.array([0, 60, 120])).astype(np.uint8)


def colour_means(*pictures: np.ndarray) -> np.ndarray:
    return np.array([p.reshape(-1, 3).mean(axis=0) for p in pictures])


# --- faces: inputs


@pytest.mark.parametrize(
    ("inputs", "body", "options"),
    [
        ("float[n, 3, 112, 112] x", MEANS.format("x"), ""),
        ("float[1, 3, 112, 112] x", MEANS.format("x"), ""),
        ("float[4, 3, 112, 112] x", MEANS.format("x"), ""),
        ("float[n, 3, h, w] x", MEANS.format("x"), "@size=112"),
        ("float[n, c, h, w] x", MEANS.format("x"), "@size=112"),
        ("float[n, 112, 112, 3] x", "y = ReduceMean <axes = [1, 2], keepdims = 0> (x)", ""),
        ("float[n, h, w, c] x", "y = ReduceMean <axes = [1, 2], keepdims = 0> (x)", "@size=112,layout=nhwc"),
        ("float16[n, 3, 112, 112] x", f"z = Cast <to = 1> (x) {MEANS.format('z')}", ""),
        ("float16[n, 3, 112, 112] x", f"z = Cast <to = 1> (x) m = {MEANS[4:].format('z')} y = Cast <to = 10> (m)", ""),
    ],
)
def test_input_of_any_batch_layout_and_number_type(tmp_path, inputs, body, options):
    kind = "float16" if "to = 10" in body else "float"
    path = save(tmp_path / "m.onnx", inputs, body, f"{kind}[n, 3] y")
    images = [picture(seed) for seed in range(6)]
    vectors = embedded(opened(f"{path}{options}").load(), *images)
    assert vectors.dtype == np.float32
    # Of float16, the normalised pixels have 11 bits.
    tolerance = 1e-3 if "float16" in inputs else 1e-5
    np.testing.assert_allclose(vectors, (colour_means(*images) - 127.5) / 127.5, rtol=0, atol=tolerance)


def test_bytes_are_given_as_they_are(tmp_path):
    path = save(tmp_path / "m.onnx", "uint8[n, 3, 112, 112] x", f"z = Cast <to = 1> (x) {MEANS.format('z')}")
    encoder = opened(path)
    np.testing.assert_allclose(embedded(encoder.load(), picture()), colour_means(picture()), rtol=1e-5)
    assert encoder.preprocessing["scale"] == "bytes"
    with pytest.raises(UsageError, match="without mean and std"):
        opened(f"{path}@mean=0")


def test_vectors_are_those_of_onnxruntime_called_by_hand(tmp_path):
    image = picture(height=150, width=90)
    path = save(tmp_path / "m.onnx", "float[n, 3, 128, 96] x", "s = AveragePool <kernel_shape = [32, 32], strides = "
                "[32, 32]> (x) y = Flatten (s)")  # fmt: skip
    resized = np.asarray(PIL.Image.fromarray(image).resize((96, 128), PIL.Image.Resampling.BILINEAR))
    scaled = ((resized[..., ::-1] - np.float32([1, 2, 3])) / np.float32([4, 5, 6])).transpose(2, 0, 1)[None]
    (expected,) = onnxruntime.InferenceSession(path).run(None, {"x": scaled})
    encoder = opened(f"{path}@colour=bgr,mean=1+2+3,std=4+5+6")
    np.testing.assert_allclose(embedded(encoder.load(), image), expected, rtol=0, atol=1e-6)
    assert encoder.dim == 36
    assert encoder.preprocessing == {
        "backend": "onnxruntime", "dtype": "float32", "output": "y", "input": "nchw, 128x96", "colour": "bgr",
        "mean": "1.0+2.0+3.0", "std": "4.0+5.0+6.0", "resize": "Pillow, bilinear, to the input's height and width",
    }  # fmt: skip
    assert encoder.flags == ("no detection: images taken as aligned crops",)
    assert encoder.libraries == ("onnxruntime",)


@pytest.mark.parametrize(
    ("body", "white"),
    [
        ("a = Sub (x, c127) z = Mul (a, c_01)", 255),
        ("c = Constant <value = float {127.5}> () a = Sub (x, c) z = Div (a, c127)", 255),
        ("a = Add (minus, x) z = Mul (c_01, a)", 255),
        ("p = Cast <to = 1> (x) q = Identity (p) b = Div (q, c255) a = Sub (b, c_45) z = Div (a, c_22)", 255),
        ("k = Shape (x) z = Div (x, c255)", 255),
        ("a = Sub (x, c_45) z = Div (a, c_22)", 1),
        ("a = Add (x, c1) z = Mul (a, c_45)", None),  # of -1 to 1
        ("r = Relu (x) a = Sub (r, c127) z = Mul (a, c_01)", None),
        ("a = Sub (c127, x) z = Mul (a, c_01)", None),
        ("r = Relu (x) a = Sub (x, r) z = Mul (a, c_01)", None),
        ("e = Exp (c1) a = Sub (x, e) z = Mul (a, e)", 255),  # constants that cannot be read: as insightface
    ],
)
def test_input_is_normalised_once(tmp_path, body, white):
    text = f"""<ir_version: 9, opset_import: ["": 17]>
        g (float[n, 3, 112, 112] x) => (float[n, 3] y)
        <float minus = {{-127.5}}, float c1 = {{1.0}}, float c127 = {{127.5}}, float c255 = {{255.0}},
         float c_45 = {{0.45}},
         float c_22 = {{0.22}}, float c_01 = {{0.0078125}}> {{ {body} {MEANS.format("z")} }}"""
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    encoder = opened(path)
    expected = {255: ("0.0", "1.0"), 1: ("0.0", "255.0"), None: ("127.5", "127.5")}[white]
    assert (encoder.preprocessing["mean"], encoder.preprocessing["std"]) == expected
    pixels = picture().transpose(2, 0, 1)[None].astype(np.float32)
    given = (pixels - np.float32(expected[0])) / np.float32(expected[1])
    (by_hand,) = onnxruntime.InferenceSession(path).run(None, {"x": given})
    np.testing.assert_allclose(embedded(encoder.load(), picture()), by_hand, rtol=0, atol=1e-6)
    # arcface, too, even where insightface does not know it by the names of the nodes.
    arcface = opened(path, family="arcface:")
    np.testing.assert_allclose(embedded(arcface.load(), picture()), by_hand, rtol=1e-5, atol=1e-5)


def test_options_come_before_what_the_graph_says(tmp_path):
    body = f"c = Constant <value = float {{99.0}}> () a = Sub (x, c) z = Mul (a, c) {MEANS.format('z')}"
    path = save(tmp_path / "m.onnx", "float[n, 3, 112, 112] x", body)
    assert opened(path).preprocessing["std"] == "1.0"
    assert opened(f"{path}@std=2").preprocessing["std"] == "2.0"


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        ("float[n, 3, h, w] x", "", UsageError, r"does not tell the size of its input.*@size=112"),
        ("float[n, 3, 112, 112] x", "size=160", UsageError, r"112x112 pixels, not 160"),
        ("float[n, 3, 112, 112] x", "size=big", UsageError, "number of pixels of a side"),
        ("float[n, 3, 112, 112] x", "mean=1+2", UsageError, r"a number, or three such as 123.7\+116.3\+103.5"),
        ("float[n, 3, 112, 112] x", "std=none", UsageError, "a number, or three"),
        ("float[n, 3, 112, 112] x", "std=0", UsageError, "std must be above 0"),
        ("float[n, 3, 112, 112] x", "colour=grey", UsageError, "must be rgb or bgr"),
        ("float[n, 3, 112, 112] x", "align=yes", UsageError, "must be none or arcface"),
        ("float[n, 3, 112, 112] x", "layout=nhwc", EncoderFailed, r"it takes float32 \(\?, 3, 112, 112\)"),
        ("float[n, 3, 112, 112] x", "revision=main", UsageError, "is not on the hub"),
        ("float[n, 3, 112, 112] x", "dtype=bfloat16", EncoderFailed, "in the number types of their file"),
        ("float[n, 1, 112, 112] x", "", EncoderFailed, r"it takes float32 \(\?, 1, 112, 112\)"),
        ("double[n, 3, 112, 112] x", "", EncoderFailed, "it takes float64"),
        ("float[n, 3, 112] x", "", EncoderFailed, r"it takes float32 \(\?, 3, 112\)"),
        ("float[n, 3, 112, 112] x, float[n] t", "", EncoderFailed, "one input is needed, the picture"),
    ],
)
def test_unfit_input_or_option_is_refused_with_what_to_do(tmp_path, inputs, options, error, message):
    path = save(tmp_path / "m.onnx", inputs, "y = Flatten (x)")
    with pytest.raises(error, match=message):
        opened(f"{path}@{options}" if options else path)


# --- outputs


@pytest.mark.parametrize(
    ("body", "outputs", "name"),
    [
        ("y = ReduceMean <axes = [2, 3], keepdims = 1> (x)", "float[n, 3, 1, 1] y", "y"),
        ("m = ReduceMean <axes = [2, 3], keepdims = 0> (x) a = Constant <value_ints = [1]> () y = Unsqueeze (m, a)",
         "float[n, 1, 3] y", "y"),
        (MEANS.format("x"), "float[1, 3] y", "y"),  # a declared batch that is wrong, as in w600k_r50
        (MEANS.format("x"), "float[n, d] y", "y"),
        ("y = ReduceMean <axes = [2, 3], keepdims = 1> (x)", "float[n, d, a, b] y", "y"),
        (f"{MEANS.format('x')} p = Relu (x) l = Shape (x)", "float[n, 3, 112, 112] p, float[n, 3] y, int64[4] l", "y"),
    ],
)  # fmt: skip
def test_axes_of_length_one_are_left_out_and_the_fixed_vector_is_taken(tmp_path, body, outputs, name):
    encoder = opened(save(tmp_path / "m.onnx", "float[n, 3, 112, 112] x", body, outputs))
    assert (encoder.dim, encoder.preprocessing["output"]) == (3, name)
    images = picture(0), picture(1)
    expected = (colour_means(*images) - 127.5) / 127.5
    np.testing.assert_allclose(embedded(encoder.load(), *images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "outputs", "message"),
    [
        ("y = Relu (x)", "float[n, 3, 112, 112] y", r"gives y float32 \(\?, 3, 112, 112\)"),
        ("y = Relu (x)", "float[n, a, b, c] y", r"returns float32 \(1, 3, 112, 112\) for 1 samples"),
        ("y = Shape (x)", "int64[4] y", r"gives y int64 \(4\)"),
        ("y = ReduceMean <axes = [1, 2, 3], keepdims = 0> (x)", "float[n] y", r"gives y float32 \(\?\)"),
        (f"{MEANS.format('x')} z = Relu (y)", "float[n, 3] y, float[n, 3] z", r"y float32 \(\?, 3\), z float32"),
        (f"{MEANS.format('x')} z = Relu (x)", "float[n, d] y, float[n, 3, h, w] z", "one output of floats"),
    ],
)
def test_output_that_is_no_vector_is_refused_with_the_shapes(tmp_path, body, outputs, message):
    path = save(tmp_path / "m.onnx", "float[n, 3, 112, 112] x", body, outputs)
    with pytest.raises(EncoderFailed, match=message):
        opened(path)


# --- files


def with_data(folder: Path, location: str = "m.onnx.data") -> Path:
    """A model that keeps its weights in another file."""
    folder.mkdir(exist_ok=True)
    path = folder / "m.onnx"
    weights = onnx.numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4), "w")
    model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["": 17]> g (float[n, 3, 112, 112] x) => '
                                    "(float[n, 4] y) { m = ReduceMean <axes = [2, 3], keepdims = 0> (x) "
                                    "y = MatMul (m, w) }")  # fmt: skip
    model.graph.initializer.append(weights)
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location="m.onnx.data")
    content = onnx.load(path, load_external_data=False)
    for entry in content.graph.initializer[0].external_data:
        entry.value = location if entry.key == "location" else entry.value
    path.write_bytes(content.SerializeToString())
    return path


def test_weights_in_another_file_of_the_folder_are_hashed_and_used(tmp_path):
    path = with_data(tmp_path / "a")
    encoder = opened(path.parent)
    assert set(encoder.weights) == {"m.onnx", "m.onnx.data"}
    expected = (colour_means(picture()) - 127.5) / 127.5 @ np.arange(12).reshape(3, 4)
    np.testing.assert_allclose(embedded(encoder.load(), picture()), expected, rtol=1e-5)
    data = path.parent / "m.onnx.data"
    data.write_bytes(data.read_bytes()[::-1])
    assert opened(path).weights["m.onnx.data"] != encoder.weights["m.onnx.data"]


@pytest.mark.parametrize("location", ["../b/m.onnx.data", "{root}/b/m.onnx.data", "sub/m.onnx.data", "link", "", ".."])
def test_weights_outside_the_folder_are_refused(tmp_path, location):
    with_data(tmp_path / "b")
    path = with_data(tmp_path / "a", location.format(root=tmp_path))
    (tmp_path / "a" / "sub").mkdir()
    shutil.copy(tmp_path / "a" / "m.onnx.data", tmp_path / "a" / "sub")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b" / "m.onnx.data")
    with pytest.raises(EncoderFailed, match="not a file of its own folder"):
        opened(path)


def test_weights_that_are_not_there_are_missed_before_anything_runs(tmp_path):
    path = with_data(tmp_path / "a")
    (tmp_path / "a" / "m.onnx.data").unlink()
    with pytest.raises(EncoderFailed, match=r"keeps weights in m.onnx.data, which is missing"):
        opened(path)


def test_file_of_the_hub_is_found_through_the_links_of_its_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    home, commit = tmp_path / "hub" / "models--acme--face", "0" * 40
    blobs, snapshot = home / "blobs", home / "snapshots" / commit / "onnx"
    for folder in (blobs, snapshot, home / "refs"):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    source = with_data(tmp_path / "a")
    for i, (name, target) in enumerate({"model.onnx": source, "m.onnx.data": source.with_name("m.onnx.data")}.items()):
        target.rename(blobs / str(i))
        (snapshot / name).symlink_to(blobs / str(i))
    encoder = opened("acme/face")
    assert (encoder.revision, set(encoder.weights)) == (commit, {"model.onnx", "m.onnx.data"})
    assert embedded(encoder.load(), picture()).shape == (1, 4)


def test_folder_must_hold_one_file(tmp_path):
    with pytest.raises(EncoderFailed, match=r"holds 0 .onnx files; one is needed, or onnx/model.onnx"):
        opened(tmp_path)
    for name in ("a.onnx", "b.onnx"):
        write_channel_means(tmp_path / name)
    with pytest.raises(EncoderFailed, match=r"holds 2 .onnx files \(a.onnx, b.onnx\)"):
        opened(tmp_path)


@pytest.mark.parametrize("installed", [True, False])
def test_family_is_told_by_the_axes_of_the_input(tmp_path, monkeypatch, installed):
    face = write_channel_means(tmp_path / "face.onnx")
    voice = save(tmp_path / "voice.onnx", "float[n, t] x", "y = ReduceMean <axes = [1]> (x)", "float[n, 1] y")
    pack = tmp_path / "pack"
    pack.mkdir()
    write_channel_means(pack / "rec.onnx")
    write_detector(pack / "det.onnx", [])
    assert onnx_files.has_input_axes(face, 4)
    assert opened(face, family="").family == "onnx"
    assert opened(face, family="arcface:").family == opened(pack, family="").family == "arcface"
    # Without onnx any such file may be of either, so that the missing package is named.
    monkeypatch.setattr(onnx_files, "is_installed", lambda module: installed)
    assert onnx_files.has_input_axes(voice, 2, 3)
    assert onnx_files.has_input_axes(voice, 4) is not installed
    assert not onnx_files.has_input_axes(pack, 4)
    (tmp_path / "text.pt").write_text("no model")
    assert not onnx_files.has_input_axes(tmp_path / "text.pt", 4)


# --- alignment


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The folder where insightface keeps its packs."""
    models = tmp_path / "home" / ".insightface" / "models"
    models.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return models


def test_faces_are_aligned_with_the_detector_of_insightface(tmp_path, home, no_network):
    pack = home / "buffalo_l"
    pack.mkdir()
    write_detector(pack / "det.onnx", [(8, 8, 120, 120)])
    write_channel_means(pack / "rec.onnx")
    path = write_channel_means(tmp_path / "m.onnx")
    encoder = opened(f"{path}@align=arcface")
    image = picture(height=128, width=128)
    expected = (colour_means(image[8:120, 8:120]) - 127.5) / 127.5
    np.testing.assert_allclose(embedded(encoder.load(), image), expected, rtol=0, atol=1e-6)
    assert encoder.flags == ()
    assert {"insightface", "opencv-python", "onnxruntime"} <= set(encoder.libraries)
    assert encoder.preprocessing["alignment"] == "five points, norm_crop"
    before = encoder.preprocessing["detector"]
    write_detector(pack / "det.onnx", [])
    other = opened(f"{path}@align=arcface")
    assert other.preprocessing["detector"] != before
    with pytest.raises(UnusableSample, match="no face found"):
        other.load().prepare(image)


def test_alignment_without_a_detector_says_how_to_get_one(tmp_path, home, no_network):
    path = write_channel_means(tmp_path / "m.onnx")
    with pytest.raises(EncoderFailed, match=r"is not on this machine.*encsel encoders fetch arcface"):
        opened(f"{path}@align=arcface", runtime=Runtime(device="cpu"))


# --- voices


def clip(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = round(seconds * SAMPLING_RATE)
    tone = np.sin(2 * np.pi * (150 + 40 * seed) * np.arange(n) / SAMPLING_RATE)
    return (0.3 * tone + 0.05 * rng.normal(size=n)).astype(np.float32)


def fbank(samples: np.ndarray, *, window: str = "hamming", scale: int = 32768, bins: int = 80) -> np.ndarray:
    """By kaldi_native_fbank, called by hand."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither, options.frame_opts.window_type, options.mel_opts.num_bins = 0, window, bins
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(16000, samples * scale)
    computer.input_finished()
    features = np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])
    return features - features.mean(axis=0)


LEVEL = "r = Relu ({0}) y = ReduceMean <axes = [{1}], keepdims = 0> (r)"


@pytest.mark.parametrize(
    ("inputs", "axis", "options", "recipe"),
    [
        ("float[n, t, 80] x", 1, "", {}),
        ("float[n, 80, t] x", 2, "", {}),
        ("float[1, t, 40] x", 1, "", {"bins": 40}),
        ("float[n, t, f] x", 1, "@features=fbank24", {"bins": 24}),
        ("float[n, 80, 198] x", 2, "@features=fbank80", {}),
        ("float[n, t, 80] x", 1, "@features=fbank80-3dspeaker", {"window": "povey", "scale": 1}),
    ],
)
def test_features_are_those_of_kaldi_called_by_hand(tmp_path, inputs, axis, options, recipe):
    path = save(tmp_path / "m.onnx", inputs, LEVEL.format("x", axis))
    encoder = opened(f"{path}{options}", "voice")
    samples = clip(2.0)
    n = 32_000 if "198" not in inputs else 400 + 197 * 160
    expected = np.maximum(fbank(samples[:n], **recipe), 0).mean(axis=0)
    np.testing.assert_allclose(embedded(encoder.load(), samples)[0], expected, rtol=0, atol=1e-5)
    assert encoder.dim == recipe.get("bins", 80)
    window, scale = recipe.get("window", "hamming"), recipe.get("scale", 32768)
    assert f"{window} window, no dither" in encoder.preprocessing["features"]
    assert f"samples times {scale};" in encoder.preprocessing["features"]
    assert "kaldi-native-fbank" in encoder.libraries


def test_model_of_3dspeaker_says_so_in_its_file(tmp_path):
    path = save(tmp_path / "m.onnx", "float[n, t, 80] x", LEVEL.format("x", 1), properties={"framework": "3d-speaker"})
    assert "povey window" in opened(path, "voice").preprocessing["features"]
    assert "hamming window" in opened(f"{path}@features=fbank80", "voice").preprocessing["features"]


def test_features_of_another_toolkit_are_not_guessed(tmp_path):
    path = save(tmp_path / "m.onnx", "float[n, 80, t] x", LEVEL.format("x", 2), properties={"framework": "nemo"})
    with pytest.raises(UsageError, match=r"it is of nemo.*add @features=fbank80"):
        opened(path, "voice")
    assert opened(f"{path}@features=fbank80", "voice").dim == 80


def test_features_are_those_of_wespeaker_and_3dspeaker_as_published():
    torch = pytest.importorskip("torch")
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    from encsel.loading.fbank import Fbank

    wave = torch.from_numpy(clip())[None]
    wespeaker = kaldi.fbank(wave * 32768, num_mel_bins=80, dither=0.0, window_type="hamming", use_energy=False)
    of_3dspeaker = kaldi.fbank(wave, num_mel_bins=80, sample_frequency=16000, dither=0)
    for features, published in {Fbank(80): wespeaker, Fbank(80, of_3dspeaker=True): of_3dspeaker}.items():
        expected = (published - published.mean(0)).numpy()
        # Two implementations in float32 of a logarithm of powers.
        np.testing.assert_allclose(features(clip()), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("inputs", "axis", "options"),
    [
        ("float[n, t] x", 1, ""),
        ("float[n, 1, t] x", 2, ""),
        ("float[n, c, t] x", 2, "@features=waveform"),
        ("float16[2, t] x", 1, ""),
    ],
)
def test_samples_reach_the_model_as_they_are(tmp_path, inputs, axis, options):
    cast = "z = Cast <to = 1> (x) r = Abs (z) "
    mean = f"y = ReduceMean <axes = [{axis}], keepdims = {2 - axis}> (r)"
    max_ = f"m = ReduceMax <axes = [{axis}], keepdims = {2 - axis}> (r) v = Concat <axis = 1> (y, m)"
    path = save(tmp_path / "m.onnx", inputs, cast + mean + max_, "float[n, 2] v")
    encoder = opened(f"{path}{options}", "voice")
    clips = [clip(1.0, seed) for seed in range(3)]
    expected = [[np.abs(c).mean(), np.abs(c).max()] for c in clips]
    np.testing.assert_allclose(embedded(encoder.load(), *clips), expected, rtol=1e-3 if "16" in inputs else 1e-5)
    assert encoder.preprocessing["features"] == "samples in [-1, 1]"
    assert encoder.libraries == ("onnxruntime",)


@pytest.mark.parametrize(("features", "unit"), [("float[n, t] x", SAMPLING_RATE), ("float[n, t, 80] x", 98)])
@pytest.mark.parametrize("kind", ["int64", "int32"])
def test_second_input_is_the_length(tmp_path, features, unit, kind):
    body = "f = Cast <to = 1> (l) a = Constant <value_ints = [1]> () u = Unsqueeze (f, a) y = Concat <axis = 1> (u, u)"
    path = save(tmp_path / "m.onnx", f"{features}, {kind}[n] l", body, "float[n, 2] y")
    encoder = opened(path, "voice")
    assert embedded(encoder.load(), clip(), clip(1.0, 1)).tolist() == [[unit, unit]] * 2
    assert encoder.preprocessing["second input"] == "lengths"


def test_clips_are_cut_to_common_lengths_and_too_short_ones_refused(tmp_path):
    body = """w = Constant <value = float[2, 1, 2] {1, 1, 1, -1}> () z = Conv <dilations = [7999]> (x, w)
              y = ReduceMean <axes = [2], keepdims = 0> (z)"""
    path = save(tmp_path / "m.onnx", "float[n, 1, t] x", body)  # it looks at half a second at once
    encoder = opened(path, "voice")
    model = encoder.load()
    assert encoder.equal_lengths
    assert model.prepare(clip(0.62)).shape == (1, 9600)
    assert model.prepare(clip(4.9)).shape == (1, 76_000)
    with pytest.raises(UnusableSample, match=r"0.490 s, at least 0.5 s"):
        model.prepare(clip(0.49))
    assert "shorter clips are refused" in encoder.preprocessing["lengths"]


def test_clips_are_cut_or_repeated_to_a_fixed_length(tmp_path):
    path = save(tmp_path / "m.onnx", "float[n, 12000] x", "y = Identity (x)", "float[n, 12000] y")
    encoder = opened(path, "voice")
    model = encoder.load()
    short = clip(0.5)
    np.testing.assert_array_equal(embedded(model, short)[0], np.concatenate([short, short[:4000]]))
    np.testing.assert_array_equal(embedded(model, clip(1.0))[0], clip(1.0)[:12000])
    assert encoder.preprocessing["lengths"] == "cut to 12000 samples; shorter clips are repeated"


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        ("float[n, t] x", "features=fbank80", UsageError, "not the shape of these features"),
        ("float[n, t, 80] x", "features=fbank40", UsageError, "not the shape of these features"),
        ("float[n, 200, 80] x", "features=fbank40", UsageError, "not the shape of these features"),
        ("float[n, t, 80] x", "features=waveform", UsageError, "not the shape of these features"),
        ("float[n, 200, 80] x", "features=waveform", UsageError, "not the shape of these features"),
        ("float[n, t, f] x", "", UsageError, r"float32 \(\?, \?, \?\); say which features.*@features=fbank80"),
        ("float[n, 200, 80] x", "", UsageError, "say which features"),
        ("float[n, t] x", "features=mfcc", UsageError, "waveform, fbank80 or fbank80-3dspeaker"),
        ("float[n, 1, t, 80] x", "", EncoderFailed, r"it takes float32 \(\?, 1, \?, 80\)"),
        ("int64[n, t] x", "", EncoderFailed, "it takes int64"),
        ("float[n, t] x, float[n] l", "", EncoderFailed, r"its length as int64 \(N\)"),
        ("float[n, t] x, int64[n] l, int64[n] m", "", EncoderFailed, r"its length as int64 \(N\)"),
        ("float[n, t] x", "dtype=float16", EncoderFailed, "in the number types of their file"),
    ],
)
def test_unfit_voice_input_or_option_is_refused_with_what_to_do(tmp_path, inputs, options, error, message):
    path = save(tmp_path / "m.onnx", inputs, "c = Cast <to = 1> (x) y = Flatten (c)", "float[n, 5] y")
    with pytest.raises(error, match=message):
        opened(f"{path}@{options}" if options else path, "voice")


def test_model_that_takes_no_clip_at_all_fails_when_it_is_loaded(tmp_path):
    path = save(tmp_path / "m.onnx", "float[n, t, 200] x", LEVEL.format("x", 1), "float[n, 200] y")
    encoder = opened(path, "voice")
    with pytest.raises(EncoderFailed, match=r"takes no clip of 0.1 to 5 s as 200 log mel bands.*Check features="):
        encoder.load()
