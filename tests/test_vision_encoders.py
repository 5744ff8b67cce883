"""The transformers vision families on small models made here: preprocessing, output, loading, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from encsel.core import Encoder, Runtime
from encsel.embedding.model_run import describe
from encsel.errors import EncoderFailed, UnusableSample, UsageError
from encsel.loading.registry import checked_spec, encoder_family, open_encoders
from encsel.loading.vision import MAX_ELONGATION
from encsel.storage.signature import digest

OUTPUTS = {
    "clip": ("CLIPVisionModelWithProjection", "image_embeds"),
    "siglip": ("SiglipVisionModel", "pooler_output"),
    "dinov2": ("Dinov2Model", "pooler_output"),
}
SIDE = 32
CPU = Runtime(device="cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in OUTPUTS}
    for name, folder in folders.items():
        assert encoder_family(name).write_tiny(folder) == f"{name}:{folder}"
    return folders


@pytest.fixture(scope="module")
def models(originals):
    return {name: opened(f"{name}:{folder}").load() for name, folder in originals.items()}


@pytest.fixture(params=list(OUTPUTS))
def name(request) -> str:
    return request.param


@pytest.fixture
def model(models, name):
    return models[name]


@pytest.fixture
def folder(originals, name, tmp_path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(originals[name], tmp_path / "checkpoint")


@pytest.fixture
def hub(originals, monkeypatch, tmp_path):
    """A hub cache made by hand: call it with repository and folder; it returns the snapshot."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def add(repository: str, source: Path) -> Path:
        home = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text(SHA)
        return shutil.copytree(source, home / "snapshots" / SHA)

    return add


def opened(spec: str, runtime: Runtime = CPU) -> Encoder:
    (encoder,) = open_encoders(checked_spec(spec, "face"), runtime)
    return encoder


def vectors(model, images) -> np.ndarray:
    return model.embed([model.prepare(image) for image in images])[:, 0]


def picture(seed: int, shape: tuple[int, int] = (45, 70)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    smooth = PIL.Image.fromarray(coarse).resize(shape[::-1], PIL.Image.Resampling.BICUBIC)
    return np.array(smooth)


def assert_close(found, expected, share=1e-6) -> None:
    """Equal to a share of the largest value: where an array lies in memory moves the last digits of float32."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())


def by_library(name: str, folder: Path, images) -> np.ndarray:
    import torch
    import transformers

    class_name, output = OUTPUTS[name]
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    bare = getattr(transformers, class_name).from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        inputs = processor(images=[PIL.Image.fromarray(image) for image in images], return_tensors="pt")
        return getattr(bare.eval()(**inputs), output).numpy()


def rewrite(path: Path, **changes) -> None:
    """Set, or with None drop, keys of a JSON file."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def edit_weights(folder: Path, edit) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


def pickle_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


# Preprocessing and output


def test_embedding_is_the_library_s_own_output(model, name, originals):
    images = [picture(seed, shape) for seed, shape in enumerate([(45, 70), (70, 45), (32, 32), (16, 16), (200, 90)])]
    assert_close(vectors(model, images), by_library(name, originals[name], images))


def by_hand(name: str, image: np.ndarray) -> np.ndarray:
    """Resize, crop and normalise with Pillow and numpy alone."""
    mean, std = {
        "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "dinov2": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    }[name]
    height, width = image.shape[:2]
    shorter = {"clip": SIDE, "dinov2": 36}.get(name)
    if shorter is None:
        height, width = SIDE, SIDE
    else:
        scale = shorter / min(height, width)
        height, width = int(height * scale), int(width * scale)
    small = np.asarray(PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling.BICUBIC))
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    cropped = small[top : top + SIDE, left : left + SIDE].astype(np.float64)
    return ((cropped / 255 - mean) / std).transpose(2, 0, 1)


@pytest.mark.parametrize("shape", [(45, 70), (70, 45), (300, 200)])
def test_pixels_are_resized_cropped_and_normalised_once_as_the_checkpoint_says(model, name, shape):
    image = picture(3, shape)
    prepared = model.prepare(image)
    assert prepared.dtype == np.float32
    assert prepared.flags.c_contiguous
    # float32 of values up to 2.7
    np.testing.assert_allclose(prepared, by_hand(name, image), rtol=0, atol=1e-6)


def test_channels_reach_the_model_as_red_green_blue(model, name):
    colour = np.array([200, 100, 50], np.uint8)
    flat = np.tile(colour, (40, 40, 1))
    np.testing.assert_allclose(model.prepare(flat).mean(axis=(1, 2)), by_hand(name, flat)[:, 0, 0], atol=1e-5)
    forward, backward = vectors(model, [flat, flat[..., ::-1].copy()])
    assert np.abs(forward - backward).max() > 1e-3


def test_long_thin_picture_is_refused_before_it_fills_the_memory(model):
    with pytest.raises(UnusableSample, match="16x3000000"):
        model.prepare(np.broadcast_to(np.uint8(7), (3_000_000, 16, 3)))
    assert model.prepare(np.zeros((16, 16 * MAX_ELONGATION, 3), np.uint8)).shape == (3, SIDE, SIDE)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close_to_single(model, name, originals, dtype):
    images = [picture(seed) for seed in range(7)]
    encoder = opened(f"{name}:{originals[name]}@dtype={dtype}")
    assert encoder.preprocessing["dtype"] == dtype
    half, single = vectors(encoder.load(), images), vectors(model, images)
    assert half.dtype == np.float32
    cosine = (half * single).sum(axis=1) / np.linalg.norm(half, axis=1) / np.linalg.norm(single, axis=1)
    assert cosine.min() > 0.99
    assert (half != single).any()


def test_attention_is_scaled_dot_product(model):
    assert model._model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_checkpoint_stored_in_half_precision_still_runs_in_single(name, folder, stored):
    import torch

    edit_weights(folder, lambda weights: weights.update({k: v.to(getattr(torch, stored)) for k, v in weights.items()}))
    rewrite(folder / "config.json", dtype=stored)
    assert opened(f"{name}:{folder}").load()._dtype == torch.float32


# Checkpoints


def test_defaults_of_the_table_are_the_library_s(name):
    from transformers import CLIPConfig, CLIPVisionConfig, Dinov2Config, SiglipConfig

    dims = {
        "clip": {CLIPConfig().projection_dim, CLIPVisionConfig().projection_dim},
        "siglip": {SiglipConfig().vision_config.hidden_size},
        "dinov2": {Dinov2Config().hidden_size},
    }
    assert dims[name] == {encoder_family(name).dim}


def test_n_parameters_are_those_of_the_published_shapes(name):
    import torch
    import transformers

    config = {
        "clip": lambda: transformers.CLIPVisionConfig(patch_size=16),
        "siglip": lambda: transformers.SiglipVisionConfig(image_size=384),
        "dinov2": lambda: transformers.Dinov2Config(image_size=518),
    }[name]()
    with torch.device("meta"):
        shell = getattr(transformers, OUTPUTS[name][0])(config)
    assert sum(p.numel() for p in shell.parameters()) == encoder_family(name).n_parameters


def whole(name: str, folder: Path):
    """A whole CLIP or SigLIP, text half included, that leaves the vision half's projection at the library's default."""
    import torch
    import transformers
    from transformers.utils import logging

    half = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {**half, "image_size": SIDE, "patch_size": 8}
    text = {**half, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2}
    logging.set_verbosity_error()
    torch.manual_seed(1)
    if name == "clip":
        config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)
    else:
        config = transformers.SiglipConfig(vision_config=vision, text_config=text)
    made = getattr(transformers, {"clip": "CLIPModel", "siglip": "SiglipModel"}[name])(config)
    made.save_pretrained(folder)
    logging.set_verbosity_warning()
    return made.eval()


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_whole_model_gives_its_own_image_features(name, folder, capfd):
    import torch

    (folder / "model.safetensors").unlink()
    made = whole(name, folder)
    capfd.readouterr()
    encoder = opened(f"{name}:{folder}")
    assert encoder.dim == {"clip": 24, "siglip": 32}[name]
    loaded = encoder.load()
    assert capfd.readouterr() == ("", "")  # no table of the text half's unused weights
    images = [picture(seed) for seed in range(3)]
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack([loaded.prepare(image) for image in images]))
        features = made.get_image_features(pixel_values=pixels).pooler_output.numpy()
    assert_close(vectors(loaded, images), features)


def test_processor_saved_by_an_older_library_is_read_as_it_was_meant(originals, tmp_path):
    folder = shutil.copytree(originals["clip"], tmp_path / "old")
    # The form of openai/clip-vit-base-patch16: plain numbers, and the name of a class that is gone.
    old = {
        "crop_size": SIDE, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": SIDE,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(old))
    image = picture(1)
    prepared = opened(f"clip:{folder}").load().prepare(image)
    np.testing.assert_allclose(prepared, by_hand("clip", image), rtol=0, atol=1e-6)


def test_processor_nested_in_processor_config_is_read(name, folder, model):
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    encoder = opened(f"{name}:{folder}")
    assert json.loads(encoder.preprocessing["processor"]) == settings
    assert set(encoder.files) == {"config.json", "processor_config.json"}
    np.testing.assert_array_equal(encoder.load().prepare(picture(1)), model.prepare(picture(1)))


def test_name_of_a_hub_opens_from_its_cache_without_a_socket(name, originals, hub, no_network, model):
    hub("acme/tiny", originals[name])
    encoder = opened(f"{name}:acme/tiny", Runtime(device="cpu", offline=True))
    assert (encoder.revision, encoder.spec, encoder.flags) == (SHA, f"{name}:acme/tiny", ())
    assert list(encoder.weights) == ["model.safetensors"]
    images = [picture(seed) for seed in range(3)]
    assert_close(vectors(encoder.load(), images), vectors(model, images))


@pytest.mark.parametrize("revision", ["main", SHA])
def test_revision_is_resolved_to_its_commit(originals, hub, no_network, revision):
    hub("acme/tiny", originals["dinov2"])
    encoder = opened(f"dinov2:acme/tiny@revision={revision}", Runtime(device="cpu", offline=True))
    assert encoder.revision == SHA


def test_absent_hub_entry_offline_is_an_error_that_names_the_remedy(name, hub, no_network):
    for spec in (name, f"{name}:acme/absent", f"{name}:acme/absent@revision=v2"):
        with pytest.raises(EncoderFailed, match="encsel encoders fetch"):
            opened(spec, Runtime(device="cpu", offline=True))


def test_revision_of_a_folder_is_an_error(name, originals):
    with pytest.raises(UsageError, match="has no revision"):
        opened(f"{name}:{originals[name]}@revision=main")


def test_path_of_a_folder_stays_out_of_licence_and_source(name, originals):
    encoder = opened(f"{name}:{originals[name]}")
    assert encoder.licence
    assert encoder.trained_on == ""  # of an unknown checkpoint nothing is known
    assert str(originals[name].parent) not in encoder.licence + encoder.source + encoder.name


def test_whatever_changes_the_vectors_changes_the_signature(name, folder, originals, hub):
    def sign(spec: str) -> str:
        return digest(describe(opened(spec, Runtime(device="cpu", offline=True))))

    hub("acme/tiny", originals[name])
    seen = [sign(f"{name}:{folder}"), sign(f"{name}:{folder}@dtype=bfloat16"), sign(f"{name}:acme/tiny")]
    assert sign(f"{name}:{folder}@name=mine") == seen[0]
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    seen.append(sign(f"{name}:{folder}"))
    rewrite(folder / "config.json", hidden_act="relu")
    seen.append(sign(f"{name}:{folder}"))
    rewrite(folder / "preprocessor_config.json", resample=2)
    seen.append(sign(f"{name}:{folder}"))
    assert len(set(seen)) == len(seen)


# Refusals


def test_other_architecture_is_refused_by_both_names(name, originals):
    other, found = {
        "clip": ("dinov2", "dinov2"),
        "siglip": ("clip", "clip_vision_model"),
        "dinov2": ("siglip", "siglip_vision_model"),
    }[name]
    with pytest.raises(EncoderFailed, match=f"'{found}'; {name} reads {name}"):
        opened(f"{name}:{originals[other]}")


def test_missing_weight_is_an_error_that_names_it(name, folder):
    gone = []

    def drop(weights):
        gone.append(sorted(weights)[-1])
        del weights[gone[0]]

    edit_weights(folder, drop)
    with pytest.raises(EncoderFailed, match=r"lacks 1 .*would be random") as caught:
        opened(f"{name}:{folder}").load()
    assert gone[0].rpartition(".")[2] in str(caught.value)


def test_weight_of_another_shape_is_an_error_that_names_it(name, folder):
    def shrink(weights):
        key = next(k for k in sorted(weights) if k.endswith("mlp.fc1.bias"))
        weights[key] = weights[key][:-1].clone()

    edit_weights(folder, shrink)
    with pytest.raises(EncoderFailed, match=r"has 1 of another shape .*mlp\.fc1\.bias"):
        opened(f"{name}:{folder}").load()


@pytest.mark.parametrize("n_bytes", [0, 5, 1000, -1])
def test_truncated_weights_are_an_error(name, folder, n_bytes):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(EncoderFailed, match="do not load"):
        opened(f"{name}:{folder}").load()


def test_folder_without_weights_is_an_error(name, folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(EncoderFailed, match="holds no weights"):
        opened(f"{name}:{folder}")


def test_missing_image_processor_is_an_error_that_says_so(name, folder):
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(EncoderFailed, match=r"no preprocessor_config\.json"):
        opened(f"{name}:{folder}")


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_damaged_configuration_is_an_error_that_names_the_file(name, folder, file, content):
    (folder / file).write_text(content, encoding="latin-1")
    with pytest.raises(EncoderFailed, match=file):
        opened(f"{name}:{folder}")


@pytest.mark.parametrize("dim", [0, "24", 1.5, True])
def test_impossible_dimension_is_an_error(name, folder, dim):
    rewrite(folder / "config.json", **{"projection_dim" if name == "clip" else "hidden_size": dim})
    with pytest.raises(EncoderFailed, match="as its dimension"):
        opened(f"{name}:{folder}")


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_processor_of_another_size_than_the_model_s_is_an_error(name, folder):
    rewrite(
        folder / "preprocessor_config.json", crop_size={"height": 40, "width": 40}, size={"height": 40, "width": 40}
    )
    with pytest.raises(EncoderFailed, match="do not fit"):
        opened(f"{name}:{folder}").load()


def test_processor_that_keeps_the_shape_of_pictures_is_an_error(name, folder):
    rewrite(folder / "preprocessor_config.json", do_center_crop=False, size={"shortest_edge": SIDE})
    with pytest.raises(EncoderFailed, match="do not fit"):
        opened(f"{name}:{folder}").load()


def test_processor_that_needs_the_checkpoint_s_own_code_is_refused(name, folder):
    rewrite(
        folder / "preprocessor_config.json",
        image_processor_type="OwnImageProcessor",
        auto_map={"AutoImageProcessor": "own.OwnImageProcessor"},
    )
    (folder / "own.py").write_text("raise SystemExit('the code ran')")
    with pytest.raises(EncoderFailed, match="image processor"):
        opened(f"{name}:{folder}").load()


def test_siglip_without_its_pooling_head_is_an_error(originals, tmp_path):
    folder = shutil.copytree(originals["siglip"], tmp_path / "headless")
    rewrite(folder / "config.json", vision_use_head=False)
    with pytest.raises(EncoderFailed, match="do not fit"):
        opened(f"siglip:{folder}").load()


def test_pickled_weights_are_refused_without_leave_and_flagged_with_it(name, folder, model):
    pickle_weights(folder)
    with pytest.raises(EncoderFailed, match="--allow-pickle"):
        opened(f"{name}:{folder}")
    encoder = opened(f"{name}:{folder}", Runtime(device="cpu", allow_pickle=True))
    assert encoder.flags == ("pickled weights",)
    assert list(encoder.weights) == ["pytorch_model.bin"]
    assert_close(vectors(encoder.load(), [picture(0)]), vectors(model, [picture(0)]))


def test_pickle_with_code_in_it_is_not_run(name, folder, tmp_path):
    import torch

    trace = tmp_path / "ran"

    class Code:
        def __reduce__(self):
            return Path.touch, (trace,)

    pickle_weights(folder)
    torch.save({"weight": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(EncoderFailed, match="do not load"):
        opened(f"{name}:{folder}", Runtime(device="cpu", allow_pickle=True)).load()
    assert not trace.exists()


def test_pickled_weights_of_the_default_checkpoint_need_no_leave(name, hub, folder):
    pickle_weights(folder)
    hub(encoder_family(name).checkpoint, folder)
    hub("acme/tiny", folder)
    encoder = opened(name, Runtime(device="cpu", offline=True))
    assert (encoder.revision, encoder.flags) == (SHA, ("pickled weights",))
    assert encoder.licence == encoder_family(name).licence
    with pytest.raises(EncoderFailed, match="--allow-pickle"):
        opened(f"{name}:acme/tiny", Runtime(device="cpu", offline=True))


def shard(folder, index_of):
    """Replace one weight file by two and an index; `index_of` gives what the index says of each part."""
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    keys = sorted(state)
    parts = {"a.safetensors": keys[::2], "b.safetensors": keys[1::2]}
    for part, names in parts.items():
        save_file({name: state[name] for name in names}, folder / part, metadata={"format": "pt"})
    weight_map = {name: index_of(part) for part, names in parts.items() for name in names}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_weights_in_parts_are_loaded_and_hashed_with_their_index(folder, model, name):
    shard(folder, lambda part: part)
    shutil.copy(folder / "a.safetensors", folder / "decoy.safetensors")
    encoder = opened(f"{name}:{folder}")
    assert list(encoder.weights) == ["a.safetensors", "b.safetensors"]
    assert {"config.json", "preprocessor_config.json", "model.safetensors.index.json"} == set(encoder.files)
    assert_close(vectors(encoder.load(), [picture(0)]), vectors(model, [picture(0)]))


@pytest.mark.parametrize("place", ["../x/{}", "/tmp/{}", "sub/{}", "..\\{}", "weights.bin", ""])
def test_an_index_that_names_weights_elsewhere_is_refused(folder, place):
    shard(folder, lambda part: place.format(part))
    with pytest.raises(EncoderFailed, match="of the folder itself are needed"):
        opened(f"dinov2:{folder}")


def test_weights_that_config_json_names_are_refused(folder):
    rewrite(folder / "config.json", transformers_weights="other.safetensors")
    with pytest.raises(EncoderFailed, match="transformers_weights"):
        opened(f"dinov2:{folder}")


def test_a_base_model_with_an_adapter_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(EncoderFailed, match=r"adapter_config\.json.*merge_and_unload"):
        opened(f"dinov2:{folder}")


def test_a_folder_with_the_name_of_the_default_checkpoint_does_not_stand_in_for_it(
    hub, originals, tmp_path, monkeypatch
):
    default = encoder_family("dinov2").checkpoint
    monkeypatch.chdir(tmp_path)
    shutil.copytree(originals["dinov2"], tmp_path / default)
    for spec in ("dinov2", f"dinov2:{default}", default):
        with pytest.raises(EncoderFailed, match="encsel encoders fetch"):
            opened(spec, Runtime(device="cpu", offline=True))
    opened(f"./{default}", Runtime(device="cpu", offline=True))
    pickle_weights(tmp_path / default)
    with pytest.raises(EncoderFailed, match="--allow-pickle"):
        opened(f"dinov2:./{default}", Runtime(device="cpu", offline=True))


def test_device_that_is_not_there_is_an_error(name, originals):
    import torch

    absent = "cuda:99" if torch.cuda.is_available() else "cuda"
    with pytest.raises(EncoderFailed, match=f"'{absent}' cannot be used"):
        opened(f"{name}:{originals[name]}", Runtime(device=absent)).load()
