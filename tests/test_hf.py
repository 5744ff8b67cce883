"""Checkpoints of transformers by their Auto classes: named alone, pooled, layer by layer, and refused with a reason."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from model_types import ROWS, VIT, images, outcome, samples

from encsel.core import Runtime
from encsel.embedding.model_run import describe
from encsel.errors import EncoderFailed, UnusableSample, UsageError
from encsel.loading.checkpoint import save_tiny
from encsel.loading.registry import checked_spec, open_encoders

CPU = Runtime(device="cpu", offline=True)
BY_LABEL = {row.label: row for row in ROWS}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of small checkpoints, by the label of their row."""
    made = {}

    def of(label):
        if label not in made:
            made[label] = tmp_path_factory.mktemp("model") / "tiny"
            BY_LABEL[label].write(made[label])
        return made[label]

    return of


def opened(text, modality="face", runtime=CPU):
    return open_encoders(checked_spec(str(text), modality), runtime)


def vectors(encoder, sample):
    model = encoder.load()
    return model.embed([model.prepare(sample)])[0]


def states_by_hand(folder, class_name, sample):
    import torch
    import transformers

    model = getattr(transformers, class_name).from_pretrained(folder).eval()
    with torch.inference_mode():
        given = images()(images=sample, return_tensors="pt")
        return model(**given, output_hidden_states=True)


@pytest.mark.parametrize("label", ["vit, a classifier", "wav2vec2, speaker head", "whisper"])
def test_checkpoint_named_alone_is_read_and_equals_the_bare_model(label, tmp_path):
    found = outcome(BY_LABEL[label], tmp_path / "tiny")
    assert found.is_equal, found
    assert found.family == "hf"


def test_layers_of_a_vision_model_equal_its_hidden_states(folder):
    place, sample = folder("vit"), samples()["face"]
    layers = opened(f"{place}@layer=all")
    assert [encoder.preprocessing["layer"] for encoder in layers] == ["0", "1", "2"]
    assert layers[0].preprocessing["pooling"] == "class token"
    found, output = vectors(layers[0], sample), states_by_hand(place, "ViTModel", sample)
    np.testing.assert_allclose(found, [s[0, 0] for s in output.hidden_states], rtol=0, atol=1e-6)
    (means,) = opened(f"{place}@layer=1,pooling=mean")
    np.testing.assert_allclose(
        vectors(means, sample)[0], output.hidden_states[1][0].mean(0), rtol=0, atol=1e-6
    )  # fmt: skip


def test_poolings_of_a_model_are_told_apart_in_its_key(folder):
    encoders = [opened(f"{folder('vit')}@pooling={pooling}")[0] for pooling in ("pooler", "class", "mean")]
    assert [e.preprocessing["pooling"] for e in encoders] == [
        "pooler_output of the model", "class token", "mean over tokens or positions",
    ]  # fmt: skip
    assert describe(opened(folder("vit"))[0]) == describe(encoders[0])


def test_families_with_a_file_of_their_own_have_layers_too(folder):
    place = folder("dinov2")
    layers = opened(f"dinov2:{place}@layer=all")
    assert [encoder.name for encoder in layers] == [f"dinov2:tiny@layer={k}" for k in range(3)]
    (last,) = opened(f"dinov2:{place}@layer=last")
    (plain,) = opened(f"dinov2:{place}")
    sample = samples()["face"]
    np.testing.assert_allclose(vectors(last, sample), vectors(plain, sample), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("label", "options", "words"),
    [
        ("vit", "layer=3", "no layer 3; the model has 0 to 2"),
        ("vit", "pooling=max", "no pooling 'max'. It has: pooler, class, mean"),
        ("vit", "layer=1,pooling=pooler", "a layer of ViTModel has no pooling 'pooler'. It has: class, mean"),
        ("resnet", "pooling=class", "no pooling 'class'. It has: pooler, mean"),
        ("resnet", "layer=all", r"differ in size \(8, 8, 16\). Name one of them"),
    ],
)
def test_layer_or_pooling_that_a_model_lacks_is_a_usage_error(folder, label, options, words):
    with pytest.raises(UsageError, match=words):
        opened(f"{folder(label)}@{options}")


def test_one_layer_of_a_network_whose_layers_differ_in_size(folder):
    (encoder,) = opened(f"{folder('resnet')}@layer=1")
    assert encoder.dim == 8
    assert vectors(encoder, samples()["face"]).shape == (1, 8)


def test_pooling_without_weights_is_not_used(folder):
    (encoder,) = opened(folder("vit, a classifier"))
    assert encoder.preprocessing["pooling"] == "class token"
    with pytest.raises(UsageError, match="no pooling 'pooler'"):
        opened(f"{folder('vit, a classifier')}@pooling=pooler")


def test_speaker_head_is_not_left_out_silently(folder):
    place = folder("wav2vec2, speaker head")
    with pytest.raises(EncoderFailed, match=r"has a head for speaker embeddings.*hf:.*tiny for what the head returns"):
        opened(f"wav2vec2:{place}", "voice")
    assert opened(f"wav2vec2:{place}@layer=last", "voice")[0].dim == 32
    assert opened(place, "voice")[0].dim == 24


def test_clip_shorter_than_the_model_takes_is_refused(folder):
    (encoder,) = opened(folder("wav2vec2, speaker head"), "voice")
    model = encoder.load()
    with pytest.raises(UnusableSample, match=r"too short for this encoder: 0.200 s, at least 0.35 s"):
        model.prepare(samples()["voice"][:3200])
    assert np.isfinite(model.embed([model.prepare(samples()["voice"][:5600])])).all()


def test_mean_of_a_padded_model_is_over_the_clip(folder):
    (encoder,) = opened(folder("whisper"), "voice")
    sound = samples()["voice"]
    assert encoder.preprocessing["pooling"] == "mean over frames"
    one, half = vectors(encoder, sound), vectors(encoder, sound[:8000])
    assert not np.allclose(one, half)


@pytest.mark.parametrize("key", ["encoder.layer.1.output.dense.weight", "embeddings.cls_token"])
def test_model_with_missing_weights_is_refused(folder, tmp_path, key):
    from safetensors.numpy import load_file, save_file

    place = shutil.copytree(folder("vit"), tmp_path / "copy")
    weights = load_file(place / "model.safetensors")
    name = next(k for k in weights if k.replace("layers", "encoder.layer") == key or k.endswith(key.split(".")[-1]))
    del weights[name]
    save_file(weights, place / "model.safetensors", {"format": "pt"})
    (encoder,) = opened(place)
    with pytest.raises(EncoderFailed, match="lacks 1 weights of ViTModel"):
        encoder.load()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "no-such-type"}, "has no model for 'no-such-type'. Upgrade it"),
        ({"hidden_size": -1}, "does not run as a face encoder"),
        ({"model_type": "vit", "transformers_weights": "other.bin"}, "names other weights"),
    ],
)
def test_configuration_that_cannot_be_used_is_blamed(folder, tmp_path, change, words):
    place = shutil.copytree(folder("vit"), tmp_path / "copy")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(EncoderFailed, match=words):
        opened(place)


def test_model_whose_code_is_on_the_hub_is_not_run(folder, tmp_path):
    place = shutil.copytree(folder("vit"), tmp_path / "copy")
    config = json.loads((place / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModel": "modeling_mine.Mine", "AutoConfig": "mine.Config"}}
    (place / "config.json").write_text(json.dumps(config))
    (place / "modeling_mine.py").write_text("raise SystemExit('ran')")
    with pytest.raises(EncoderFailed, match=r"needs its own Python code \(auto_map\), which encsel does not run"):
        opened(place)


def test_checkpoint_without_a_processor_names_what_to_copy(folder, tmp_path):
    place = shutil.copytree(folder("wav2vec2, speaker head"), tmp_path / "checkpoint-500")
    (place / "preprocessor_config.json").unlink()
    words = "checkpoint-500 has no preprocessor_config.json, which defines how samples are prepared. Copy that of"
    with pytest.raises(EncoderFailed, match=words):
        opened(place, "voice")


def test_settings_of_the_processor_are_in_the_key(folder, tmp_path):
    place = shutil.copytree(folder("vit"), tmp_path / "copy")
    before = describe(opened(place)[0])
    path = place / "preprocessor_config.json"
    path = path if path.is_file() else place / "processor_config.json"
    path.write_text(path.read_text().replace("0.5", "0.4"))
    after = describe(opened(place)[0])
    assert after["preprocessing"] != before["preprocessing"]


def test_image_model_is_not_taken_for_a_voice_encoder_and_the_reverse(folder):
    with pytest.raises(EncoderFailed, match="Say its family: most likely hf:"):
        opened(folder("vit"), "voice")
    with pytest.raises(EncoderFailed, match="Say its family: most likely hf:"):
        opened(folder("whisper"), "face")


def test_modality_of_a_checkpoint_is_told_where_none_is_given(folder):
    assert opened(folder("vit"), None)[0].modality == "face"
    assert opened(folder("whisper"), None)[0].modality == "voice"


def test_dtype_is_that_of_the_model(folder):
    (encoder,) = opened(f"{folder('vit')}@dtype=bfloat16")
    assert encoder.preprocessing["dtype"] == "bfloat16"
    exact, rough = vectors(opened(folder("vit"))[0], samples()["face"]), vectors(encoder, samples()["face"])
    assert 1e-6 < np.abs(exact - rough).max() / np.abs(exact).max() < 0.1


def test_model_with_an_adapter_beside_it_is_refused(tmp_path):
    save_tiny(tmp_path, "ViTModel", VIT, images())
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(EncoderFailed, match="merge_and_unload"):
        opened(tmp_path)
