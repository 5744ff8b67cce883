"""open_clip on small models made here: equal to the library's own encode_image, with no text encoder built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from checkpoints import (
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
from encsel.errors import EncoderFailed, UnusableSample
from encsel.loading.registry import encoder_family

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("open_clip")
    encoder_family("open_clip").write_tiny(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(original, tmp_path / "checkpoint")


def by_library(folder: Path, images: list[np.ndarray]) -> np.ndarray:
    import open_clip
    import torch

    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    with torch.inference_mode():
        return model.eval().encode_image(torch.stack([transform(PIL.Image.fromarray(i)) for i in images])).numpy()


def use_vision(folder: Path, **vision: object) -> None:
    """Give the model another image encoder, random like the rest."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    rewrite(folder / CONFIG, lambda config: config["model_cfg"].update(vision_cfg=vision))
    torch.manual_seed(1)
    model = open_clip.CLIP(**json.loads((folder / CONFIG).read_text())["model_cfg"])
    save_file(model.state_dict(), folder / WEIGHTS)


@pytest.mark.parametrize(
    "vision",
    [
        None,
        {"layers": (1, 1, 1, 1), "width": 8, "head_width": 8, "image_size": 64},
        {"timm_model_name": "test_vit", "timm_model_pretrained": True, "timm_pool": "", "image_size": 160},
    ],
    ids=["transformer", "resnet", "timm"],
)
def test_embedding_is_the_library_s_own(folder, vision, no_network):
    rewrite(folder / CONFIG, lambda c: c["preprocess_cfg"].update(mean=[0.4, 0.5, 0.6], interpolation="bilinear"))
    if vision:
        use_vision(folder, **vision | {"timm_model_pretrained": False} if "timm_model_name" in vision else vision)
        rewrite(folder / CONFIG, lambda config: config["model_cfg"].update(vision_cfg=vision))
    encoder = opened(f"open_clip:{folder}")
    assert encoder.dim == 24
    assert_close(vectors(encoder.load(), pictures()), by_library(folder, pictures()))


def test_text_encoder_is_not_built(folder, no_network):
    expected = vectors(opened(f"open_clip:{folder}").load(), [picture(0)])
    text = {"hf_model_name": "acme/no-such-text-model", "hf_model_pretrained": True}
    rewrite(folder / CONFIG, lambda config: config["model_cfg"].update(text_cfg=text))
    np.testing.assert_array_equal(vectors(opened(f"open_clip:{folder}").load(), [picture(0)]), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close_to_single(original, dtype):
    text = f"open_clip:{original}"
    half, single = (vectors(opened(s).load(), pictures()) for s in (f"{text}@dtype={dtype}", text))
    cosine = (half * single).sum(axis=1) / np.linalg.norm(half, axis=1) / np.linalg.norm(single, axis=1)
    assert cosine.min() > 0.99
    assert (half != single).any()


def test_long_thin_picture_is_refused_before_it_fills_the_memory(original):
    with pytest.raises(UnusableSample, match="16x3000000"):
        opened(f"open_clip:{original}").load().prepare(np.broadcast_to(np.uint8(7), (3_000_000, 16, 3)))


def test_bare_folder_and_bare_name_are_recognised_offline_without_a_connection(
    original, tmp_path, monkeypatch, no_network
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    put_in_hub(tmp_path / "hub", "acme/tiny", original)
    shutil.copytree(original, tmp_path / "dir")
    monkeypatch.chdir(tmp_path)
    expected = vectors(opened(f"open_clip:{original}").load(), [picture(0)])
    for spec, revision in (("./dir", None), ("acme/tiny", SHA)):
        encoder = opened(spec, OFFLINE)
        assert (encoder.family, encoder.revision, encoder.space) == ("open_clip", revision, None)
        np.testing.assert_array_equal(vectors(encoder.load(), [picture(0)]), expected)


def test_checkpoint_that_transformers_reads_too_is_left_to_it(folder):
    recognises = encoder_family("open_clip").recognises
    assert recognises(folder)
    (folder / "config.json").write_text('{"model_type": "clip"}')
    assert not recognises(folder)


def test_checkpoint_that_timm_reads_too_needs_its_family_named(folder, tmp_path):
    encoder_family("timm").write_tiny(folder)
    with pytest.raises(EncoderFailed, match=r"several families read it.*open_clip:.* or timm:"):
        opened(str(folder))
    assert list(opened(f"open_clip:{folder}").weights) == [WEIGHTS]
    assert list(opened(f"timm:{folder}").weights) == ["model.safetensors"]


def test_weights_are_all_from_the_checkpoint(folder):
    edit_weights(folder / WEIGHTS, lambda w: w.pop("token_embedding.weight"))
    opened(f"open_clip:{folder}").load()  # the text encoder is not used
    edit_weights(folder / WEIGHTS, lambda w: w.pop("visual.proj"))
    with pytest.raises(EncoderFailed, match=r"lacks 1 weights of VisionTransformer .*\(proj\)"):
        opened(f"open_clip:{folder}").load()
    edit_weights(folder / WEIGHTS, lambda w: [w.pop(k) for k in list(w) if k.startswith("visual.")])
    with pytest.raises(EncoderFailed, match="lacks"):
        opened(f"open_clip:{folder}").load()


def test_pickled_weights_need_leave(folder):
    expected = vectors(opened(f"open_clip:{folder}").load(), [picture(0)])
    pickle_weights(folder / WEIGHTS, folder / "open_clip_pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes(b"of transformers")
    with pytest.raises(EncoderFailed, match="--allow-pickle"):
        opened(f"open_clip:{folder}")
    encoder = opened(f"open_clip:{folder}", Runtime(device="cpu", allow_pickle=True))
    assert (list(encoder.weights), encoder.flags) == (["open_clip_pytorch_model.bin"], ("pickled weights",))
    np.testing.assert_array_equal(vectors(encoder.load(), [picture(0)]), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("model_cfg"), "no model_cfg"),
        (lambda c: c["model_cfg"].update(embed_dim="24"), "embed_dim"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(nonsense=1), "cannot build"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(layers=1), "of another model"),
        (lambda c: c["preprocess_cfg"].update(resize_mode="nonsense"), "cannot build"),
    ],
)
def test_configuration_that_does_not_fit_is_an_error(folder, change, message):
    rewrite(folder / CONFIG, change)
    with pytest.raises(EncoderFailed, match=message):
        opened(f"open_clip:{folder}").load()
