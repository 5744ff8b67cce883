"""Runs that are killed at random moments: nothing wrong, lost or half written, and the next run finishes.

The default run has one short case of embedding and one of a single write, `-m robust` more, `-m slow` the long ones.
"""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from faults import IMPORTED, OFTEN, Bench, contents, half_written, robust, slow
from toy import write_population

from encsel.storage.cache import EmbeddingCache, StageCache

# --- embedding and writing the cache


ROUNDS_PER_CACHE = 4


def killed(bench: Bench, cache: Path, output: Path, n_batches: int, seconds: float) -> None:
    """A run that is killed some time after so many batches lie in the cache."""
    process = bench.start(bench.arguments(cache, output), IMPORTED + OFTEN)
    while process.poll() is None and sum(1 for _ in cache.glob("*/*.npz")) < n_batches:
        time.sleep(0.001)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0)


@pytest.mark.parametrize("n_rounds", [robust(5), slow(200)])
def test_kills_while_embedding_cost_what_was_being_written_and_nothing_else(tmp_path, n_rounds):
    n_people, n_samples = 12, 8
    bench = Bench(tmp_path, n_people, n_samples)
    assert bench.run(bench.arguments(tmp_path / "whole", tmp_path / "out"), IMPORTED + OFTEN).returncode == 0
    n_batches = len(bench.check(tmp_path / "whole"))
    assert n_batches == 3 * n_people * n_samples
    expected, output = contents(tmp_path / "out"), tmp_path / "again"
    rng, n_kept, n_in_a_write, kept = random.Random(0), [], 0, set()
    for i in range(n_rounds):
        cache = tmp_path / f"cache{i // ROUNDS_PER_CACHE}"
        kept = kept if i % ROUNDS_PER_CACHE else set()
        more = rng.randrange(n_batches // ROUNDS_PER_CACHE)
        killed(bench, cache, output, len(kept) + more, rng.uniform(0, 0.01))
        n_in_a_write += bool(half_written(cache) or half_written(output))
        now = bench.check(cache)
        assert kept <= now, "a kill lost what an earlier round had kept"
        kept = now
        n_kept.append(len(kept))
        done = contents(output)
        assert done == {name: expected[name] for name in done}
        if i % ROUNDS_PER_CACHE == ROUNDS_PER_CACHE - 1 or i == n_rounds - 1:
            finished = bench.run(bench.arguments(cache, output), IMPORTED + OFTEN)
            assert finished.returncode == 0, finished.stderr
            assert "damaged" not in finished.stderr
            assert contents(output) == expected
            assert bench.cached(cache) == {name: set(vectors) for name, vectors in bench.known.items()}
            assert half_written(cache) + half_written(output) == []
    n_early = sum(n < n_batches for n in n_kept)
    print(f"{n_in_a_write} of {n_rounds} kills left a half-written file, {n_early} came before all was embedded")
    if n_rounds >= 100:
        assert n_early > 0.8 * n_rounds
        assert n_in_a_write > 0.2 * n_rounds


# --- every step of one write


def vectors(numbers) -> dict[str, np.ndarray]:
    return {f"{i:064x}": np.full(4, i, np.float32) for i in numbers}


def die_at(step: int) -> None:
    """From here on, SIGKILL at the given step: before and after each call, and after each half of what is written."""
    n = 0

    def count() -> None:
        nonlocal n
        n += 1
        if n == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(function):
        def call(*arguments, **options):
            count()
            result = function(*arguments, **options)
            count()
            return result

        return call

    class Halves(io.FileIO):
        def write(self, data) -> int:
            written = super().write(data[: (len(data) + 1) // 2])
            count()
            return written

    for name in ("open", "mkdir", "chmod", "fchmod", "fsync", "replace", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    os.fdopen = lambda handle, *_, **__: Halves(handle, "wb")  # type: ignore[assignment]


def die_at_every_step(root: Path) -> None:
    """In a process of its own, whose children die: their writes into a new cache, and into one that holds something."""
    for is_new in (True, False):
        step, code = 0, None
        while code != 0:
            step += 1
            cache = root / f"{is_new}{step}"
            if not is_new:
                write(cache, range(3), "first")
            child = os.fork()
            if child == 0:
                die_at(step)
                write(cache, range(3, 6), "second")
                os._exit(0)
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            assert code in (0, -signal.SIGKILL), code
            one, results = shelf(cache), StageCache(cache)
            assert one.n_damaged == 0
            there = {i for i in range(6) if one.get(f"{i:064x}") is not None}
            assert all((one.get(key) == vector).all() for key, vector in vectors(there).items())
            before = set() if is_new else {0, 1, 2}
            assert there in ([before, before | {3, 4, 5}] if code else [before | {3, 4, 5}])
            assert results.get({"name": "first"}) == (None if is_new else "a result")
            assert results.get({"name": "second"}) in ((None, "a result") if code else ("a result",))
            assert all(path.stat().st_mode & 0o077 == 0 for path in cache.rglob("*"))
            write(cache, range(3, 6), "second")
            assert shelf(cache).get(f"{5:064x}") is not None
            assert results.get({"name": "second"}) == "a result"
            assert half_written(cache) == []
        print(f"{step - 1} steps")
        assert step > 30


def shelf(cache: Path) -> EmbeddingCache:
    return EmbeddingCache(cache, {"name": "toy"}, 4)


def write(cache: Path, numbers, name: str) -> None:
    one, results = shelf(cache), StageCache(cache)
    one.put({key: vector for key, vector in vectors(numbers).items() if one.get(key) is None})
    one.flush()
    results.put({"name": name}, "a result")
    assert one.write_error is results.write_error is None


def test_a_kill_at_any_step_of_a_write_leaves_all_of_it_or_nothing(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=die_at_every_step, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == 0


# --- validation, killed and interrupted

STAGES = "matching,gw,topology,spectral,curve,axes,geodesic"


def command(data: Path, cache: Path) -> list[str]:
    options = ("--cache", str(cache), "--only", STAGES, "-q", "--format", "json", "--jobs", "1")
    return [sys.executable, "-m", "encsel", "validate", str(data), *options]


def ended_again_and_again(
    data: Path, cache: Path, n_rounds: int, numbers: list[signal.Signals], expected: str, seconds: float
) -> None:
    rng = random.Random(0)
    for number in itertools.islice(itertools.cycle(numbers), n_rounds):
        process = subprocess.Popen(command(data, cache), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(rng.uniform(0.3, 1.0) * seconds)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        if number == signal.SIGKILL:
            assert process.returncode in (0, -signal.SIGKILL)
        else:
            if process.returncode == 5:  # in the middle of the document, where nobody reads on
                assert (expected[: len(out)], err.strip()) == (out, "encsel: Interrupted.")
            else:
                assert (process.returncode, out, err) == (0, expected, "")
    done = subprocess.run(command(data, cache), capture_output=True, text=True, check=True)
    assert done.stdout == expected
    assert all(path.stat().st_mode & 0o077 == 0 for path in cache.rglob("*"))


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("n_rounds", "numbers"),
    [
        robust(3, [signal.SIGKILL, signal.SIGINT, signal.SIGTERM]),
        slow(100, [signal.SIGKILL]),
        slow(50, [signal.SIGINT, signal.SIGTERM]),
    ],
)
def test_ends_at_random_moments_change_nothing(tmp_path, n_rounds, numbers):
    data = write_population(tmp_path / "set", 30)
    started = time.monotonic()
    whole = subprocess.run(command(data, tmp_path / "whole"), capture_output=True, text=True, check=True)
    seconds = time.monotonic() - started
    # Ten rounds a cache: later ones would find everything finished.
    for i in range(0, n_rounds, 10):
        n = min(10, n_rounds - i)
        ended_again_and_again(data, tmp_path / f"cache{i}", n, numbers, whole.stdout, seconds)
