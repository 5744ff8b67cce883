"""Encoders and pairs on the workers of a Dask or Ray cluster, and encoders side by side on several devices."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_samples import write_set
from plugins import write_plugin
from toy_encoders import toy

import encsel
from encsel.core import Runtime
from encsel.data.calibration_set import CalibrationSet
from encsel.embedding import shards
from encsel.embedding.embed import embed
from encsel.errors import UsageError
from encsel.loading.onnx_files import CPU, execution_providers
from encsel.loading.registry import checked_spec, encoder_families, open_encoders
from encsel.parallel import calls, cluster, tasks

ROOT = Path(encsel.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
ENCSEL = """
import pytest, sys
from toy import few_shuffles
from encsel.cli import main
from encsel.embedding import shards
shards.SHARD = {}
few_shuffles(pytest.MonkeyPatch())
main()
"""
WAITING = """
import os, time
from pathlib import Path
import numpy as np

def waiting(samples):
    here = Path(__file__).parent
    if samples[0].shape[0] == 48 and not (here / "go").exists():  # not the made-up sample
        (here / f"embeds.{os.getppid()}").touch()
        while not (here / "go").exists():
            time.sleep(0.01)
    return np.stack([[s.mean(), s.std(), s.min(), s.max(), np.median(s)] for s in samples])

def failing(samples):
    if samples[0].shape[0] == 48:
        raise ValueError("not these")
    return np.zeros((len(samples), 3))
"""


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


_started: list[subprocess.Popen[str]] = []


def start(*words: object, shard: int = 18, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ENCSEL.format(shard), *map(str, words)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT, **options}
    _started.append(subprocess.Popen(command, **options))
    return _started[-1]


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    yield
    while _started:
        _started.pop().kill()


def output(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return out, err


class DaskCluster:
    """A scheduler of its own on loopback, and workers."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._processes = folder, list[subprocess.Popen[bytes]]()

    def begin(self) -> None:
        folder = self._folder
        self._start("scheduler", "--port", "0", "--scheduler-file", folder / "scheduler.json")
        until(lambda: (folder / "scheduler.json").exists() and (folder / "scheduler.json").read_text().endswith("}"))
        self.address = json.loads((folder / "scheduler.json").read_text())["address"]

    def worker(self) -> subprocess.Popen[bytes]:
        """A new worker of one thread, which nobody starts again when it is killed."""
        return self._start("worker", self.address, "--nthreads", "1", "--no-nanny", "--local-directory", self._folder)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, what: str, *words: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", what, *map(str, words), "--host", "127.0.0.1", "--no-dashboard"]
        log = (self._folder / f"{what}{len(self._processes)}.log").open("wb")
        self._processes.append(subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, cwd=self._folder))
        return self._processes[-1]


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[DaskCluster]:
    pytest.importorskip("distributed")
    (tmp_path / "dask").mkdir()
    cluster = DaskCluster(tmp_path / "dask")
    try:
        cluster.begin()
        yield cluster
    finally:
        cluster.close()


def on(cluster: DaskCluster) -> list[str]:
    return ["--backend", "dask", "--scheduler", cluster.address]


def skips(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("skipped")]


def test_a_killed_worker_costs_one_shard_and_changes_no_byte(tmp_path, dask, call, monkeypatch):
    workers = {process.pid: process for process in (dask.worker(), dask.worker())}
    write_set(tmp_path / "set", 12, 3)
    (tmp_path / "set" / "faces" / "p03" / "01.png").write_bytes(b"not a picture")
    (tmp_path / "f.py").write_text(WAITING)
    # Paths are relative, and workers run in another folder.
    words = ("set", "--face", "py:f.py:waiting", "--voice", "mfcc")
    ran = start("embed", *words, "-o", "out", "--cache", "cache", *on(dask), cwd=tmp_path)
    until(lambda: list(tmp_path.glob("embeds.*")))
    victim = next(pid for path in tmp_path.glob("embeds.*") if (pid := int(path.suffix[1:])) in workers)
    workers.pop(victim).kill()
    third = dask.worker()
    (tmp_path / "go").touch()
    _, err = output(ran)

    # The same on this machine.
    monkeypatch.chdir(tmp_path)
    code, _, told = call("embed", *words, "-o", "local", "--cache", "of_local")
    assert (code, content(tmp_path / "out")) == (0, content(tmp_path / "local"))
    assert skips(err) == skips(told) != []

    limits = ("--min-identities", "10", "--only", "matching,prediction", "--show-names", "--format", "json")
    validated = start("validate", *words, *limits, "--cache", "cache", *on(dask), cwd=tmp_path)
    for line in validated.stderr:
        if line.startswith("cka"):  # in the middle
            third.kill()
            break
    out, _ = output(validated)
    assert out == call("validate", *words, *limits, "--cache", "of_local", "-q")[1]


def test_a_scheduler_must_answer_and_have_workers(dask, monkeypatch, call, tmp_path):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "set", 2, 1)
    words = ("embed", "set", "-o", "out", "--backend", "dask", "--scheduler")
    for address, reason in (
        (dask.address, f"The Dask scheduler at {dask.address} has no workers. Start some: `dask worker"),
        ("tcp://127.0.0.1:1", "No Dask scheduler answers at tcp://127.0.0.1:1"),
        ("nowhere", "No Dask scheduler answers at nowhere"),
    ):
        code, _, err = call(*words, address)
        assert (code, reason in err) == (2, True), err


def test_backends_say_what_they_need(monkeypatch, call, tmp_path):
    for options, reason in (
        ({"backend": "dask"}, r"needs the address of a scheduler: --scheduler tcp://HOST:8786"),
        ({"scheduler": "tcp://a:1"}, r"belongs to no backend. Add --backend dask, or ray"),
        ({"backend": "spark"}, r"No backend is named 'spark'. Choose one of: local, dask, ray"),
        ({"backend": "ray", "cache": None}, r"needs a cache, a folder that all workers see"),
        ({"backend": "ray", "device": "cuda:0,cuda:1"}, r"Start one worker per GPU, and leave --device out"),
    ):
        with pytest.raises(UsageError, match=reason):
            encsel.rank(tmp_path, **options)
    code, _, err = call("validate", tmp_path, "--backend", "dask")
    assert (code, "--scheduler tcp://HOST:8786" in err) == (2, True)
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    for backend, address in (("dask", "tcp://a:1"), ("ray", None)):
        with pytest.raises(UsageError, match=rf"is not installed. .* pip install 'encsel\[{backend}\]'"):
            encsel.validate(tmp_path, backend=backend, scheduler=address)


def test_a_ray_cluster_must_answer():
    pytest.importorskip("ray")
    with (
        pytest.raises(UsageError, match=r"No Ray cluster answers at 127.0.0.1:1 .* `ray start --head`"),
        tasks.running_on(Runtime(backend="ray", scheduler="127.0.0.1:1")),
    ):
        pass


def test_a_settings_file_does_not_choose_who_gets_the_embeddings(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("encsel.toml").write_text('backend = "dask"\nscheduler = "tcp://elsewhere:8786"\n')
    code, _, err = call("rank", "set")
    assert (code, "scheduler is allowed on the command line only" in err) == (2, True)


# --- Ray, and many kills

RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'encsel[ray]'"
)


@pytest.mark.slow
@RAY
def test_a_killed_worker_of_ray_costs_one_shard_and_changes_no_byte(tmp_path, call, monkeypatch):
    """On a Ray of its own, whose token and logs are in a folder of the test."""
    (tmp_path / "home").mkdir()
    monkeypatch.setitem(ENVIRONMENT, "HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "set", 12, 3)
    (tmp_path / "f.py").write_text(WAITING)
    words = ("set", "--face", "hog", "--face", "py:f.py:waiting", "--face", "py:f.py:failing", "--voice", "mfcc")
    ran = start("embed", *words, "-o", "out", "--cache", "cache", "--backend", "ray")
    until(lambda: list(tmp_path.glob("embeds.*")), 60)
    os.kill(int(next(tmp_path.glob("embeds.*")).suffix[1:]), signal.SIGKILL)  # a worker of Ray, by its number
    (tmp_path / "go").touch()
    _, err = output(ran, 4)
    assert "py:f.py:failing failed: ValueError: not these" in err
    assert call("embed", *words, "-o", "local", "--cache", "of_local", "-q")[0] == 4
    assert content(tmp_path / "out") == content(tmp_path / "local")
    words = (*words[:5], *words[7:], "--min-identities", "10", "--only", "matching,prediction", "--show-names")
    words = (*words, "--format", "json", "-q")
    out, _ = output(start("validate", *words, "--cache", "cache", "--backend", "ray"))
    assert out == call("validate", *words, "--cache", "of_local")[1]


@pytest.mark.slow
def test_every_stage_and_many_kills_on_dask_change_no_byte(tmp_path, dask, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "set", 30, 3)
    words = ("set", "--face", "hog", "--face", "pixels", "--voice", "mfcc", "--voice", "ltas", "--show-names")
    workers = [dask.worker(), dask.worker()]
    for command in ("validate", "rank"):
        (tmp_path / "expected").write_text(call(command, *words, "--format", "json", "--cache", "of_local", "-q")[1])
        with (tmp_path / "out").open("w") as out:
            ran = start(command, *words, "--format", "json", "--cache", command, *on(dask), shard=7, stdout=out)
            for n, _ in enumerate(ran.stderr):
                if n % 6 == 5:
                    workers.append(dask.worker())
                    workers.pop(0).kill()
        assert ran.wait(60) == 0
        assert (tmp_path / "out").read_text() == (tmp_path / "expected").read_text()


# --- What a task is made of, without a cluster


class Task:
    def __init__(self, arguments):
        self.arguments = arguments


class Nowhere:
    """A cluster whose tasks run when their results are wanted, on what would have been sent."""

    def __init__(self) -> None:
        pytest.importorskip("cloudpickle")
        self.tasks, self.shared, self.cancelled = [], [], []

    def n_slots(self):
        return 2

    def share(self, value):
        self.shared.append(value)
        return len(self.shared) - 1

    def submit(self, arguments, *, gpu):
        self.tasks.append(Task(arguments))
        return self.tasks[-1]

    def finished(self, tasks):
        return [tasks[-1]]

    def result(self, task):
        made_with, parts, keys, *handles = task.arguments
        return pickle.loads(pickle.dumps(calls.answer(made_with, parts, keys, *(self.shared[i] for i in handles))))

    def cancel(self, tasks):
        self.cancelled += tasks


@pytest.fixture
def nowhere(monkeypatch):
    nowhere = Nowhere()
    token = tasks._packer.set(calls.Packer(nowhere))
    yield nowhere
    tasks._packer.reset(token)


@pytest.mark.parametrize("in_file", [False, True])
def test_large_arrays_are_sent_once_however_many_calls_use_them(nowhere, tmp_path, in_file):
    big, small = np.arange(100_000.0), np.arange(3.0)
    if in_file:
        np.save(tmp_path / "big.npy", big)
        big = np.load(tmp_path / "big.npy", mmap_mode="r")

    def total(k: int, factor: np.ndarray) -> float:
        return k + big.sum() + factor.sum()

    for _ in range(2):
        totals = [(total, (k, small), {}) for k in range(5)]
        assert dict(tasks.run(totals)) == {k: total(k, small) for k in range(5)}
    assert len(nowhere.shared) == 1
    assert max(len(part) for task in nowhere.tasks for part in task.arguments[1]) < 10_000


def test_arrays_arrive_aligned_wherever_they_were_put():
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(calls.Shared(np.arange(9.0)), protocol=5, buffer_callback=buffers.append)
    crooked = bytearray(1) + bytearray(buffers[0])
    arrived = pickle.loads(content, buffers=[memoryview(crooked)[1:]]).value
    assert arrived.flags.aligned
    assert arrived.tolist() == [*range(9)]


@pytest.mark.parametrize("n", [30, 200])
def test_arrays_keep_their_strides_there_and_back(nowhere, n):
    matrix = np.random.default_rng(0).normal(size=(n, n))
    views = [matrix, matrix.T, np.diag(matrix), matrix[::-2, 1::3], matrix[:, :1], matrix[:0]]
    ((_, came_back),) = tasks.run([(lambda arrays: arrays, (views,), {})])
    for view, other in zip(views, came_back, strict=True):
        assert other.tobytes() == view.tobytes()
        assert other.flags.aligned
        assert not view.size or other.strides == view.strides


def test_calls_are_made_as_they_are_started_and_stopped_with_the_loop(nowhere):
    started = []

    def endless():
        for k in range(100):
            started.append(k)
            yield abs, (-k,), {}

    results = tasks.run(endless())
    next(results)
    results.close()
    assert len(started) == tasks.AHEAD * nowhere.n_slots()
    assert len(nowhere.cancelled) == len(started) - 1


def test_what_a_call_raises_is_raised_here_and_other_versions_are_refused(nowhere, monkeypatch):
    with pytest.raises(ZeroDivisionError):
        list(tasks.run([(divmod, (1, 0), {})]))
    real = calls.versions()
    answers = iter([real, {**real, "numpy": "0.1"}])  # here, and on the worker
    monkeypatch.setattr(calls, "versions", lambda: next(answers))
    with pytest.raises(UsageError, match=r"has numpy 0.1 instead of .*Install the same versions everywhere"):
        list(tasks.run([(abs, (1,), {})]))


@pytest.fixture
def media(tmp_path):
    """A set with a broken picture, and one that two people share."""
    root = write_set(tmp_path / "set", 6, 3)
    (root / "faces" / "p02" / "01.png").write_bytes(b"not a picture")
    (root / "faces" / "p05" / "02.png").write_bytes((root / "faces" / "p00" / "00.png").read_bytes())
    return CalibrationSet.from_path(root)


def refusing(samples):
    return np.array([[s.mean(), s.std(), np.nan if s.mean() > 128 else 0] for s in samples])


def failing(samples):
    raise ValueError("not these")


def uneven(samples):
    return np.array([[s.mean(), s.std(), len(samples)] for s in samples])


def test_shards_are_embedded_as_on_this_machine(nowhere, media, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 4)
    encoders = [
        toy(), toy("refuses", function=refusing), toy("fails", function=failing), toy("uncached", is_cached=False),
        toy("uneven", function=uneven), toy("ear", "voice"),
    ]  # fmt: skip
    found = embed(media, encoders, cache=tmp_path / "cache", max_skipped=0.9)
    n_tasks = len(nowhere.tasks)
    token = tasks._packer.set(None)
    alone = embed(media, encoders, cache=tmp_path / "of_local", max_skipped=0.9)
    tasks._packer.reset(token)
    for one, other in zip(found.embeddings, alone.embeddings, strict=True):
        assert one.name == other.name
        assert (one.vectors.tobytes() == other.vectors.tobytes()) == (one.name != "uneven")
        assert (one.samples.tolist(), one.traits) == (other.samples.tolist(), other.traits)
    assert (found.skipped, found.failures, found.data_sha256) == (alone.skipped, alone.failures, alone.data_sha256)
    assert [f.reason for f in found.failures] == ["ValueError: not these"]
    # 2 x 5 shards are read; each encoder gets 5, but the one that fails no more after it failed.
    assert n_tasks < 2 * 5 + 6 * 5
    again = embed(media, encoders, cache=tmp_path / "cache", max_skipped=0.9)
    assert again.data_sha256 == found.data_sha256


def test_a_run_again_submits_what_is_missing(nowhere, media, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 4)
    cache = tmp_path / "cache"
    first = embed(media, [toy()], cache=cache, max_skipped=0.1)
    written = sorted(cache.glob("*/*.npz"))
    assert len(written) == 5  # one a shard
    written[0].unlink()
    for n_shards in ({1, 2}, {1}):  # what was lost, and the broken picture; the broken picture
        nowhere.tasks.clear()
        again = embed(media, [toy()], cache=cache, max_skipped=0.1)
        assert again.embeddings[0].vectors.tobytes() == first.embeddings[0].vectors.tobytes()
        assert len(nowhere.tasks) - 5 in n_shards  # 5 read the files


def test_workers_need_a_cache_and_the_same_versions(nowhere, media, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="Workers need a cache that all of them see"):
        embed(media, [toy()])
    before = shards.describe

    def elsewhere(encoder, *how):
        return before(encoder, *how) | {"libraries": {"Pillow": "1.0"}}

    monkeypatch.setattr(shards, "describe", elsewhere)
    found = embed(media, [toy()], cache=tmp_path / "cache", max_skipped=0.1)
    assert [f.reason.partition(" instead")[0] for f in found.failures] == ["a worker has Pillow 1.0"]


def test_what_cannot_be_sent_fails_alone(nowhere, media, tmp_path):
    lock = threading.Lock()

    def locked(samples):
        with lock:
            return refusing(samples)

    found = embed(media, [toy("locked", function=locked), toy()], cache=tmp_path / "cache", max_skipped=0.1)
    assert [e.name for e in found.embeddings] == ["toy"]
    assert "cannot be sent to a worker (TypeError: cannot pickle" in found.failures[0].reason


# --- Several devices


@pytest.mark.parametrize("device", ["cuda:0,cuda:0", "cuda,cpu", "cuda:0,", "auto,cuda:1", "cuda:0, cuda:1"])
def test_several_devices_are_named_by_different_numbers(device):
    with pytest.raises(UsageError, match=r"Unknown device .* cuda:0,cuda:1"):
        Runtime(device=device)


def test_torch_and_onnxruntime_have_stand_ins_for_devices():
    torch = pytest.importorskip("torch")
    from encsel.loading.hub import torch_device

    assert torch.zeros(1).to(torch_device("cpu:1")) + torch.zeros(1, device=torch_device("cpu:0")) == 0
    assert execution_providers("cpu:1", [CPU]) == {CPU: {}}


ON_DEVICES = """
import os, time
from pathlib import Path
import numpy as np
from encsel.core import Encoder, EncoderFamily

class Model:
    def __init__(self, name, device, log):
        self.name, self.device, self.log = name, device, log
        self.tell("loads")

    def tell(self, what):
        with self.log.open("a") as file:
            file.write(f"{self.device} {self.name} {what}\\n")

    def prepare(self, sample):
        return np.asarray(sample, np.float64)

    def embed(self, batch):
        self.tell("embeds")
        end = time.monotonic() + 10
        while time.monotonic() < end and len({line.split()[1] for line in self.log.read_text().splitlines()}) < 2:
            time.sleep(0.01)  # for an encoder on another device
        return np.array([[[s.mean(), s.std(), float(self.name[-1])]] for s in batch], np.float32)

def open_(spec, runtime):
    log = Path(os.environ["LOG_OF_DEVICES"])
    return (Encoder(name=spec.name, modality="face", dim=3, spec=str(spec), family="placed", version=1, licence="none",
                    source="a test", load=lambda: Model(spec.name, runtime.device, log), shares=str(spec)),)

ENCODER = EncoderFamily("placed", "face", 3, 1, "none", "a test", open=open_, checkpoint="default")
"""


@pytest.mark.workers
def test_encoders_run_side_by_side_one_at_a_time_on_each_device(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(write_plugin(tmp_path / "placed", "plug_placed", ON_DEVICES))
    monkeypatch.setenv("LOG_OF_DEVICES", str(tmp_path / "log"))
    data = CalibrationSet.from_path(write_set(tmp_path / "set", 6, 3))
    (tmp_path / "set" / "faces" / "p02" / "01.png").write_bytes(b"not a picture")
    importlib.invalidate_caches()
    encoder_families.cache_clear()
    try:
        specs = [checked_spec(f"placed@name=e{k}", "face") for k in range(3)]
        encoders = [e for spec in specs for e in open_encoders(spec, Runtime(device="cpu:0"))]
        found = embed(data, encoders, devices=("cpu:0", "cpu:1"), max_skipped=0.1)
        lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
        (tmp_path / "log").write_text("x e8\nx e9\n")
        alone = embed(data, encoders, max_skipped=0.1)
    finally:
        encoder_families.cache_clear()
        sys.modules.pop("plug_placed", None)
    of_device = {d: [name for device, name, _ in lines if device == d] for d in ("cpu:0", "cpu:1")}
    assert list(dict.fromkeys(of_device["cpu:0"])) == ["e0", "e2"] == sorted(set(of_device["cpu:0"]))
    assert set(of_device["cpu:1"]) == {"e1"}
    assert of_device["cpu:0"] == sorted(of_device["cpu:0"]), "an encoder began before the one on its device had ended"
    for one, other in zip(found.embeddings, alone.embeddings, strict=True):
        assert one.vectors.tobytes() == other.vectors.tobytes()
    assert (found.skipped, found.data_sha256, len(found.skipped)) == (alone.skipped, alone.data_sha256, 1)
