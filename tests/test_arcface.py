"""arcface on tiny ONNX models whose answers are known: colours, faces, alignment, packs, devices, downloads."""

from __future__ import annotations

import http.server
import json
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from insightface.utils import face_align
from onnx_models import Box, write_bright_cell_detector, write_channel_means, write_detector

from encsel.core import Encoder, Model, Runtime
from encsel.encoders import arcface
from encsel.errors import EncoderFailed, NotHere, UnusableSample
from encsel.loading import onnx_files
from encsel.loading.alignment import largest_face
from encsel.loading.registry import open_encoders
from encsel.loading.spec import parse

OFFLINE = Runtime(device="cpu", offline=True)
FULL: Box = (8, 8, 120, 120)
"""In an image of 128 x 128: the aligned crop is this part of it, pixel by pixel."""


def opened(spec: str | Path, runtime: Runtime = OFFLINE) -> Encoder:
    (encoder,) = open_encoders(parse(f"arcface:{spec}"), runtime)
    return encoder


def loaded(spec: str | Path) -> Model:
    return opened(spec).load()


def embedded(model: Model, *images: np.ndarray) -> np.ndarray:
    return model.embed([model.prepare(image) for image in images])[:, 0]


def pack(folder: Path, faces: list[Box], **options) -> Path:
    folder.mkdir(exist_ok=True)
    write_detector(folder / "det.onnx", faces, **options)
    write_channel_means(folder / "rec.onnx")
    return folder


def picture(seed: int = 0, height: int = 128, width: int = 128) -> np.ndarray:
    """Noise whose red, green and blue differ in level."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 128, (height, width, 3)) + np.array([0, 60, 120])).astype(np.uint8)


def channel_means(rgb: np.ndarray) -> np.ndarray:
    return (rgb.reshape(-1, 3).mean(axis=0) - 127.5) / 127.5


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty home, where insightface keeps its packs."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


# What the recognition model is given


def test_aligned_crop_reaches_the_model_in_rgb_and_normalised_once(tmp_path):
    crop = picture(height=112, width=112)
    vectors = embedded(loaded(write_channel_means(tmp_path / "rec.onnx")), crop)
    # 1e-6: the graph averages in float64 what get_feat normalised in float32.
    np.testing.assert_allclose(vectors, channel_means(crop)[None], rtol=0, atol=1e-6)


def test_detected_face_reaches_the_model_in_rgb_and_normalised_once(tmp_path):
    image = picture()
    vectors = embedded(loaded(pack(tmp_path, [FULL])), image)
    np.testing.assert_allclose(vectors, channel_means(image[8:120, 8:120])[None], rtol=0, atol=1e-6)


def test_crop_is_insightfaces_own_alignment_of_the_points(tmp_path):
    image = picture(height=256, width=192)
    model = loaded(pack(tmp_path, [(20, 30, 70, 90)]))
    points = np.array([20, 30]) + face_align.arcface_dst / 112 * np.array([50, 60])
    expected = face_align.norm_crop(image[..., ::-1], (2 * points).astype(np.float32))  # the detector sees 128 of 256
    np.testing.assert_array_equal(model.prepare(image), expected)


def test_bare_model_resizes_as_get_feat_does(tmp_path):
    from insightface.model_zoo import get_model

    path = write_channel_means(tmp_path / "rec.onnx")
    image = picture(height=300, width=170)
    expected = get_model(str(path), providers=["CPUExecutionProvider"]).get_feat(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    np.testing.assert_array_equal(embedded(loaded(path), image), expected)


def test_model_of_a_fixed_batch_of_one_takes_more(tmp_path):
    images = [picture(seed, 112, 112) for seed in range(3)]
    model = loaded(write_channel_means(tmp_path / "rec.onnx", batch=1))
    np.testing.assert_allclose(embedded(model, *images), [channel_means(image) for image in images], atol=1e-6)


def test_model_that_declares_a_batch_of_one_for_its_output_does_not_warn_at_every_batch(tmp_path, capfd):
    path = write_channel_means(tmp_path / "rec.onnx")
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1  # as w600k_r50 does
    onnx.save(model, path)
    assert embedded(loaded(path), picture(), picture(1)).shape == (2, 3)
    assert capfd.readouterr().err == ""


def test_weights_that_are_listed_as_inputs_too_are_no_inputs(tmp_path):
    arcface.write_tiny(tmp_path)
    path = tmp_path / "w_tiny.onnx"
    before = embedded(loaded(path), picture())
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("weights", onnx.TensorProto.FLOAT, [147, 16]))
    onnx.save(model, path)
    # onnxruntime multiplies by weights that could be replaced in another order.
    np.testing.assert_allclose(embedded(loaded(path), picture()), before, rtol=0, atol=1e-5 * np.abs(before).max())


def test_prepare_gives_the_same_crops_from_many_threads(tmp_path):
    model = loaded(pack(tmp_path, [(20, 30, 90, 110)]))
    images = [picture(seed, 100 + seed, 140) for seed in range(24)]
    with ThreadPoolExecutor(8) as pool:
        crops = list(pool.map(model.prepare, images))
    for image, crop in zip(images, crops, strict=True):
        np.testing.assert_array_equal(crop, model.prepare(image))


# Which face, and none


def test_detector_of_any_size_looks_at_both_stated_sizes(tmp_path):
    write_bright_cell_detector(tmp_path / "det.onnx")
    write_channel_means(tmp_path / "rec.onnx")
    encoder = opened(tmp_path)
    assert encoder.preprocessing["detection sides"] == "128, 640"
    model = encoder.load()
    unit = face_align.arcface_dst / 112
    small = np.zeros((640, 640, 3), np.uint8)
    small[320:352, 320:352] = 255  # a cell at 640
    expected = face_align.norm_crop(small, (288 + unit * 64).astype(np.float32))
    np.testing.assert_array_equal(model.prepare(small), expected)
    large = np.zeros((640, 640, 3), np.uint8)
    large[160:320, 160:320] = 255  # a cell at 128, where boxes are five times as large
    expected = face_align.norm_crop(large, (0 + unit * 320).astype(np.float32))
    np.testing.assert_array_equal(model.prepare(large), expected)


def test_largest_of_two_faces_is_taken(tmp_path):
    image = picture()
    small, large = (54, 54, 74, 74), (0, 0, 50, 50)  # the small one is at the centre
    alone = loaded(pack(tmp_path / "one", [large])).prepare(image)
    for order, faces in {"ab": [small, large], "ba": [large, small]}.items():
        np.testing.assert_array_equal(loaded(pack(tmp_path / order, faces)).prepare(image), alone)


def test_of_equally_large_faces_the_one_nearest_the_centre_is_taken():
    boxes = np.array([[0, 0, 40, 40, 0.9], [50, 40, 90, 80, 0.6], [80, 80, 120, 120, 0.95]])
    assert largest_face(boxes, (64, 64)) == 1


def test_image_without_a_face_is_refused(tmp_path):
    model = loaded(pack(tmp_path, []))
    with pytest.raises(UnusableSample, match=r"^no face found$"):
        model.prepare(picture())


def test_face_that_fills_the_image_is_found_in_a_black_border(tmp_path):
    bright = picture() | 128
    # In the border of 64 pixels the image is 64..192 of 256, and half of that where the detector looks.
    model = loaded(pack(tmp_path, [(32, 32, 96, 96)], in_black_corner=True))
    bordered = np.pad(bright, ((64, 64), (64, 64), (0, 0)))
    points = 64 + face_align.arcface_dst / 112 * 128
    expected = face_align.norm_crop(bordered[..., ::-1], points.astype(np.float32))
    np.testing.assert_array_equal(model.prepare(bright), expected)
    assert expected.min() > 0  # the face, not the border


def test_face_whose_points_coincide_is_refused(tmp_path):
    model = loaded(pack(tmp_path, [(40, 40, 40, 40)]))
    with pytest.raises(UnusableSample, match="no face found"):
        model.prepare(picture())


@pytest.mark.parametrize("shape", [(16, 5000), (5000, 16), (16, 2048)])
def test_image_too_narrow_for_the_detector_is_refused(tmp_path, shape):
    model = loaded(pack(tmp_path, [FULL]))
    with pytest.raises(UnusableSample, match="no face found"):
        model.prepare(picture(0, *shape))


# What is said of it


def test_dimension_comes_from_the_file(tmp_path):
    assert opened(write_channel_means(tmp_path / "rec.onnx")).dim == 3


def test_preprocessing_says_how_faces_are_found_or_that_they_are_not(tmp_path):
    whole = opened(pack(tmp_path, [FULL]))
    bare = opened(tmp_path / "rec.onnx")
    assert whole.preprocessing["detection sides"] == "128"
    assert "norm_crop" in whole.preprocessing["alignment"]
    assert "border of 50%" in whole.preprocessing["no face"]
    assert bare.preprocessing["alignment"] == "none: crops must be aligned"
    assert bare.flags == ("no detection: images taken as aligned crops",)


def test_one_byte_of_either_model_changes_the_hashes(tmp_path):
    folder = pack(tmp_path, [FULL])
    before = opened(folder).weights
    assert set(before) == {"det.onnx", "rec.onnx"}
    for name in before:
        model = onnx.load(folder / name)
        model.doc_string = "x"
        onnx.save(model, folder / name)
        changed = opened(folder).weights
        assert [key for key in before if before[key] != changed[key]] == [name]
        before = changed


def test_nothing_is_printed_on_stdout_and_no_connection_is_made(tmp_path, capfd, no_network):
    encoder = opened(pack(tmp_path, [FULL]))
    embedded(encoder.load(), picture())
    assert capfd.readouterr().out == ""


# Packs


def test_pack_may_lie_one_folder_deeper(tmp_path):
    pack(tmp_path / "antelopev2", [FULL])
    assert opened(tmp_path).weights == opened(tmp_path / "antelopev2").weights


def test_other_models_of_a_pack_are_left_aside(tmp_path):
    folder = pack(tmp_path, [FULL])
    write_channel_means(folder / "a_landmarks.onnx", side=192)
    write_channel_means(folder / "a_gender.onnx", side=96)
    write_channel_means(folder / "z_second.onnx")
    assert set(opened(folder).weights) == {"det.onnx", "rec.onnx"}


@pytest.fixture
def with_manifest(tmp_path):
    """A pack with a manifest that names this file as the recognition model."""

    def make(recogniser: str = "rec.onnx") -> Path:
        folder = pack(tmp_path / "pack", [FULL])
        (folder / "MODEL.LICENSE").write_text("a test")
        tasks = {
            "detection": {"file": "det.onnx", "preprocessing": {"mean": 127.5, "std": 128.0}},
            "recognition": {"file": recogniser, "preprocessing": {"mean": 0.0, "std": 255.0}},
        }
        manifest = {"manifest_version": 2, "model_id": "tiny", "license": "MODEL.LICENSE", "tasks": tasks}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return make


def test_manifest_of_a_pack_decides_its_preprocessing(with_manifest):
    folder = with_manifest()
    assert list(opened(folder).files) == ["manifest.json"]
    image = picture()
    expected = image[8:120, 8:120].reshape(-1, 3).mean(axis=0) / 255
    np.testing.assert_allclose(embedded(loaded(folder), image)[0], expected, rtol=0, atol=1e-6)


def test_a_manifest_that_names_a_model_of_another_folder_is_refused(with_manifest):
    folder = with_manifest("inner/rec.onnx")
    (folder / "inner").mkdir()
    (folder / "rec.onnx").rename(folder / "inner" / "rec.onnx")
    with pytest.raises(EncoderFailed, match=r"names rec\.onnx of another folder"):
        opened(folder)


def test_a_pack_with_a_manifest_may_be_a_link(with_manifest, tmp_path):
    folder = with_manifest()
    (tmp_path / "link").symlink_to(folder)
    assert opened(tmp_path / "link").weights == opened(folder).weights


def test_pack_in_insightfaces_folder_is_found_by_name(home, no_network):
    models = home / ".insightface" / "models"
    models.mkdir(parents=True)
    pack(models / "buffalo_l", [FULL])
    pack(models / "buffalo_s", [FULL, (0, 0, 20, 20)])
    (default,) = open_encoders(parse("arcface"), OFFLINE)
    assert default.weights == opened("buffalo_l").weights != opened("buffalo_s").weights
    assert "WebFace600K" in default.trained_on
    assert default.name == "arcface"
    assert opened("buffalo_s").trained_on == ""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: None, "holds no .onnx files"),
        (lambda f: [pack(f / "a", []), pack(f / "b", [])], "holds 2 folders with .onnx files"),
        (lambda f: write_channel_means(f / "rec.onnx"), r"holds no detection model \(rec.onnx\)"),
        (lambda f: write_detector(f / "det.onnx", []), "holds no recognition model"),
        (lambda f: (pack(f, [FULL]), (f / "x.onnx").write_bytes(b"not onnx")), "x.onnx cannot be read as ONNX"),
        (lambda f: (pack(f, [FULL]), (f / "x.onnx").write_bytes(b"")), "x.onnx holds no model"),
        (lambda f: (pack(f, []), write_channel_means(f / "rec.onnx", side=160)), "aligned to multiples of 112 or 128"),
        (lambda f: (pack(f, []), (f / "manifest.json").write_text('{"manifest_version": 2}')), "cannot be used"),
    ],
)
def test_folder_that_is_no_pack_says_what_is_wrong(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(EncoderFailed, match=message):
        opened(tmp_path)


def test_detector_without_points_is_refused(tmp_path):
    encoder = opened(pack(tmp_path, [FULL], with_points=False))
    with pytest.raises(EncoderFailed, match="without the five points"):
        encoder.load()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: write_detector(p, []), "is a detector"),
        (lambda p: write_channel_means(p, side=192), "is not a recognition model"),
        (lambda p: write_channel_means(p, side=100), "is not a recognition model"),
        (lambda p: write_channel_means(p, n_outputs=2), "is not a recognition model"),
        (lambda p: write_channel_means(p, batch=4), "no fixed batch above one"),
        (lambda p: p.write_text("text"), "cannot be read as ONNX"),
    ],
)
def test_file_that_is_no_recognition_model_is_refused(tmp_path, write, message):
    path = tmp_path / "model.onnx"
    write(path)
    with pytest.raises(EncoderFailed, match=message):
        opened(path)


def test_truncated_model_is_refused(tmp_path):
    arcface.write_tiny(tmp_path)
    path = tmp_path / "w_tiny.onnx"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(EncoderFailed, match=r"w_tiny.onnx"):
        opened(path)


def test_model_that_onnxruntime_cannot_build_is_refused(tmp_path):
    path = write_channel_means(tmp_path / "rec.onnx")
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, path)
    encoder = opened(path)
    with pytest.raises(EncoderFailed, match=r"rec.onnx does not load in onnxruntime \(.*INVALID_GRAPH"):
        encoder.load()


def test_weights_outside_the_file_are_refused_because_they_would_not_be_hashed(tmp_path):
    arcface.write_tiny(tmp_path)
    model = onnx.load(tmp_path / "w_tiny.onnx")
    onnx.save(model, tmp_path / "apart.onnx", save_as_external_data=True, size_threshold=0, location="apart.data")
    with pytest.raises(EncoderFailed, match="keeps weights in another file"):
        opened(tmp_path / "apart.onnx")


def external(name="elsewhere"):
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="apart.data")
    return tensor


def in_constant(model):
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=external()))


def in_subgraph(model):
    inner = onnx.helper.make_graph([], "inner", [], [], [external()])
    model.graph.node.append(onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))


def in_function(model):
    constant = onnx.helper.make_node("Constant", [], ["c"], value=external())
    model.functions.append(onnx.helper.make_function("own", "f", [], ["c"], [constant], []))


def in_sparse_initializer(model):
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(external())


@pytest.mark.parametrize("put", [in_constant, in_subgraph, in_function, in_sparse_initializer])
def test_weights_outside_the_file_are_found_wherever_a_model_can_hold_them(tmp_path, put):
    arcface.write_tiny(tmp_path)
    model = onnx.load(tmp_path / "w_tiny.onnx")
    put(model)
    (tmp_path / "odd.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EncoderFailed, match="keeps weights in another file"):
        opened(tmp_path / "odd.onnx")


# Networks and devices


@pytest.mark.parametrize("name", ["nowhere/at/all", "w600k_r50.onnx", "no such name"])
def test_absent_path_is_never_looked_for_elsewhere(home, no_network, name):
    with pytest.raises(EncoderFailed, match="There is no folder or file"):
        opened(name, Runtime(device="cpu"))


def test_absent_pack_of_another_name_is_not_downloaded(home, no_network):
    with pytest.raises(EncoderFailed, match=r"insightface-cli model.download buffalo_s"):
        opened("buffalo_s", Runtime(device="cpu"))


def test_default_pack_is_not_downloaded_offline(home, no_network):
    with pytest.raises(EncoderFailed, match=r"\(offline\).*encsel encoders fetch arcface"):
        open_encoders(parse("arcface"), OFFLINE)
    assert not list(home.iterdir())


@pytest.mark.parametrize("spec", ["arcface", "arcface:buffalo_s", "arcface:~/pack", "arcface:nowhere.onnx"])
def test_user_without_a_home_directory_is_an_error_of_the_encoder(monkeypatch, no_network, spec):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(EncoderFailed, match=r"no home directory\. Set HOME|no folder or file") as caught:
        open_encoders(parse(spec), Runtime(device="cpu"))
    # NotHere: unless named, the default is left out like any encoder whose weights are not on this machine.
    assert type(caught.value) is (EncoderFailed if spec.endswith(".onnx") else NotHere)


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A server in the place of insightface's releases; returns the folder it serves."""
    served = tmp_path / "served"
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(served), **kwargs)

        def log_message(self, *_args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("insightface.utils.storage.MODEL_ZOO_RELEASE_DOWNLOAD_URL", url)
        yield served
        server.shutdown()


def test_default_pack_is_downloaded_once_and_silently_on_stdout(home, release, tmp_path, capfd, monkeypatch):
    source = pack(tmp_path / "source", [FULL])
    with zipfile.ZipFile(release / "buffalo_l.zip", "w") as archive:
        for file in source.iterdir():
            archive.write(file, f"buffalo_l/{file.name}")
    (encoder,) = open_encoders(parse("arcface"), Runtime(device="cpu"))
    assert encoder.weights == opened(source).weights
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "buffalo_l" in captured.err
    root = home / ".insightface"
    assert [p.name for p in root.iterdir()] == ["models"]
    assert [p.name for p in (root / "models").iterdir()] == ["buffalo_l"]
    (release / "buffalo_l.zip").unlink()
    assert open_encoders(parse("arcface"), Runtime(device="cpu"))[0].weights == encoder.weights


@pytest.mark.parametrize("content", [None, b"cut off"])
def test_failed_download_leaves_no_pack_behind(home, release, content):
    if content is not None:
        (release / "buffalo_l.zip").write_bytes(content)
    with pytest.raises(EncoderFailed, match="could not be downloaded"):
        open_encoders(parse("arcface"), Runtime(device="cpu"))
    assert not [p for p in home.rglob("*") if "buffalo" in p.name or p.is_file()]


def test_other_number_types_than_float32_are_refused(tmp_path):
    path = write_channel_means(tmp_path / "rec.onnx")
    with pytest.raises(EncoderFailed, match="run in float32, not in bfloat16"):
        opened(path, Runtime(dtype="bfloat16"))
    assert opened(f"{path}@dtype=float32", Runtime(dtype="bfloat16")).preprocessing["dtype"] == "float32"


@pytest.fixture
def cpu_build() -> None:
    import onnxruntime

    if onnx_files.CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")


@pytest.mark.usefixtures("cpu_build")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_device_that_onnxruntime_lacks_is_an_error(tmp_path, device):
    encoder = opened(write_channel_means(tmp_path / "rec.onnx"), Runtime(device=device))
    with pytest.raises(EncoderFailed, match=f"{device!r}"):
        encoder.load()


@pytest.mark.usefixtures("cpu_build")
def test_silent_fallback_to_the_cpu_is_an_error(tmp_path, monkeypatch):
    import onnxruntime

    encoder = opened(write_channel_means(tmp_path / "rec.onnx"), Runtime(device="cuda"))
    # A build that offers CUDA on a machine whose driver does not load: the session then runs on the CPU.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [onnx_files.CUDA, onnx_files.CPU])
    with (
        pytest.warns(UserWarning, match="not in available provider names"),
        pytest.raises(EncoderFailed, match=r"runs on \['CPUExecutionProvider'\], not on the requested device 'cuda'"),
    ):
        encoder.load()


@pytest.mark.parametrize(("device", "index"), [("auto", "0"), ("cuda", "0"), ("cuda:1", "1")])
def test_cuda_is_asked_for_by_index_and_in_full_float32(device, index):
    providers = onnx_files.execution_providers(device, [onnx_files.CUDA, onnx_files.CPU])
    assert providers == {onnx_files.CUDA: {"device_id": index, "use_tf32": "0"}, onnx_files.CPU: {}}
    assert onnx_files.execution_providers("cpu", [onnx_files.CUDA, onnx_files.CPU]) == {onnx_files.CPU: {}}


def test_auto_device_uses_the_cpu_where_onnxruntime_has_nothing_else(tmp_path):
    encoder = opened(write_channel_means(tmp_path / "rec.onnx"), Runtime(device="auto"))
    assert np.isfinite(embedded(encoder.load(), picture())).all()
