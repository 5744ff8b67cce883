"""An encoder that hangs is abandoned at its time limit and named; the others go on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest
from media_samples import write_set
from plugins import environment, write_plugin
from toy_encoders import ToyModel, moments, toy

from encsel.data.calibration_set import CalibrationSet
from encsel.embedding import candidates
from encsel.embedding.embed import embed
from encsel.loading.deadline import THREAD_NAME, Deadline, OutOfTime, Workers
from encsel.loading.registry import encoder_families
from encsel.ranking import rank as ranking_module

SOON = 0.3
LATE = 30.0

HANGING = """
import contextlib, os, sys, time
from dataclasses import replace
import numpy as np
from encsel.core import Encoder, EncoderFamily

def hang(at):
    if os.environ["HANGS"] == at:
        with contextlib.redirect_stdout(sys.stderr):
            until, wake = time.monotonic() + float(os.environ.get("SECONDS", "600")), os.environ.get("WAKE", "")
            while time.monotonic() < until and not os.path.exists(wake):
                time.sleep(0.01)
        print("awake at last")
        open(wake + ".heard", "w").close()

class Model:
    def prepare(self, sample):
        hang("prepare")
        return sample
    def embed(self, batch):
        hang("embed")
        return np.array([[[s.mean(), s.std()]] for s in batch], np.float32)

def load():
    hang("load")
    return Model()

def open_(spec, runtime):
    hang("open")
    return (Encoder(name=spec.name, modality="face", dim=2, spec=str(spec), family="hanging", version=1,
                    licence="none", source="a test", load=load, shares=str(spec)),)

ENCODER = EncoderFamily("hanging", "face", 2, 1, "none", "a test", open=open_, checkpoint="default")
"""


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"), n_identities=12, n_samples=2)


@pytest.fixture
def hang():
    """A function that returns when the test is over."""
    over = threading.Event()
    yield lambda *_: over.wait(LATE)
    over.set()


def n_workers() -> int:
    return sum(thread.name == THREAD_NAME for thread in threading.enumerate())


# --- the parts


def test_without_a_limit_a_call_stays_in_its_thread():
    assert Deadline(None).call(threading.current_thread) is threading.current_thread()


def test_with_a_limit_all_calls_are_in_one_other_thread():
    deadline = Deadline(LATE)
    first, second = deadline.call(threading.current_thread), deadline.call(threading.current_thread)
    deadline.close()
    assert first is second is not threading.current_thread()


def test_time_of_all_calls_adds_up(hang):
    deadline = Deadline(SOON)
    deadline.call(time.sleep, 0.8 * SOON)
    started = time.monotonic()
    with pytest.raises(OutOfTime, match=r"did not finish within 0\.3 s and was abandoned\. Raise --timeout"):
        deadline.call(hang)
    assert time.monotonic() - started < 0.7 * SOON


def test_time_between_calls_does_not_count():
    deadline = Deadline(SOON)
    deadline.call(int)
    time.sleep(1.5 * SOON)
    assert deadline.call(int) == 0


def test_what_is_done_is_had_though_no_time_is_left(hang):
    deadline = Deadline(SOON)
    with pytest.raises(OutOfTime):
        deadline.call(hang)
    done: Future[int] = Future()
    done.set_result(3)
    assert deadline.result(done) == 3


@pytest.mark.parametrize("error", [TimeoutError("of its own"), KeyboardInterrupt(), SystemExit(3), ValueError("odd")])
def test_an_error_of_the_function_is_its_own(error):
    def fails():
        raise error

    with pytest.raises(type(error)) as caught:
        Deadline(LATE).call(fails)
    assert caught.value is error


def test_workers_end_with_their_work():
    before = n_workers()
    with Workers(3) as pool:
        assert [pool.submit(pow, 2, i).result() for i in range(9)] == [2**i for i in range(9)]
    assert n_workers() == before


def test_workers_that_all_hang_are_reinforced_and_not_waited_for(hang):
    with Workers(2) as pool:
        for _ in range(2):
            pool.submit(hang)
        late = pool.submit(int)
        pool.reinforce()
        assert late.result(LATE) == 0


def test_closing_never_waits_for_a_job_that_a_thread_took():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(400):
            pool = Workers(3)
            for _ in range(20):
                pool.submit(int)
            pool.close(wait=False)
    finally:
        sys.setswitchinterval(before)


def test_what_waits_for_a_thread_is_cancelled_by_an_exception(hang):
    pool = Workers(1)
    pool.submit(hang)
    waits = pool.submit(int)
    pool.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert waits.cancelled()


# --- in a run


@pytest.mark.parametrize("where", ["load", "prepare", "embed"])
@pytest.mark.parametrize("position", [0, 1])
def test_encoder_that_hangs_fails_by_name_and_the_others_go_on(media, hang, where, position):
    parts = {"embed": {"embed": hang}, "prepare": {"prepare": hang}, "load": {}}
    load = hang if where == "load" else lambda: ToyModel(**parts[where])
    encoders = [toy("sound"), toy("other", modality="voice")]
    encoders.insert(position, toy("stuck", load=load))
    started = time.monotonic()
    found = embed(CalibrationSet.from_path(media), encoders, timeout=SOON)
    assert time.monotonic() - started < LATE / 3
    assert [(f.encoder, f.reason.partition(" and was")[0]) for f in found.failures] == [
        ("stuck", "it did not finish within 0.3 s")
    ]
    assert {e.name: len(e.vectors) for e in found.embeddings} == {"sound": 24, "other": 24}


def test_encoder_that_hangs_after_some_batches_keeps_them_in_the_cache(media, hang, tmp_path):
    n_batches = 0

    def function(samples):
        nonlocal n_batches
        n_batches += 1
        if n_batches == 3 + 2:  # each run embeds a few samples in two calls more
            hang()
        return moments(samples)

    encoder = toy(model=ToyModel(function))
    found = embed(CalibrationSet.from_path(media), [encoder], cache=tmp_path, batch_size=4, timeout=SOON)
    assert found.failures
    n_batches = 6
    found = embed(CalibrationSet.from_path(media), [encoder], cache=tmp_path, batch_size=4, timeout=LATE)
    assert not found.failures
    assert n_batches == 6 + 4 + 2


def test_a_limit_changes_no_vector(media):
    calibration = CalibrationSet.from_path(media)
    plain, limited = (embed(calibration, [toy()], timeout=seconds).embeddings[0] for seconds in (None, LATE))
    np.testing.assert_array_equal(limited.vectors, plain.vectors)


# --- in a command


@pytest.fixture
def hanging(tmp_path, monkeypatch):
    """The plug-in, installed in this process."""
    monkeypatch.syspath_prepend(write_plugin(tmp_path / "packages", "hanging", HANGING))
    encoder_families.cache_clear()
    yield
    encoder_families.cache_clear()
    sys.modules.pop("hanging", None)


def test_what_a_thread_left_behind_prints_is_no_part_of_the_result(media, hanging, call, tmp_path, monkeypatch):
    wake, heard = tmp_path / "wake", tmp_path / "wake.heard"

    def rank_then_wake(*args, **options):
        ranking = rank(*args, **options)
        wake.touch()
        until = time.monotonic() + LATE
        while not heard.exists() and time.monotonic() < until:
            time.sleep(0.01)
        return ranking

    rank = ranking_module.rank
    monkeypatch.setattr(ranking_module, "rank", rank_then_wake)
    monkeypatch.setenv("HANGS", "open")
    monkeypatch.setenv("WAKE", str(wake))
    code, out, err = call(
        "rank", media, "--face", "hanging", "--face", "pixels", "--voice", "ltas", "--timeout", "1.5", "--no-cache",
        "--min-identities", "5", "--format", "json",
    )  # fmt: skip
    assert code == 4, err
    (failure,) = json.loads(out)["failures"]
    assert failure["encoder"] == "hanging"
    assert "did not finish within 1.5 s" in failure["reason"]
    assert "awake at last" in err


def test_default_encoder_that_hangs_is_a_failure_and_not_absent(media, hanging, call, tmp_path, monkeypatch):
    few = [family for family in encoder_families() if family.name in ("hanging", "pixels", "ltas")]
    monkeypatch.setattr(candidates, "encoder_families", lambda: few)
    monkeypatch.setenv("HANGS", "open")
    monkeypatch.setenv("WAKE", str(tmp_path / "wake"))
    code, _, err = call("embed", media, "--output", tmp_path / "out", "--timeout", "1.5", "--offline", "--no-cache")
    (tmp_path / "wake").touch()
    assert code == 4, err
    assert "The encoder hanging: it did not finish within 1.5 s" in err
    assert [path.stem for path in (tmp_path / "out" / "faces").iterdir()] == ["pixels"]


@pytest.mark.robust
@pytest.mark.parametrize(
    ("command", "timeout"),
    [("embed", 4), ("rank", 8)],
)
def test_command_gives_up_what_hangs_and_ends(media, tmp_path, command, timeout):
    packages = write_plugin(tmp_path / "packages", "hanging", HANGING)
    options = ["--output", tmp_path / "out"] if command == "embed" else ["--min-identities", "5", "--format", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "encsel", command, media, "--face", "hanging", "--face", "pixels", "--voice", "ltas",
         "--timeout", str(timeout), "--no-cache", *options],
        env=environment(packages, HANGS="prepare"), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert f"did not finish within {timeout} s" in done.stderr
    assert "Traceback" not in done.stderr
    if command == "rank":
        report = json.loads(done.stdout)
        assert [p["face"] for p in report["pairs"]] == ["pixels"]
        assert [f["encoder"] for f in report["failures"]] == ["hanging"]
    else:
        assert [path.stem for path in (tmp_path / "out" / "faces").iterdir()] == ["pixels"]
