"""The speech encoders of transformers, on small random models made on disk by the library itself."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from media_samples import write_face, write_voice

from encsel.core import SAMPLING_RATE, Runtime
from encsel.data.calibration_set import CalibrationSet
from encsel.data.media import decode_voice
from encsel.embedding import model_run
from encsel.embedding.embed import embed
from encsel.embedding.model_run import describe
from encsel.errors import EncoderFailed, UnusableSample, UsageError
from encsel.loading import speech
from encsel.loading.registry import checked_spec, encoder_family, open_encoders
from encsel.loading.speech import common_length, n_frames_of, n_samples_for, write_tiny_model
from encsel.storage.signature import digest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = Runtime(device="cpu", offline=True)
CLASSES = {"wavlm": "WavLMModel", "hubert": "HubertModel", "wav2vec2": "Wav2Vec2Model", "wavlm-sv": "WavLMForXVector"}
LAYERED = ("wavlm", "hubert", "wav2vec2")
MASKED, EQUAL = ("wavlm", "hubert"), ("wav2vec2", "wavlm-sv")
N_LAYERS = 3
# float32 sums in another order, over values of about 1
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    made = {}
    for name in CLASSES:
        made[name] = tmp_path_factory.mktemp(name)
        assert encoder_family(name, "voice").write_tiny(made[name]) == f"{name}:{made[name]}"
    return made


@pytest.fixture
def copy(folders, tmp_path):
    """A copy of a family's tiny model, to be spoiled."""
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / "model"))


@pytest.fixture
def seen(monkeypatch) -> list[tuple]:
    """(model, shape of the values, mask) of every pass of a bare model."""
    calls = []
    for name in LAYERED:
        cls = getattr(transformers, CLASSES[name])

        def spy(self, input_values, attention_mask=None, *, forward=cls.forward, **options):
            calls.append((self, tuple(input_values.shape), attention_mask))
            return forward(self, input_values, attention_mask=attention_mask, **options)

        monkeypatch.setattr(cls, "forward", spy)
    return calls


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    tones = np.sin(2 * np.pi * np.outer(random.uniform(80, 3000, 5), time)).sum(axis=0)
    return (0.1 * tones + 0.02 * random.normal(size=len(time)) + 0.05).astype(np.float32)


RAGGED = [clip(seconds, seed) for seed, seconds in enumerate((1.0, 0.37, 0.913, 0.1))]


def opened(name: str, folder: Path, options: str = "", runtime: Runtime = CPU):
    return open_encoders(checked_spec(f"{name}:{folder}" + (options and f"@{options}"), "voice"), runtime)


def vectors(name: str, folder: Path, clips, options: str = "", runtime: Runtime = CPU) -> np.ndarray:
    """(clips, taps, dim), one clip at a time."""
    model = opened(name, folder, options, runtime)[0].load()
    return np.concatenate([model.embed([model.prepare(one)]) for one in clips])


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    # Not bit-equal: the kernels sum in an order that depends on where in its file a weight begins.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@cache
def bare(name: str, folder: Path) -> Any:
    """The model as transformers loads it."""
    return getattr(transformers, CLASSES[name]).from_pretrained(folder).eval()


def by_hand(name: str, folder: Path, one: np.ndarray, layer: int | None = None) -> np.ndarray:
    """The vector of one clip, computed as the documentation of transformers shows."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    values = extractor(one, sampling_rate=SAMPLING_RATE, return_tensors="pt").input_values
    with torch.no_grad():
        output = bare(name, folder)(values, output_hidden_states=True)
    if name == "wavlm-sv":
        return output.embeddings[0].numpy()
    frames = output.last_hidden_state if layer is None else output.hidden_states[layer]
    return frames[0].mean(dim=0).numpy()


# What comes out


@pytest.mark.parametrize("name", CLASSES)
def test_vector_is_what_the_bare_library_gives(folders, name):
    found = vectors(name, folders[name], [RAGGED[0]])
    np.testing.assert_allclose(found[0, 0], by_hand(name, folders[name], RAGGED[0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MASKED)
def test_ragged_batch_equals_single_clips(folders, name, seen):
    model = opened(name, folders[name])[0].load()
    prepared = [model.prepare(one) for one in RAGGED]
    together = model.embed(prepared)
    _, shape, mask = seen[-1]
    assert shape == (4, SAMPLING_RATE)
    assert mask.sum(dim=1).tolist() == [len(one) for one in RAGGED]
    np.testing.assert_allclose(together, vectors(name, folders[name], RAGGED), **CLOSE)


@pytest.mark.parametrize("name", MASKED)
def test_loudness_and_offset_of_other_clips_do_not_matter(folders, name):
    model = opened(name, folders[name])[0].load()
    quiet = model.embed([model.prepare(RAGGED[1]), model.prepare(RAGGED[0])])[0]
    loud = model.embed([model.prepare(RAGGED[1]), model.prepare(9 * RAGGED[0] + 3)])[0]
    np.testing.assert_allclose(loud, quiet, **CLOSE)


def test_mean_leaves_out_padding_even_if_not_finite():
    frames = torch.tensor([[[1.0], [3.0], [torch.nan]], [[2.0], [4.0], [9.0]]])
    np.testing.assert_allclose(speech.mean_over_frames(frames, torch.tensor([2, 3])), [[2.0], [5.0]])


@pytest.mark.parametrize("name", LAYERED)
def test_n_frames_is_the_librarys_own(folders, name):
    model = bare(name, folders[name])
    config = model.config.to_dict()
    for n in (400, 401, 719, 720, 5199, 5200, 16_000, 79_999, 80_000):
        assert n_frames_of(n, config) == int(model._get_feat_extract_output_lengths(n))
    assert n_samples_for(1, config) == 400
    assert all(n_frames_of(n_samples_for(k, config), config) == k for k in (1, 2, 16, 249))
    assert n_frames_of(n_samples_for(16, config) - 1, config) == 15


@pytest.mark.parametrize("cls", ["WavLMConfig", "HubertConfig", "Wav2Vec2Config"])
def test_defaults_for_sparse_configurations_are_the_librarys(cls):
    config = getattr(transformers, cls)()
    for key, value in speech.CONFIG_DEFAULTS.items():
        if cls == "HubertConfig" and key.startswith(("tdnn", "xvector")):
            continue
        found = getattr(config, key)
        assert (tuple(found) if isinstance(found, list) else found) == value, key


# Layers


@pytest.mark.parametrize("name", LAYERED)
def test_layer_is_that_hidden_state_of_the_full_model_and_no_layer_above_is_built(folders, name, seen):
    for k in range(N_LAYERS + 1):
        found = vectors(name, folders[name], [RAGGED[0]], f"layer={k}")
        assert len(seen[-1][0].encoder.layers) == max(1, k)
        np.testing.assert_allclose(
            found[0, 0], by_hand(name, folders[name], RAGGED[0], layer=k), rtol=0, atol=1e-6
        )  # fmt: skip


@pytest.mark.parametrize("name", LAYERED)
def test_last_is_the_top_layer_only_where_no_norm_follows_it(folders, name):
    last = vectors(name, folders[name], RAGGED[:1], "layer=last")
    top = vectors(name, folders[name], RAGGED[:1], f"layer={N_LAYERS}")
    assert np.allclose(last, top, **CLOSE) == (name == "wav2vec2")
    np.testing.assert_array_equal(last, vectors(name, folders[name], RAGGED[:1]))


@pytest.mark.parametrize("name", LAYERED)
def test_all_layers_come_from_one_pass(folders, name, seen):
    encoders = opened(name, folders[name], "layer=all")
    names = [str(k) for k in range(N_LAYERS + 1)] + (["last"] if name in MASKED else [])
    assert [encoder.preprocessing["layer"] for encoder in encoders] == names
    assert [encoder.tap for encoder in encoders] == list(range(len(names)))
    assert len({encoder.shares for encoder in encoders}) == 1
    model = encoders[0].load()
    prepared = [model.prepare(one) for one in RAGGED if name in MASKED or len(one) == SAMPLING_RATE]
    assert model.embed(prepared).shape[1] == len(names)
    assert len(seen) == 1


def test_each_of_all_layers_has_its_name_and_says_it_was_one_of_many(folders):
    encoders = opened("wavlm", folders["wavlm"], "layer=all")
    assert [e.name for e in encoders] == [
        f"wavlm:{folders['wavlm'].name}@layer={k}" for k in ("0", "1", "2", "3", "last")
    ]
    assert {e.flags for e in encoders} == {("one of 5 layers: the best of many is flattered by the choice",)}
    named = opened("wavlm", folders["wavlm"], "layer=all,name=w")
    assert [e.name for e in named] == ["w-0", "w-1", "w-2", "w-3", "w-last"]
    assert opened("wavlm", folders["wavlm"], "layer=2")[0].flags == ()


@pytest.mark.parametrize("name", LAYERED)
def test_layer_that_is_not_there_is_refused_before_loading(folders, name, monkeypatch):
    monkeypatch.setattr(speech, "load_transformers", None)
    family = encoder_family(name, "voice")
    with pytest.raises(UsageError, match=r"there is no layer 99; the model has 0 to 3, 'last' and 'all'"):
        family.open(checked_spec(f"{name}:{folders[name]}@layer=99", "voice"), CPU)


def test_pooling_other_than_mean_is_refused(folders):
    with pytest.raises(UsageError, match="unknown pooling 'max'; wavlm has only 'mean'"):
        opened("wavlm", folders["wavlm"], "pooling=max")
    assert len(opened("wavlm", folders["wavlm"], "pooling=mean")) == 1


def test_speaker_head_has_no_layers_to_choose(folders):
    with pytest.raises(UsageError, match="wavlm-sv takes no 'layer'"):
        opened("wavlm-sv", folders["wavlm-sv"], "layer=2")


# Lengths


def voices(root: Path, seconds) -> Path:
    for i, length in enumerate(seconds):
        write_voice(root / "voices" / f"p{i:02d}" / "0.wav", i, length)
        write_face(root / "faces" / f"p{i:02d}" / "0.png", i)
    return root


LENGTHS = (0.5, 0.54, 0.75, 0.79, 0.37, 1.1)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    return CalibrationSet.from_path(voices(tmp_path_factory.mktemp("voices"), LENGTHS))


@pytest.mark.parametrize("name", EQUAL)
def test_models_that_cannot_be_padded_never_are(folders, name, calibration, monkeypatch):
    shapes = []
    cls = getattr(transformers, CLASSES[name])
    forward = cls.forward

    def spy(self, input_values, attention_mask=None, **options):
        assert attention_mask is None
        assert (input_values.abs().amax(dim=1) > 0).all()
        assert (input_values[:, -8:] != 0).any(dim=1).all()
        shapes.append(tuple(input_values.shape))
        return forward(self, input_values, **options)

    monkeypatch.setattr(cls, "forward", spy)
    monkeypatch.setattr(model_run, "N_CHECKED", 0)
    (encoder,) = opened(name, folders[name])
    assert encoder.equal_lengths
    found = embed(calibration, [encoder])
    assert found.failures == ()
    assert len(found.embeddings[0].vectors) == len(LENGTHS)
    assert sorted(shapes) == [(1, 5600), (1, 16000), (2, 8000), (2, 12000)]


def test_ragged_batch_of_equal_lengths_model_is_our_own_mistake(folders):
    model = opened("wav2vec2", folders["wav2vec2"])[0].load()
    with pytest.raises(AssertionError, match="one length"):
        model.embed([model.prepare(one) for one in RAGGED])


@pytest.mark.parametrize(
    ("seconds", "kept"), [(5.0, 5.0), (4.99, 4.75), (2.4, 2.25), (0.36, 0.35), (0.1, 0.1), (0.09, 0.09)]
)
def test_clip_is_cut_to_the_longest_common_length_that_fits(seconds, kept):
    assert common_length(round(seconds * SAMPLING_RATE)) == round(kept * SAMPLING_RATE)


def test_clip_is_not_cut_below_what_the_model_needs():
    assert common_length(5300, n_least=5200) == 5300
    assert common_length(5600, n_least=5200) == 5600
    assert common_length(5300) == 4800


def test_crop_rule_is_part_of_what_identifies_a_vector(folders):
    lengths = {name: opened(name, folders[name])[0].preprocessing["lengths"] for name in CLASSES}
    assert lengths["wavlm"] == lengths["hubert"] == "padded, with attention mask"
    assert "longest multiple of 0.25 s (up to 1 s: of 0.05 s), of at least 400 samples" in lengths["wav2vec2"]
    assert "of at least 5200 samples, that fits" in lengths["wavlm-sv"]


@pytest.mark.parametrize(("name", "n"), [("wavlm", 400), ("hubert", 400), ("wav2vec2", 400), ("wavlm-sv", 5200)])
def test_shortest_usable_clip_is_exact(folders, name, n):
    model = opened(name, folders[name])[0].load()
    assert np.isfinite(model.embed([model.prepare(RAGGED[0][:n])])).all()
    with pytest.raises(UnusableSample, match=rf"too short for this encoder: .* s, at least {n / SAMPLING_RATE} s"):
        model.prepare(RAGGED[0][: n - 1])


def test_batch_norm_before_the_positions_forbids_padding(tmp_path):
    write_tiny_model(tmp_path, "HubertModel", feat_extract_norm="layer", conv_pos_batch_norm=True)
    assert opened("hubert", tmp_path)[0].equal_lengths


@pytest.mark.parametrize("name", CLASSES)
def test_order_and_batch_size_do_not_change_a_vector(folders, name, calibration):
    encoders = opened(name, folders[name])
    backwards = replace(calibration, samples=calibration.samples[::-1])
    found = [
        embed(data, encoders, batch_size=size).embeddings[0]
        for data, size in ((calibration, 16), (calibration, 1), (backwards, 2))
    ]
    for other in found[1:]:
        order = np.argsort(other.labels)
        np.testing.assert_allclose(other.vectors[order], found[0].vectors, **CLOSE)


# Preparing clips


def changed_extractor(folder: Path, **settings) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.parametrize("name", CLASSES)
def test_checkpoint_decides_whether_loudness_is_levelled(copy, name):
    folder = copy(name)
    for do_normalize in (True, False):
        changed_extractor(folder, do_normalize=do_normalize)
        (encoder,) = opened(name, folder)
        assert encoder.preprocessing["do_normalize"] == do_normalize
        model = encoder.load()
        prepared = model.prepare(RAGGED[0])
        if do_normalize:
            np.testing.assert_allclose([prepared.mean(), prepared.std()], [0, 1], atol=1e-4)
        else:
            np.testing.assert_array_equal(prepared, RAGGED[0])
        expected = by_hand(name, folder, RAGGED[0])
        np.testing.assert_allclose(model.embed([prepared])[0, 0], expected, rtol=0, atol=1e-6)


def test_settings_nested_in_a_processor_are_read_as_the_library_reads_them(copy):
    folder = copy("hubert")
    path = folder / "preprocessor_config.json"
    nested = {"feature_extractor": {**json.loads(path.read_text()), "do_normalize": False}}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    for _ in range(2):  # both files, then the nested one alone
        (encoder,) = opened("hubert", folder)
        assert encoder.preprocessing["do_normalize"] is False
        np.testing.assert_array_equal(encoder.load().prepare(RAGGED[0]), RAGGED[0])
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sampling_rate": 8000}, "at 8000 Hz"), ({"feature_extractor_type": "Other"}, "prepares clips with Other")],
)
def test_other_feature_extractor_is_refused(copy, settings, message):
    folder = copy("wavlm")
    changed_extractor(folder, **settings)
    with pytest.raises(EncoderFailed, match=message):
        opened("wavlm", folder)


def test_missing_feature_extractor_is_named(copy):
    folder = copy("wavlm")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(EncoderFailed, match=r"no preprocessor_config\.json"):
        opened("wavlm", folder)


def sound(frames: np.ndarray, rate: int) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, frames, rate, format="WAV", subtype="FLOAT")
    return content.getvalue()


def test_tenth_of_a_second_is_enough_but_for_the_speaker_head(folders):
    shortest = decode_voice(sound(RAGGED[0][:1600], SAMPLING_RATE))
    for name in LAYERED:
        assert np.isfinite(vectors(name, folders[name], [shortest])).all()
    with pytest.raises(UnusableSample, match=r"0\.100 s, at least 0\.325 s"):
        vectors("wavlm-sv", folders["wavlm-sv"], [shortest])


def test_silent_file_reaches_no_encoder(folders, tmp_path):
    root = voices(tmp_path, (0.5, 0.5, 0.5, 0.5))
    soundfile.write(root / "voices" / "p00" / "0.wav", np.zeros(8000), SAMPLING_RATE)
    found = embed(CalibrationSet.from_path(root), opened("wavlm", folders["wavlm"]), max_skipped=0.5)
    assert [(s.sample, s.reason, s.encoder) for s in found.skipped] == [
        ("p00/0.wav", "silent: every value is zero", None)
    ]
    assert len(found.embeddings[0].vectors) == 3


@pytest.mark.parametrize("name", CLASSES)
def test_constant_clip_is_finite(folders, name):
    assert np.isfinite(vectors(name, folders[name], [np.full(8000, 0.3, np.float32)])).all()


# Loading


@pytest.mark.parametrize("name", LAYERED)
def test_attention_is_fused_where_the_model_can(folders, name, seen):
    vectors(name, folders[name], RAGGED[:1])
    assert seen[-1][0].config._attn_implementation == ("eager" if name == "wavlm" else "sdpa")


@pytest.mark.parametrize("name", LAYERED)
def test_attention_that_config_json_asks_for_is_not_taken(folders, name, seen, tmp_path, no_network):
    folder = shutil.copytree(folders[name], tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    for key in ("_attn_implementation", "attn_implementation"):
        config[key] = "kernels-community/flash-attn"
    (folder / "config.json").write_text(json.dumps(config))
    vectors(name, folder, RAGGED[:1])
    assert seen[-1][0].config._attn_implementation in ("eager", "sdpa")


@pytest.mark.parametrize("name", CLASSES)
def test_bfloat16_is_close_and_in_the_description(folders, name):
    exact = vectors(name, folders[name], RAGGED[:1])[0, 0]
    found = vectors(name, folders[name], RAGGED[:1], "dtype=bfloat16")[0, 0]
    assert found.dtype == np.float32
    assert 1e-4 < np.linalg.norm(found - exact) / np.linalg.norm(exact) < 0.05
    for options, runtime in (("dtype=bfloat16", CPU), ("", replace(CPU, dtype="bfloat16"))):
        assert opened(name, folders[name], options, runtime)[0].preprocessing["dtype"] == "bfloat16"


def test_half_precision_weights_run_in_float32_unless_asked(copy, seen):
    folder = copy("hubert")
    transformers.HubertModel.from_pretrained(folder).half().save_pretrained(folder)
    vectors("hubert", folder, RAGGED[:1])
    assert seen[-1][0].dtype == torch.float32


def test_whatever_changes_vectors_changes_the_cache_key(copy):
    folder = copy("wavlm")
    changes = ["", "layer=2", "layer=last,dtype=bfloat16"]
    keys = {digest(describe(opened("wavlm", folder, options)[0])) for options in changes}
    changed_extractor(folder, do_normalize=False)
    keys.add(digest(describe(opened("wavlm", folder)[0])))
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "layer_norm_eps": 0.1}))
    keys.add(digest(describe(opened("wavlm", folder)[0])))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    keys.add(digest(describe(opened("wavlm", folder)[0])))
    assert len(keys) == 6
    assert digest(describe(opened("wavlm", folder, "name=other")[0])) in keys


def cached(monkeypatch, root: Path, folder: Path, repository: str) -> str:
    """Put a model into a hub cache under that name; its commit."""
    import huggingface_hub.constants

    sha = hashlib.sha1(repository.encode()).hexdigest()
    home = root / f"models--{repository.replace('/', '--')}"
    shutil.copytree(folder, home / "snapshots" / sha)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(sha)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root))
    return sha


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", CLASSES)
def test_default_checkpoint_is_found_by_name_in_the_hubs_cache(folders, name, tmp_path, monkeypatch):
    family = encoder_family(name, "voice")
    sha = cached(monkeypatch, tmp_path, folders[name], family.checkpoint)
    (encoder,) = open_encoders(checked_spec(name, "voice"), CPU)
    assert (encoder.revision, encoder.trained_on, encoder.licence) == (sha, family.trained_on, family.licence)
    model = encoder.load()
    assert_same(model.embed([model.prepare(RAGGED[0])]), vectors(name, folders[name], RAGGED[:1]))


@pytest.mark.usefixtures("no_network")
def test_checkpoint_that_is_not_there_offline_says_how_to_fetch_it(tmp_path, monkeypatch, folders):
    cached(monkeypatch, tmp_path, folders["wavlm"], "acme/tiny")
    with pytest.raises(EncoderFailed, match="encsel encoders fetch"):
        open_encoders(checked_spec("wavlm:acme/other", "voice"), CPU)


def test_facts_of_the_default_are_not_claimed_of_other_checkpoints(folders):
    (encoder,) = opened("wavlm-sv", folders["wavlm-sv"])
    assert encoder.trained_on == ""
    assert (encoder.licence, encoder.source) == (f"see the source of {folders['wavlm-sv'].name}",) * 2


def test_families_say_what_they_were_trained_on():
    trained_on = {name: encoder_family(name, "voice").trained_on for name in CLASSES}
    assert "VoxCeleb" in trained_on["wavlm-sv"]
    assert not any("VoxCeleb" in trained_on[name] for name in LAYERED)
    assert all("ASR" in trained_on[name] for name in ("hubert", "wav2vec2"))


def as_pickle(folder: Path, rename=lambda key: key) -> dict:
    """Turn a folder's weights into a pickle; what it holds."""
    from safetensors.torch import load_file

    weights = {rename(key): value for key, value in load_file(folder / "model.safetensors").items()}
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return weights


def test_pickled_weights_are_read_on_request_alone_and_equal(copy, folders):
    folder = copy("wavlm")
    as_pickle(folder)
    with pytest.raises(EncoderFailed, match=r"only pickled weights.*--allow-pickle"):
        opened("wavlm", folder)
    allowed = replace(CPU, allow_pickle=True)
    (encoder,) = opened("wavlm", folder, runtime=allowed)
    assert list(encoder.weights) == ["pytorch_model.bin"]
    assert (encoder.preprocessing["weights"], encoder.flags) == ("pickle, weights_only", ("pickled weights",))
    found = vectors("wavlm", folder, RAGGED[:1], runtime=allowed)
    assert_same(found, vectors("wavlm", folders["wavlm"], RAGGED[:1]))


@pytest.mark.parametrize("name", ["wavlm", "wavlm-sv"])
def test_pickled_weights_of_the_default_are_vouched_for(copy, name, tmp_path, monkeypatch):
    folder = copy(name)
    as_pickle(folder)
    cached(monkeypatch, tmp_path / "hub", folder, encoder_family(name, "voice").checkpoint)
    (encoder,) = open_encoders(checked_spec(name, "voice"), CPU)
    encoder.load()


class _Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_code_in_a_pickle_is_not_run(copy, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = copy("wavlm")
    as_pickle(folder)
    torch.save({"weights": _Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(EncoderFailed, match="do not load as WavLMModel"):
        opened("wavlm", folder, runtime=replace(CPU, allow_pickle=True))[0].load()
    assert not Path("exploded").exists()


@pytest.mark.parametrize("name", LAYERED)
def test_names_that_published_checkpoints_use_load_whole(copy, folders, name):
    """With the prefix of a fine-tuned model, its head, and the names weight norm had before torch 2."""
    folder = copy(name)
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}

    def rename(key):
        for new, was in old.items():
            key = key.replace(new, was)
        return f"{name}.{key}"

    weights = as_pickle(folder, rename)
    assert any(key.endswith("weight_g") for key in weights)
    torch.save({**weights, "lm_head.weight": torch.zeros(32, 32)}, folder / "pytorch_model.bin")
    found = vectors(name, folder, RAGGED[:1], runtime=replace(CPU, allow_pickle=True))
    assert_same(found, vectors(name, folders[name], RAGGED[:1]))


def drop(folder: Path, *keys: str) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    for key in keys:
        weights.pop(key)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", LAYERED)
@pytest.mark.parametrize("options", ["", "layer=2"])
def test_missing_weight_is_an_error_that_names_it(copy, name, options):
    folder = copy(name)
    drop(folder, "encoder.layers.1.attention.q_proj.weight")
    with pytest.raises(EncoderFailed, match=r"lacks 1 .*encoder\.layers\.1\.attention\.q_proj\.weight"):
        opened(name, folder, options)[0].load()


@pytest.mark.parametrize("name", CLASSES)
def test_vector_that_only_training_reads_may_be_missing(copy, folders, name):
    folder = copy(name)
    drop(folder, "wavlm.masked_spec_embed" if name == "wavlm-sv" else "masked_spec_embed")
    assert_same(vectors(name, folder, RAGGED[:1]), vectors(name, folders[name], RAGGED[:1]))


def test_model_of_another_family_is_refused(folders):
    with pytest.raises(EncoderFailed, match=r"architecture 'hubert'; wavlm reads wavlm\. Choose a checkpoint"):
        opened("wavlm", folders["hubert"])


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_size", "32"), ("num_hidden_layers", 0), ("conv_stride", [5, 2]), ("tdnn_kernel", None)]
)
def test_damaged_configuration_is_named(copy, key, value):
    folder = copy("wavlm")
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), key: value}))
    with pytest.raises(EncoderFailed, match=rf"as {key}.*Fetch it again"):
        opened("wavlm", folder)


def test_model_without_a_speaker_head_is_refused(folders):
    with pytest.raises(EncoderFailed, match=r"lacks .* weights of WavLMForXVector"):
        opened("wavlm-sv", folders["wavlm"])[0].load()


def test_model_with_an_adapter_is_refused(tmp_path):
    write_tiny_model(tmp_path, "Wav2Vec2Model", add_adapter=True)
    with pytest.raises(EncoderFailed, match="has an adapter after its layers"):
        opened("wav2vec2", tmp_path)


def test_revision_of_a_folder_is_refused(folders):
    with pytest.raises(UsageError, match="is a folder, which has no revision 'main'"):
        opened("wavlm", folders["wavlm"], "revision=main")


def test_tiny_model_is_the_same_every_time_and_leaves_the_random_state(tmp_path, folders):
    before = torch.random.get_rng_state()
    family = encoder_family("wavlm", "voice")
    family.write_tiny(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    again = (tmp_path / "model.safetensors").read_bytes()
    assert again == (folders["wavlm"] / "model.safetensors").read_bytes()
    assert len(again) < 1_000_000
