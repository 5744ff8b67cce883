"""ecapa on a tiny random model: against SpeechBrain's own loader, lengths, damaged files, pickles, no connection."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from encsel.core import SAMPLING_RATE, Encoder, Model, Runtime
from encsel.encoders import ecapa
from encsel.errors import EncoderFailed, UnusableSample, UsageError
from encsel.loading.registry import open_encoders
from encsel.loading.spec import parse

OFFLINE = Runtime(device="cpu", offline=True)
PICKLES = Runtime(device="cpu", offline=True, allow_pickle=True)
pytestmark = pytest.mark.usefixtures("one_thread")
PICKLE_FLAG = ("pickled weights, read with weights_only",)


def opened(spec: str, runtime: Runtime = OFFLINE) -> Encoder:
    (encoder,) = open_encoders(parse(spec), runtime)
    return encoder


def embedded(model: Model, *clips: np.ndarray) -> np.ndarray:
    return model.embed([model.prepare(clip) for clip in clips])[:, 0]


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = round(seconds * SAMPLING_RATE)
    tone = np.sin(2 * np.pi * (100 + 40 * seed) * np.arange(n) / SAMPLING_RATE)
    return (0.3 * tone + 0.05 * rng.normal(size=n)).astype(np.float32)


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> str:
    return ecapa.write_tiny(tmp_path_factory.mktemp("ecapa"))


@pytest.fixture(scope="module")
def folder(spec) -> Path:
    return Path(parse(spec).checkpoint)


@pytest.fixture(scope="module")
def model(spec) -> Model:
    return opened(spec).load()


@pytest.fixture
def pickled(folder, tmp_path) -> Path:
    """The same weights as SpeechBrain publishes its own."""
    torch.save(load_file(folder / ecapa.SAFE), tmp_path / ecapa.PICKLED)
    return tmp_path


HYPERPARAMETERS = """
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 80
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 80
    channels: [16, 16, 16, 16, 48]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 8
    se_channels: 8
    lin_neurons: 12
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 12
    out_neurons: 2
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
    paths:
        embedding_model: FOLDER/embedding_model.ckpt
"""
"""The published model's file, but for the sizes."""


def test_vector_is_that_of_speechbrains_own_loader(model, pickled, tmp_path):
    from speechbrain.inference.classifiers import EncoderClassifier

    (pickled / "hyperparams.yaml").write_text(HYPERPARAMETERS.replace("FOLDER", str(pickled)))
    reference = EncoderClassifier.from_hparams(source=str(pickled), savedir=str(tmp_path / "saved"))
    one = clip(2)
    expected = reference.encode_batch(torch.from_numpy(one)).detach().numpy()[0]
    np.testing.assert_array_equal(embedded(model, one), expected)


# Lengths


def test_clips_of_nearly_one_length_are_cut_to_one(model):
    assert {len(model.prepare(clip(seconds))) for seconds in (2, 2.1, 2.24)} == {2 * SAMPLING_RATE}


def test_what_is_cut_off_does_not_matter(model):
    long = clip(2.2)
    np.testing.assert_array_equal(embedded(model, long), embedded(model, long[: 2 * SAMPLING_RATE]))


def test_batches_must_be_of_one_length(spec):
    assert opened(spec).equal_lengths


def test_shortest_clip_the_network_takes_is_embedded_and_a_shorter_one_refused(model):
    assert np.isfinite(embedded(model, clip(0.04))).all()
    with pytest.raises(UnusableSample, match=r"too short for this encoder: 0.040 s, at least 0.04 s"):
        model.prepare(clip(0.04)[:-1])


def test_constant_and_silent_clips_give_finite_vectors(model):
    for value in (0, 0.3):
        assert np.isfinite(embedded(model, np.full(SAMPLING_RATE, value, np.float32))).all()


# Files


def test_sizes_come_from_the_weights(spec, model):
    encoder = opened(spec)
    assert encoder.dim == 12
    assert embedded(model, clip(1)).shape == (1, 12)


def test_published_sizes_are_recognised():
    _, _, ecapa_tdnn = ecapa._speechbrain()
    with torch.device("meta"):
        network = ecapa_tdnn(80, channels=[1024] * 4 + [3072], lin_neurons=192)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    sizes = ecapa._architecture(shapes, "published")
    assert sizes["channels"] == [1024, 1024, 1024, 1024, 3072]
    assert (sizes["attention_channels"], sizes["se_channels"], sizes["res2net_scale"]) == (128, 128, 8)
    assert sizes["lin_neurons"] == ecapa.ENCODER.dim == 192
    assert sum(p.numel() for p in network.parameters()) == ecapa.ENCODER.n_parameters


def test_pickled_weights_of_a_folder_are_read_on_request_alone(pickled, model):
    with pytest.raises(EncoderFailed, match=r"only pickled weights.*--allow-pickle"):
        opened(f"ecapa:{pickled}")
    encoder = opened(f"ecapa:{pickled}", PICKLES)
    assert encoder.flags == PICKLE_FLAG
    assert set(encoder.weights) == {ecapa.PICKLED}
    np.testing.assert_array_equal(embedded(encoder.load(), clip(1)), embedded(model, clip(1)))


def test_safetensors_are_preferred_to_a_pickle(spec, folder, pickled):
    shutil.copy(folder / ecapa.SAFE, pickled)
    encoder = opened(f"ecapa:{pickled}")
    assert encoder.flags == ()
    assert encoder.weights == opened(spec).weights


@pytest.fixture
def hub(pickled, tmp_path, monkeypatch) -> str:
    """A hub cache that holds the tiny weights in the place of the published ones; returns the commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub"
    repository = cache / "models--speechbrain--spkrec-ecapa-voxceleb"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    shutil.copy(pickled / ecapa.PICKLED, repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return commit


def test_default_checkpoint_loads_offline_without_a_connection(hub, no_network, model):
    encoder = opened("ecapa")
    assert encoder.revision == hub
    assert encoder.flags == PICKLE_FLAG
    assert encoder.name == "ecapa"
    assert encoder.trained_on == "VoxCeleb1 and VoxCeleb2"
    np.testing.assert_array_equal(embedded(encoder.load(), clip(1)), embedded(model, clip(1)))


def test_absent_checkpoint_is_not_looked_for_offline(tmp_path, monkeypatch, no_network):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderFailed, match=r"\(offline\).*encsel encoders fetch"):
        opened("ecapa")


def test_folder_is_said_to_know_the_people_the_published_model_knows(spec):
    encoder = opened(spec)
    assert "VoxCeleb" in encoder.trained_on


def test_revision_of_a_folder_is_an_error(spec):
    with pytest.raises((UsageError, EncoderFailed), match="has no revision"):
        opened(f"{spec}@revision=abc")


def test_one_byte_of_the_weights_changes_the_hash(spec, folder, tmp_path):
    state = load_file(folder / ecapa.SAFE)
    state["fc.conv.bias"][0] += 1e-3
    save_file(state, tmp_path / ecapa.SAFE)
    assert opened(f"ecapa:{tmp_path}").weights != opened(spec).weights


def changed(folder: Path, to: Path, **changes: torch.Tensor | None) -> str:
    """The spec of a copy of the weights, some of them replaced, added or (None) left out."""
    state = {**load_file(folder / ecapa.SAFE), **{key.replace("__", "."): value for key, value in changes.items()}}
    save_file({key: value for key, value in state.items() if value is not None}, to / ecapa.SAFE)
    return f"ecapa:{to}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"asp_bn__norm__weight": None}, r"lacks 1 weights.*has 0.*asp_bn.norm.weight"),
        ({"head__weight": torch.zeros(3)}, r"lacks 0 weights.*has 1.*head.weight"),
        ({"fc__conv__weight": None}, r"has no three-axis fc.conv.weight"),
        ({"asp_bn__norm__weight": torch.zeros(7)}, r"does not fit ECAPA-TDNN.*asp_bn.norm.weight"),
        ({"asp__tdnn__conv__conv__weight": torch.zeros(8, 48, 1)}, r"does not fit ECAPA-TDNN"),
        ({"blocks__0__conv__conv__weight": torch.zeros(16, 60, 5)}, r"needs features of shape \(60, 5\)"),
        ({"blocks__0__conv__conv__weight": torch.zeros(())}, r"has no three-axis blocks.0.conv.conv.weight"),
        ({"fc__conv__weight": torch.zeros(())}, r"has no three-axis fc.conv.weight"),
        ({"blocks__1__tdnn1__conv__conv__weight": torch.zeros(12, 16, 1)}, r"does not fit ECAPA-TDNN"),
    ],
)
def test_weights_of_another_network_are_refused(folder, tmp_path, changes, message):
    with pytest.raises(EncoderFailed, match=message):
        opened(changed(folder, tmp_path, **changes)).load()


def test_weights_of_another_kind_of_model_are_refused(tmp_path):
    save_file({"vision_model.embeddings": torch.zeros(2, 2)}, tmp_path / ecapa.SAFE)
    with pytest.raises(EncoderFailed, match="Check that it is an ECAPA model"):
        opened(f"ecapa:{tmp_path}")


def test_folder_without_the_embedding_model_is_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(EncoderFailed, match=r"has model.safetensors; embedding_model.safetensors is needed"):
        opened(f"ecapa:{tmp_path}")


@pytest.mark.parametrize("keep", [0, 100, 30_000])
@pytest.mark.parametrize("name", [ecapa.SAFE, ecapa.PICKLED])
def test_damaged_file_is_refused(folder, pickled, name, keep):
    shutil.copy(folder / ecapa.SAFE, pickled)
    (pickled / ({ecapa.SAFE, ecapa.PICKLED} - {name}).pop()).unlink()
    file = pickled / name
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(EncoderFailed, match=f"{name} is damaged.*Fetch the checkpoint again"):
        opened(f"ecapa:{pickled}", PICKLES)


class Code:
    def __reduce__(self):
        return os.mkdir, ("was-run",)


@pytest.mark.parametrize("write", [torch.save, lambda value, file: file.write_bytes(pickle.dumps(value, 2))])
def test_pickle_that_runs_code_is_refused_and_not_run(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write({"weights": Code()}, tmp_path / ecapa.PICKLED)
    with pytest.raises(EncoderFailed, match="is damaged or holds more than weights"):
        opened(f"ecapa:{tmp_path}", PICKLES)
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}])
def test_pickle_without_a_table_of_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / ecapa.PICKLED)
    with pytest.raises(EncoderFailed, match="is not a table of weights"):
        opened(f"ecapa:{tmp_path}", PICKLES)


# The machine


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_near_float32_and_is_another_encoder(spec, model, dtype):
    encoder = opened(f"{spec}@dtype={dtype}")
    assert dtype in encoder.preprocessing["dtype"]
    clips = [clip(0.5, seed) for seed in range(3)]
    half, full = embedded(encoder.load(), *clips), embedded(model, *clips)
    assert not np.array_equal(half, full)
    cosine = (half * full).sum(1) / np.linalg.norm(half, axis=1) / np.linalg.norm(full, axis=1)
    assert (1 - cosine < 1e-3).all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_missing_gpu_is_an_error(spec):
    encoder = opened(spec, Runtime(device="cuda"))
    with pytest.raises(EncoderFailed, match="device 'cuda' cannot be used"):
        encoder.load()


@pytest.mark.parametrize("error", [ImportError("no torchaudio"), OSError("libcudart"), RuntimeError("CUDA 12 and 13")])
def test_speechbrain_that_does_not_load_names_the_remedy(spec, monkeypatch, error):
    encoder = opened(spec)
    importing = importlib.import_module

    def failing(name, *args):
        if name.startswith("speechbrain"):
            raise error
        return importing(name, *args)

    monkeypatch.setattr(importlib, "import_module", failing)
    words = rf"speechbrain\S* does not load \(\w+: {error}\).*pip install 'encsel\[speechbrain\]'"
    with pytest.raises(EncoderFailed, match=words):
        encoder.load()


def test_loading_prints_nothing_connects_nowhere_and_leaves_torch_as_it_was(spec):
    code = f"""
import json, socket, sys, torch
def refuse(*a, **k): raise AssertionError("a connection was tried")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
def state(): return [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.is_grad_enabled()]
before = state()
import numpy as np
from encsel.core import Runtime
from encsel.loading.registry import open_encoders
from encsel.loading.spec import parse
(encoder,) = open_encoders(parse({spec!r}), Runtime(device="cpu", offline=True))
model = encoder.load()
model.embed([model.prepare(np.ones(16000, np.float32))])
print(json.dumps([before, state()]), file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == ""
    before, after = json.loads(result.stderr.splitlines()[-1])
    assert before == after
