"""Wall time, CPU time and peak memory of a stage and of its yardsticks, in turns in one process."""

from __future__ import annotations

import gc
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHORT, MAX_REPEATS = 0.2, 2000
"""Work that takes less than SHORT seconds is repeated, and divided."""
LONG = 5.0
"""A first run that takes more seconds counts as a round; others only warm up."""
VERY_LONG = 30.0
"""A yardstick that takes more seconds is measured in one round only."""


class Skipped(Exception):
    """A row that cannot be measured here."""


@dataclass(frozen=True)
class Cost:
    """Seconds of wall time, and of CPU time of all threads and child processes."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Yardstick:
    """Work that a stage is compared with.

    Attributes:
        times: number of runs that are compared with one run of the stage.
        by_wall: the ratio is that of wall times, not of CPU times.
        prepare: run once before anything is timed, and after the stage's peak memory is taken: imports.
    """

    name: str
    run: Callable[[], Any]
    times: float = 1.0
    by_wall: bool = False
    prepare: Callable[[], Any] = lambda: None


@dataclass(frozen=True)
class Case:
    """One row: a stage, its yardsticks and what is asked of it.

    Attributes:
        units: how many things a run handles, and what they are called.
        command: what `run` starts, if that is another process, whose peak memory counts.
        one_thread: stage and yardsticks compute on one thread, as in `rank` and `validate`, which run many at a time.
    """

    stage: str
    run: Callable[[], Any]
    yardsticks: Sequence[Yardstick] = ()
    target: str = ""
    units: tuple[float, str] | None = None
    command: Command | None = None
    one_thread: bool = False


class Command:
    """`python -m encsel ARGUMENTS` in a process of its own; `peak_mb` is the peak memory of the last run."""

    def __init__(self, *arguments: str, module: Sequence[str] = ("-m", "encsel")) -> None:
        self._arguments = [sys.executable, *module, *arguments]
        self.peak_mb = 0.0

    def __call__(self) -> None:
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        # POSIX: the peak memory of this one child.
        child = subprocess.Popen(self._arguments, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise RuntimeError(f"{' '.join(self._arguments)}: exit code {child.returncode}")
        self.peak_mb = _mb(usage.ru_maxrss)


def measured(case: Case, n_rounds: int) -> dict[str, Any]:
    """The row as a document; medians over rounds."""
    if not case.one_thread:
        return _measured(case, n_rounds)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return _measured(case, n_rounds)


def _measured(case: Case, n_rounds: int) -> dict[str, Any]:
    first = _cost(case.run)
    # Before any yardstick runs, whose memory is not the stage's.
    peak = case.command.peak_mb if case.command else _mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    stage = _Timed(case.run, first)
    for yardstick in case.yardsticks:
        yardstick.prepare()
    sides = [stage, *(_Timed(y.run, _cost(y.run)) for y in case.yardsticks)]
    for number in range(n_rounds):
        for side in sides if number % 2 else sides[::-1]:
            if len(side.rounds) <= number and (side is stage or not side.is_very_long):
                side.measure()
    own = stage.median
    return {
        "stage": case.stage,
        "seconds": own.wall,
        "cpu_seconds": own.cpu,
        "peak_mb": peak,
        "target": case.target,
        "note": None if case.units is None else _per_unit(own, *case.units),
        "yardsticks": [
            {
                "name": y.name,
                "seconds": y.times * side.median.wall,
                "cpu_seconds": y.times * side.median.cpu,
                "ratio": own.wall / (y.times * side.median.wall)
                if y.by_wall
                else own.cpu / max(y.times * side.median.cpu, 1e-9),
            }
            for y, side in zip(case.yardsticks, sides[1:], strict=True)
        ],
    }


class _Timed:
    """Work and what it has cost so far."""

    def __init__(self, run: Callable[[], Any], first: Cost) -> None:
        self._run = run
        self._repeats = min(MAX_REPEATS, max(1, math.ceil(SHORT / max(first.wall, 1e-6))))
        self.rounds = [first] if first.wall > LONG else []

    def measure(self) -> None:
        total = _cost(lambda: [self._run() for _ in range(self._repeats)])
        self.rounds.append(Cost(total.wall / self._repeats, total.cpu / self._repeats))

    @property
    def is_very_long(self) -> bool:
        return bool(self.rounds) and self.rounds[0].wall > VERY_LONG

    @property
    def median(self) -> Cost:
        return Cost(*(statistics.median(getattr(c, kind) for c in self.rounds) for kind in ("wall", "cpu")))


def _cost(run: Callable[[], Any]) -> Cost:
    gc.collect()
    cpu, wall = _cpu_seconds(), time.perf_counter()
    run()
    return Cost(time.perf_counter() - wall, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _mb(ru_maxrss: int) -> float:
    return ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _per_unit(cost: Cost, n: float, what: str) -> str:
    if what == "GFLOP":
        return f"{n / cost.wall:.3g} GFLOP/s"
    return f"{1000 * cost.cpu / n:.3g} ms of CPU time per {what}"
