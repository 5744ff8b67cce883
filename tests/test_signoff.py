"""Fetched weights are recorded by hash at their first use, and refused when they are others later."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from toy_encoders import toy

from encsel.core import Runtime, Spec
from encsel.errors import EncoderFailed, UsageError
from encsel.loading.registry import checked_spec, open_encoders
from encsel.loading.signoff import NOT_RECORDED, Changed, record_path, signed_off

SHA = "0123456789abcdef0123456789abcdef01234567"
FILES = {"model.safetensors": "a" * 64}
SPEC = Spec("toy")


def encoder(files=FILES, revision: str | None = SHA):
    return dataclasses.replace(toy(), weights=files, revision=revision)


def check(spec=SPEC, signing="check", **changes):
    return signed_off(spec, "acme/tiny", [encoder(**changes)], signing)


def recorded():
    return json.loads(record_path().read_text())["weights"]


def test_first_use_records_and_later_ones_agree():
    assert not record_path().exists()
    assert check()[0].flags == ()
    assert recorded() == {"toy:acme/tiny": {"revision": SHA, "files": FILES}}
    before = record_path().stat()
    assert check()[0].flags == ()
    assert record_path().stat() == before


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"model.safetensors": "b" * 64}, "model.safetensors was aaaaaaaaaaaa and is bbbbbbbbbbbb"),
        ({**FILES, "second.safetensors": "c" * 64}, "second.safetensors was no such file and is cccccccccccc"),
        ({"other.safetensors": "a" * 64}, "model.safetensors was aaaaaaaaaaaa and is no such file"),
    ],
)
def test_other_weights_are_refused_with_what_to_do(files, words):
    check()
    with pytest.raises(Changed) as caught:
        check(files=files)
    assert words in str(caught.value)
    assert str(caught.value).endswith("encsel encoders fetch --sign-off toy")
    assert caught.value.exit_code == 4
    assert recorded()["toy:acme/tiny"]["files"] == FILES


def test_another_revision_with_the_same_weights_is_fine_and_with_others_names_the_old_one():
    check()
    check(revision="f" * 40)
    with pytest.raises(Changed, match=f"pin @revision={SHA}"):
        check(files={"model.safetensors": "b" * 64}, revision="f" * 40)


def test_new_weights_can_be_signed_off():
    check()
    other = {"model.safetensors": "b" * 64}
    check(files=other, signing="renew")
    assert recorded()["toy:acme/tiny"]["files"] == other
    check(files=other)
    with pytest.raises(Changed):
        check()


def test_checkpoints_and_pinned_revisions_have_entries_of_their_own(tmp_path):
    check()
    check(Spec("toy", "acme/other"), files={"x.safetensors": "1" * 64})
    check(Spec("toy", None, {"revision": "v2"}), files={"x.safetensors": "2" * 64})
    assert set(recorded()) == {"toy:acme/tiny", "toy:acme/other", "toy:acme/tiny@revision=v2"}


def test_weights_in_a_folder_of_the_user_and_encoders_without_weights_are_not_recorded(tmp_path):
    check(Spec("toy", str(tmp_path)))
    check(files={})
    check(signing="look")
    assert not record_path().exists()


def test_record_that_cannot_be_written_is_said_by_a_flag(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ENCSEL_WEIGHTS", str(tmp_path / "file" / "weights.json"))
    with pytest.raises(UsageError):  # not a folder: it cannot be read, either
        check()
    monkeypatch.setenv("ENCSEL_WEIGHTS", "/proc/weights.json")
    (found,) = check()
    assert found.flags == (NOT_RECORDED,)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"schema": "encsel.weights/2", "weights": {}}', '{"schema": "encsel.weights/1"}',
     '{"schema": "encsel.weights/1", "weights": []}', '{"schema": "encsel.weights/1", "weights": {"a": {}}}',
     '{"schema": "encsel.weights/1", "weights": {"toy:acme/tiny": {"files": 3, "revision": null}}}', "[" * 9999],
)  # fmt: skip
def test_damaged_record_is_an_error_that_names_it(content):
    record_path().write_text(content)
    with pytest.raises(UsageError, match="Fix it, or remove it to start again") as caught:
        check()
    assert str(record_path()) in str(caught.value)


def test_record_is_in_the_state_folder_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("ENCSEL_WEIGHTS")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert record_path() == tmp_path / ".local" / "state" / "encsel" / "weights.json"
    check()
    assert record_path().exists()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "own"))
    assert record_path() == tmp_path / "own" / "encsel" / "weights.json"


def record_one(name, barrier):
    barrier.wait()
    check(Spec("toy", name))


def test_processes_that_record_at_once_lose_nothing():
    context = multiprocessing.get_context("fork")
    for round_ in range(2):
        barrier = context.Barrier(6)
        names = [f"acme/{round_}-{i}" for i in range(6)]
        workers = [context.Process(target=record_one, args=(name, barrier)) for name in names]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
        assert {f"toy:{name}" for name in names} <= set(recorded())


# --- with a hub's cache


@pytest.fixture
def snapshot(monkeypatch, tmp_path) -> Path:
    """Folder of acme/tiny, a DINOv2 that is found but never loaded, in a hub cache made by hand."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    home = tmp_path / "hub" / "models--acme--tiny"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(SHA)
    folder = home / "snapshots" / SHA
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "dinov2", "hidden_size": 32}')
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "BitImageProcessor"}')
    safetensors.numpy.save_file({"weight": np.zeros(9, np.float32)}, folder / "model.safetensors")
    return folder


def test_one_changed_bit_of_a_fetched_checkpoint_is_refused_at_the_next_use(snapshot):
    spec, runtime = checked_spec("dinov2:acme/tiny", "face"), Runtime(device="cpu", offline=True)
    (first,) = open_encoders(spec, runtime)
    assert recorded()["dinov2:acme/tiny"] == {"revision": SHA, "files": dict(first.weights)}
    path = snapshot / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(EncoderFailed, match=r"The encoder dinov2:acme/tiny: the weights are not those signed off"):
        open_encoders(spec, runtime)
    open_encoders(spec, runtime, signing="renew")
    open_encoders(spec, runtime)
