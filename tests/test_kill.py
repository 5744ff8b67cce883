"""A validation that is killed at random moments: nothing wrong, lost or half written, and the next run finishes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_validation import write_set

STAGES = "matching,gw,topology,spectral,curve,axes,geodesic"


def command(data: Path, cache: Path) -> list[str]:
    options = ("--cache", str(cache), "--only", STAGES, "-q", "--format", "json", "--jobs", "1")
    return [sys.executable, "-m", "encsel", "validate", str(data), *options]


def killed_again_and_again(data: Path, cache: Path, n_rounds: int, expected: str, seconds: float) -> None:
    rng = random.Random(0)
    for _ in range(n_rounds):
        process = subprocess.Popen(command(data, cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.3, 1.0) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command(data, cache), capture_output=True, text=True, check=True)
    assert done.stdout == expected
    assert all(path.stat().st_mode & 0o077 == 0 for path in cache.rglob("*"))


@pytest.mark.parametrize("n_rounds", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_at_random_moments_change_nothing(tmp_path, n_rounds):
    data = write_set(tmp_path / "set")
    started = time.monotonic()
    whole = subprocess.run(command(data, tmp_path / "whole"), capture_output=True, text=True, check=True)
    seconds = time.monotonic() - started
    # Ten rounds a cache: later ones would find everything finished.
    for i in range(0, n_rounds, 10):
        killed_again_and_again(data, tmp_path / f"cache{i}", min(10, n_rounds - i), whole.stdout, seconds)
