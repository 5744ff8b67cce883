"""timm on small models made here: equal to the library by hand, never random, never from the network."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from checkpoints import (
    CPU,
    OFFLINE,
    SHA,
    assert_close,
    edit_weights,
    opened,
    pickle_weights,
    picture,
    pictures,
    put_in_hub,
    rewrite,
    vectors,
)

from encsel.core import Runtime
from encsel.errors import EncoderFailed, UnusableSample, UsageError
from encsel.loading.registry import encoder_family

pytestmark = pytest.mark.usefixtures("one_thread")
Bare = Callable[[np.ndarray], np.ndarray]
"""The vectors of one image, by timm alone."""


def writer(architecture: str, **arguments: Any) -> Callable[[Path], tuple[str, Bare]]:
    def write(folder: Path) -> tuple[str, Bare]:
        import timm
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = timm.create_model(architecture, num_classes=7, **arguments).eval()
            with torch.no_grad():
                for name, value in [*model.named_parameters(), *model.named_buffers()]:
                    if value.ndim > 1:
                        value.mul_(3)
                    elif "running" in name or "bias" in name:
                        value.uniform_(0.1, 1)  # running means and biases other than those of a new model
        config = {"model_args": arguments, "pretrained_cfg": {"input_size": (3, 32, 32), "crop_pct": 0.9}}
        timm.models.save_for_hf(model, folder, model_config=config, safe_serialization=True)
        return f"timm:{folder}", lambda image: by_hand(model, folder, image)

    return write


def by_hand(model: Any, folder: Path, image: np.ndarray) -> np.ndarray:
    import timm
    import torch

    saved = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    data = timm.data.resolve_data_config({}, pretrained_cfg=saved)
    pixels = timm.data.create_transform(**data)(PIL.Image.fromarray(image))
    with torch.inference_mode():
        return model.forward_head(model.forward_features(pixels[None]), pre_logits=True)[0].numpy()


VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
ROWS = [
    ("vit", writer("vit_tiny_patch16_224", **VIT)),
    ("vit, attention pooling", writer("vit_base_patch16_siglip_224", **VIT)),
    ("convnext", writer("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 12, 16, 24))),
    ("resnet", writer("resnet10t", channels=(4, 6, 8, 10), stem_width=4)),
    ("mobilenetv3", writer("mobilenetv3_small_050")),
]
"""(label, writer): writer(folder) gives the spec of a small model, and the vector of an image by timm alone."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timm")
    encoder_family("timm").write_tiny(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(original, tmp_path / "checkpoint")


@pytest.mark.parametrize("write", [write for _, write in ROWS], ids=[label for label, _ in ROWS])
def test_embedding_is_the_library_s_own(write, tmp_path, no_network):
    spec, bare = write(tmp_path)
    encoder = opened(spec)
    found = vectors(encoder.load(), pictures())
    assert found.shape[1] == encoder.dim
    assert_close(found, np.stack([bare(image) for image in pictures()]))


def test_dimension_is_that_of_the_vectors_not_the_number_in_the_configuration(tmp_path):
    spec, bare = dict(ROWS)["mobilenetv3"](tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["num_features"] == 288
    assert opened(spec).dim == len(bare(picture(0))) == 1024


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("label", ["vit", "resnet"])
def test_half_precision_is_close_to_single(label, dtype, tmp_path):
    spec, _ = dict(ROWS)[label](tmp_path)
    half, single = (vectors(opened(s).load(), pictures()) for s in (f"{spec}@dtype={dtype}", spec))
    assert half.dtype == np.float32
    cosine = (half * single).sum(axis=1) / np.linalg.norm(half, axis=1) / np.linalg.norm(single, axis=1)
    assert cosine.min() > 0.99
    assert (half != single).any()


def test_description_says_how_images_are_prepared(folder):
    said = {"interpolation": "bilinear", "crop_pct": 0.5, "crop_mode": "border", "mean": [0.1, 0.2, 0.3]}
    rewrite(folder / "config.json", lambda c: c["pretrained_cfg"].update(said, std=[0.4, 0.5, 0.6]))
    preprocessing = opened(f"timm:{folder}").preprocessing
    assert json.loads(preprocessing["transform"]) == {
        "input_size": [3, 32, 32], "interpolation": "bilinear", "crop_pct": 0.5, "crop_mode": "border",
        "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6],
    }  # fmt: skip


def test_long_thin_picture_is_refused_before_it_fills_the_memory(original):
    with pytest.raises(UnusableSample, match="16x3000000"):
        opened(f"timm:{original}").load().prepare(np.broadcast_to(np.uint8(7), (3_000_000, 16, 3)))


def test_pooling_is_timm_s_own(original):
    import torch

    token, mean = (opened(f"timm:{original}{option}") for option in ("", "@pooling=avg"))
    assert token.preprocessing != mean.preprocessing
    model, images = mean.load(), [picture(0), picture(1)]
    pixels = torch.from_numpy(np.stack([model.prepare(image) for image in images]))
    with torch.inference_mode():
        tokens = token.load()._model.forward_features(pixels).numpy()
    assert_close(vectors(model, images), tokens[:, 1:].mean(axis=1))


@pytest.mark.parametrize("pooling", ["map", "nonsense"])
def test_pooling_that_the_model_does_not_have_is_an_error(original, pooling):
    with pytest.raises(UsageError, match=f"no pooling '{pooling}'"):
        opened(f"timm:{original}@pooling={pooling}")


def test_configuration_of_an_older_timm_is_read(folder):
    def flatten(config):
        config |= config.pop("pretrained_cfg")
        config.pop("global_pool", None), config.pop("model_args")

    spec, _ = dict(ROWS)["mobilenetv3"](folder)
    expected = vectors(opened(spec).load(), [picture(0)])
    rewrite(folder / "config.json", flatten)
    assert_close(vectors(opened(spec).load(), [picture(0)]), expected)


# Which checkpoints it takes


def test_bare_folder_and_bare_name_are_recognised_offline_without_a_connection(
    original, tmp_path, monkeypatch, no_network
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    put_in_hub(tmp_path / "hub", "acme/tiny", original)
    shutil.copytree(original, tmp_path / "dir")
    monkeypatch.chdir(tmp_path)
    expected = vectors(opened(f"timm:{original}").load(), [picture(0)])
    for spec, revision in (("./dir", None), ("acme/tiny", SHA), ("timm:acme/tiny@revision=main", SHA)):
        encoder = opened(spec, OFFLINE)
        assert (encoder.family, encoder.revision) == ("timm", revision)
        np.testing.assert_array_equal(vectors(encoder.load(), [picture(0)]), expected)


def test_configuration_of_transformers_or_a_damaged_one_is_not_recognised(folder):
    recognises = encoder_family("timm").recognises
    assert recognises(folder)
    for content in ('{"architecture": "vit_tiny_patch16_224", "model_type": "vit"}', "{}", "[", '{"architecture": 3}'):
        (folder / "config.json").write_text(content)
        assert not recognises(folder)
    assert not recognises(folder / "absent")


def test_weights_are_all_from_the_checkpoint(folder):
    weights = folder / "model.safetensors"
    edit_weights(weights, lambda w: w.pop("head.weight"))
    opened(f"timm:{folder}").load()  # the classifier is not used
    edit_weights(weights, lambda w: w.update({"blocks.7.attn.qkv.bias": w["cls_token"].clone()}))
    with pytest.raises(EncoderFailed, match=r"has 1 of another model \(blocks\.7"):
        opened(f"timm:{folder}").load()
    edit_weights(weights, lambda w: [w.pop("blocks.7.attn.qkv.bias"), w.pop("blocks.1.attn.qkv.weight")])
    with pytest.raises(EncoderFailed, match=r"lacks 1 weights .*\(blocks\.1\.attn\.qkv\.weight\)"):
        opened(f"timm:{folder}").load()
    edit_weights(weights, lambda w: w.update({"blocks.1.attn.qkv.weight": w["blocks.0.attn.qkv.weight"][:3].clone()}))
    with pytest.raises(EncoderFailed, match="size mismatch"):
        opened(f"timm:{folder}").load()


def test_pickled_weights_need_leave_and_run_no_code(folder, tmp_path):
    import torch

    class Code:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    allowed = Runtime(device="cpu", allow_pickle=True)
    expected = vectors(opened(f"timm:{folder}").load(), [picture(0)])
    pickle_weights(folder / "model.safetensors", folder / "pytorch_model.bin")
    with pytest.raises(EncoderFailed, match="--allow-pickle"):
        opened(f"timm:{folder}")
    encoder = opened(f"timm:{folder}", allowed)
    assert encoder.flags == ("pickled weights",)
    np.testing.assert_array_equal(vectors(encoder.load(), [picture(0)]), expected)
    torch.save({"weight": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(EncoderFailed, match="holds more than weights"):
        opened(f"timm:{folder}", allowed).load()
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_file_are_not_taken(folder):
    (folder / "model.safetensors").rename(folder / "open_clip_model.safetensors")
    with pytest.raises(EncoderFailed, match=r"holds no weights \(model\.safetensors or pytorch_model\.bin\)"):
        opened(f"timm:{folder}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "no_such_net"}, "cannot build 'no_such_net'.*upgrade timm"),
        ({"architecture": 5}, "no architecture"),
        ({"model_args": {"nonsense": 1}}, "cannot build"),
        ({"model_args": {**VIT, "depth": 3}}, "lacks 12 weights of VisionTransformer"),
    ],
)
def test_configuration_that_does_not_fit_is_an_error(folder, change, message):
    rewrite(folder / "config.json", lambda config: config.update(change))
    with pytest.raises(EncoderFailed, match=message):
        opened(f"timm:{folder}", CPU).load()


def test_broken_torchvision_is_an_error_that_names_the_remedy(original, tmp_path, monkeypatch):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(EncoderFailed, match=r"torchvision does not load .*nms.*pip install --upgrade torch"):
        opened(f"timm:{original}")
