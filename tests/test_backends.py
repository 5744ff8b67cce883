"""Encoders and pairs on the workers of a Dask or Ray cluster, and encoders side by side on several devices."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from media_samples import write_set
from plugins import write_plugin

import encsel
from encsel import parallel
from encsel.core import Runtime
from encsel.data.calibration_set import CalibrationSet
from encsel.embedding.embed import embed
from encsel.errors import EncselError, UsageError
from encsel.loading.onnx_files import CPU, execution_providers
from encsel.loading.registry import checked_spec, encoder_families, open_encoders
from encsel.progress import Silent

ROOT = Path(encsel.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]), "PYTHONUNBUFFERED": "1", "DASK_DISTRIBUTED__COMM__RETRY__COUNT": "0"}
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


def start(*words: object, shard: int = 12, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ENCSEL.format(shard), *map(str, words)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def output(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return out, err


class DaskCluster:
    """A scheduler of its own on loopback, and workers."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._processes = folder, list[subprocess.Popen[bytes]]()
        self._start("scheduler", "--port", "0", "--scheduler-file", folder / "scheduler.json")
        until((folder / "scheduler.json").exists)
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
    yield cluster
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
    words = ("set", "--face", "hog", "--face", "py:f.py:waiting", "--voice", "mfcc")
    ran = start("embed", *words, "-o", "out", "--cache", "cache", *on(dask), cwd=tmp_path)
    until(lambda: list(tmp_path.glob("embeds.*")))
    victim = next(pid for path in tmp_path.glob("embeds.*") if (pid := int(path.suffix[1:])) in workers)
    workers.pop(victim).kill()
    third = dask.worker()
    (tmp_path / "go").touch()
    _, err = output(ran)
    n_written = len(content(tmp_path / "cache"))

    # The same on this machine.
    monkeypatch.chdir(tmp_path)
    code, _, told = call("embed", *words, "-o", "local", "--cache", "of_local")
    assert (code, content(tmp_path / "out")) == (0, content(tmp_path / "local"))
    assert skips(err) == skips(told) != []

    limits = ("--min-identities", "10", "--only", "matching,mutual,prediction,groups", "--show-names", "--format", "json")
    validated = start("validate", *words, *limits, "--cache", "cache", *on(dask), cwd=tmp_path)
    for line in validated.stderr:
        if line.startswith("cka"):  # in the middle
            third.kill()
            break
    out, _ = output(validated)
    assert out == call("validate", *words, *limits, "--cache", "of_local", "-q")[1]
    assert len([name for name in content(tmp_path / "cache") if name.endswith(".npz")]) <= n_written  # none embedded again
