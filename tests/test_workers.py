"""Encoders with weights and plug-ins run in a process of their own each: what they do to it, they do to nobody else."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from media_samples import write_set
from plugins import environment, write_plugin
from toy_encoders import ToyModel, moments, toy

import encsel
from encsel.core import Runtime
from encsel.data.calibration_set import CalibrationSet
from encsel.embedding import engines
from encsel.embedding.channel import Channel
from encsel.embedding.embed import embed
from encsel.embedding.engines import engine_of
from encsel.embedding.health import examine
from encsel.embedding.model_run import BATCH_DEPENDENT, N_CHECKED, NOT_REPEATABLE
from encsel.errors import EncoderFailed
from encsel.loading.code import code_hash
from encsel.loading.hub import sha256_of
from encsel.loading.registry import checked_spec, encoder_families, foreign_code, open_encoders

N = 12
PACKAGE = Path(encsel.__file__).parents[1]
SOURCE = """
import os, signal, time
import numpy as np
from encsel.core import Encoder, EncoderFamily

class Model:
    def prepare(self, sample):
        {prepare}
        return sample
    def embed(self, batch):
        {embed}
        return np.array([[[s.mean(), s.std(), 1.0]] for s in batch], np.float32)

def load():
    {load}
    return Model()

def open_(spec, runtime):
    return (Encoder(name=spec.name, modality="face", dim=3, spec=str(spec), family="odd", version=1,
                    licence="none", source="a test", load=load, shares=str(spec)),)

ENCODER = EncoderFamily("odd", "face", 3, 1, "none", "a test", open=open_, checkpoint="default")
"""


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"), n_identities=N, n_samples=2)


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """Add a plug-in `odd` with these lines in its steps, and open it."""

    def add(**steps):
        source = SOURCE.format(**{step: steps.get(step, "pass") for step in ("load", "prepare", "embed")})
        monkeypatch.syspath_prepend(write_plugin(tmp_path / "odd", "plug_odd", source))
        importlib.invalidate_caches()
        encoder_families.cache_clear()
        return open_encoders(checked_spec("odd", "face"), Runtime())

    yield add
    encoder_families.cache_clear()
    sys.modules.pop("plug_odd", None)


ENDS = {
    "leaves when it embeds": ({"embed": "os._exit(0)"}, r"its process exited \(exit code 0\)"),
    "crashes when it loads": ({"load": "os.kill(os.getpid(), signal.SIGSEGV)"}, "its process was ended by SIGSEGV"),
    "is killed when it prepares": (
        {"prepare": "os.kill(os.getpid(), signal.SIGKILL)"},
        "its process was ended by SIGKILL; it may have run out of memory",
    ),
    "raises": ({"embed": "raise ValueError('odd')"}, "ValueError: odd"),
}


@pytest.mark.workers
@pytest.mark.parametrize(("steps", "reason"), ENDS.values(), ids=ENDS.keys())
def test_an_encoder_that_ends_its_process_fails_by_name_and_the_others_go_on(media, plug_in, steps, reason):
    found = embed(CalibrationSet.from_path(media), [*plug_in(**steps), toy()])
    assert [e.name for e in found.embeddings] == ["toy"]
    (failure,) = found.failures
    assert failure.encoder == "odd"
    assert re.match(reason, failure.reason)


def test_a_worker_that_ended_while_nobody_waited_is_a_failure_of_the_encoder():
    engine = engine_of(toy("odd", runtime=Runtime()), 1, 1)
    engine._process.kill()
    until(lambda: engine._end)
    with pytest.raises(EncoderFailed, match="was ended by SIGKILL"):
        engine.prepare(np.zeros(3))
    engine.close()


def test_a_worker_imports_nothing_of_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("open('imported', 'w')")
    monkeypatch.setattr(engines, "BOOT", "import json")
    engine = engine_of(toy("odd", runtime=Runtime()), 1, 1)
    until(lambda: engine._end)
    engine.close()
    assert not (tmp_path / "imported").exists()


@pytest.mark.workers
def test_a_hang_is_ended_and_no_process_is_left(media, plug_in):
    found = embed(CalibrationSet.from_path(media), [*plug_in(embed="time.sleep(600)"), toy()], timeout=3)
    assert [f.encoder for f in found.failures] == ["odd"]
    assert "did not finish within 3 s" in found.failures[0].reason
    assert [e.name for e in found.embeddings] == ["toy"]
    assert not children()


@pytest.mark.workers
def test_native_output_goes_to_stderr_and_writing_into_samples_changes_nobody_else_s(media, plug_in, capfd, tmp_path):
    alone = embed(CalibrationSet.from_path(media), [toy()]).embeddings[0]
    steps = {"prepare": "sample -= 7", "embed": "os.write(1, b'native'); print('in Python')"}
    found = embed(CalibrationSet.from_path(media), [*plug_in(**steps), toy()], cache=tmp_path / "cache")
    assert found.failures == ()
    odd, others = found.embeddings
    np.testing.assert_array_equal(others.vectors, alone.vectors)
    assert not np.allclose(odd.vectors[:, 0], alone.vectors[:, 0], atol=1)
    out, err = capfd.readouterr()
    assert out == ""
    assert "native" in err
    assert "in Python" in err
    assert not children()


def test_an_encoder_in_this_process_cannot_write_into_the_samples_of_others(media):
    def in_place(sample):
        sample -= 7
        return sample

    found = embed(CalibrationSet.from_path(media), [toy("odd", model=ToyModel(moments, in_place)), toy()])
    assert [e.name for e in found.embeddings] == ["toy"]
    assert "read-only" in found.failures[0].reason


@pytest.mark.workers
def test_a_worker_ends_with_the_process_that_started_it(media, plug_in, tmp_path):
    plug_in(embed=f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    arguments = ("embed", media, "--face", "odd", "--voice", "ltas", "--no-cache", "-o", tmp_path / "out")
    process = subprocess.Popen(
        [sys.executable, "-m", "encsel", *map(str, arguments)], env=environment(tmp_path / "odd", PACKAGE),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    worker = int((tmp_path / "pid").read_text())
    process.kill()
    process.wait()
    until(lambda: not is_running(worker))


@pytest.mark.workers
@pytest.mark.parametrize("n_rounds", [2, pytest.param(200, marks=pytest.mark.slow)])
def test_workers_killed_at_random_moments_fail_by_name_and_leave_no_wrong_vector(media, plug_in, tmp_path, n_rounds):
    encoders, calibration = [*plug_in(embed="time.sleep(0.02)"), toy()], CalibrationSet.from_path(media)
    started = time.monotonic()
    odd, sound = (e.vectors for e in embed(calibration, encoders, batch_size=2).embeddings)
    seconds, rng, n_failed = time.monotonic() - started, np.random.default_rng(0), 0
    for i in range(n_rounds):
        killer = threading.Timer(rng.uniform(0, seconds), lambda: [os.kill(pid, signal.SIGKILL) for pid in children()])
        killer.start()
        found = embed(calibration, encoders, cache=tmp_path / f"{i}", batch_size=2)
        killer.join()
        for failure in found.failures:
            assert (failure.encoder, failure.reason.partition(";")[0]) == ("odd", "its process was ended by SIGKILL")
        n_failed += len(found.failures)
        np.testing.assert_array_equal(found.embeddings[-1].vectors, sound)
        again = embed(calibration, encoders, cache=tmp_path / f"{i}", batch_size=2)
        assert again.failures == ()
        np.testing.assert_array_equal(again.embeddings[0].vectors, odd)
    assert n_rounds < 20 or n_failed > n_rounds / 4


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_running(pid):
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip()[:1] not in ("", "Z")


def children():
    """Workers of this process that still run."""
    command = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "encsel.embedding.worker" in line]


# --- vectors that depend on more than their sample


class Noisy(ToyModel):
    def __init__(self):
        super().__init__()
        self._numbers = itertools.count(1)

    def embed(self, batch):
        return super().embed(batch) * next(self._numbers)


class Normalising(ToyModel):
    """As with batch norm left in train mode."""

    def embed(self, batch):
        vectors = super().embed(batch)
        return vectors - vectors.mean(axis=0) / 2


class OtherInLargeBatches(ToyModel):
    def embed(self, batch):
        return super().embed(batch) * (2 if len(batch) > N_CHECKED else 1)


class OtherAlone(ToyModel):
    def embed(self, batch):
        return super().embed(batch) * (2 if len(batch) == 1 else 1)


@pytest.mark.parametrize(
    ("model", "remark"),
    [(Noisy, NOT_REPEATABLE), *((model, BATCH_DEPENDENT) for model in (Normalising, OtherInLargeBatches, OtherAlone))],
)
def test_vectors_that_depend_on_more_than_their_sample_are_told_and_never_cached(media, tmp_path, model, remark):
    calibration = CalibrationSet.from_path(media)
    for _ in range(2):
        odd, sound = embed(calibration, [toy("odd", model=model()), toy()], cache=tmp_path).embeddings
        assert remark in odd.traits.flags
        assert remark in examine(odd).findings
        assert sound.traits.flags == ()
        assert not {NOT_REPEATABLE, BATCH_DEPENDENT} & set(examine(sound).findings)


# --- what is in the key


def test_the_code_of_a_plug_in_is_in_its_key(plug_in, tmp_path):
    (first,) = plug_in()
    (same,) = plug_in()
    sys.modules.pop("plug_odd")
    (other,) = plug_in(embed="x = 1")
    assert first.code == same.code
    assert first.code["distribution"] == "plug_odd 1.0"
    assert first.code["sha256"] != other.code["sha256"]


def test_every_module_of_a_package_is_in_the_key_of_its_plug_in(tmp_path, monkeypatch):
    files = [tmp_path / "plug_package" / name for name in ("__init__.py", "inner/__init__.py", "inner/native.so")]
    (tmp_path / "plug_package" / "inner").mkdir(parents=True)
    for path in files:
        path.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    hashes = [code_hash("plug_package.inner")]
    for path in files:
        path.write_text("#")
        hashes.append(code_hash("plug_package.inner"))
    assert len(set(hashes)) == 4


def test_a_worker_that_opens_other_weights_than_were_hashed_fails(monkeypatch, tmp_path):
    engine = engine_of(toy("odd", folder=tmp_path, revision="hashed", code={}, runtime=Runtime()), 1, 1)
    answer = {"folder": str(tmp_path), "revision": "hashed", "code": {}, "on_gpu": False}
    monkeypatch.setattr(engine, "_call", lambda order: (answer, []))
    try:
        engine.load()
        for other in ({"folder": "other"}, {"code": {"sha256": "other"}}):
            monkeypatch.setattr(engine, "_call", lambda order, other=other: (answer | other, []))
            with pytest.raises(EncoderFailed, match="weights or its code were replaced"):
                engine.load()
    finally:
        engine.close()


def test_weights_that_change_while_they_are_loaded_fail_their_encoder(media, tmp_path):
    (path := tmp_path / "weights").write_text("good")
    hashes = {path.name: sha256_of(path)}

    class Rewriting(ToyModel):
        pass

    def load():
        path.write_text("other")
        return Rewriting()

    odd = toy("odd", folder=tmp_path, weights=hashes, load=load)
    found = embed(CalibrationSet.from_path(media), [odd, toy()])
    assert [f.encoder for f in found.failures] == ["odd"]
    assert "weights changed while it was being loaded" in found.failures[0].reason


def test_a_plug_in_cannot_end_this_process_on_import(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(write_plugin(tmp_path, "plug_leaves", "import os; os._exit(0)"))
    importlib.invalidate_caches()
    encoder_families.cache_clear()
    with pytest.raises(EncoderFailed, match=r"plug_leaves.*os\._exit\(0\)"):
        encoder_families()
    encoder_families.cache_clear()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_processes_that_foreign_code_forks_end_themselves():
    with foreign_code():
        child = os.fork()
        if child == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        with pytest.raises(SystemExit, match=r"os\._exit\(3\)"):
            os._exit(3)


def test_a_second_interrupt_ends_the_process_while_foreign_code_runs():
    source = (
        "import os, signal, time\nfrom encsel.cli.interruption import Interruption\n"
        "from encsel.loading.registry import foreign_code\nInterruption().watch()\n"
        "with foreign_code():\n    for _ in range(2):\n        try:\n            os.kill(os.getpid(), signal.SIGINT)\n"
        "            time.sleep(60)\n        except KeyboardInterrupt:\n            pass\n    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", source], env=environment(PACKAGE), capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (5, b"encsel: Interrupted.\n")


# --- the channel


def test_arrays_and_messages_arrive_as_they_were_sent():
    reading, writing = os.pipe()
    channel = Channel(os.fdopen(reading, "rb", buffering=0), os.fdopen(writing, "wb"))
    arrays = [
        np.arange(6, dtype=np.uint8).reshape(2, 3)[:, ::-1],
        np.empty((0, 3), np.float32),
        np.float64(2.5).reshape(()),
    ]
    channel.send({"id": 3, "text": "é\ud800"}, arrays)
    message, got = channel.receive()
    assert message == {"id": 3, "text": "é\ud800"}
    for sent, arrived in zip(arrays, got, strict=True):
        assert (sent.dtype, sent.shape) == (arrived.dtype, arrived.shape)
        np.testing.assert_array_equal(sent, arrived)
