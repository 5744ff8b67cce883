"""How time and memory of `rank` grow with people and with encoders.

    python -m tests.benchmarks growth --json growth.json --plot growth.png

Each point is a made-up population in a process of its own. A point that takes longer than the limit is reported as not
finished, and larger ones are left out. Beside each number stands its exponent: 1 is linear in the number of people or
encoders since the line above, 2 quadratic.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from encsel.progress import Silent, Task

from .measure import ROOT
from .table import aligned, markdown, rewrite

PEOPLE = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
ENCODERS = (2, 6, 20, 50, 100)
PEOPLE_OF_ENCODERS, ENCODERS_OF_PEOPLE = 1000, 4
ROWS, DIM = 8, 256
BEFORE, TASKS, AFTER = "opening and checks", ("geometry", "cross-validation"), "between and after"
"""What precedes the first of these tasks of `rank`, and what they do not cover."""
Point = dict[str, Any]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks growth", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the points")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw them")
    parser.add_argument("--page", type=Path, metavar="FILE", help="rewrite the tables of growth in a page")
    parser.add_argument("--most-people", type=int, default=PEOPLE[-1], metavar="N")
    parser.add_argument("--most-encoders", type=int, default=ENCODERS[-1], metavar="N")
    parser.add_argument("--limit", type=float, default=5400.0, metavar="SECONDS", help="of each point (5400)")
    parser.add_argument("--point", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.point is not None:
        print(json.dumps(measure_rank(options.point)))
        return 0
    by_people = [(n, ENCODERS_OF_PEOPLE) for n in PEOPLE if n <= options.most_people]
    by_encoders = [(PEOPLE_OF_ENCODERS, n) for n in ENCODERS if n <= options.most_encoders]
    document: dict[str, Any] = {"rows": ROWS, "dim": DIM, "limit": options.limit, "people": [], "encoders": []}
    for axis, sizes in (("people", by_people), ("encoders", by_encoders)):
        for point in _series(sizes, options.limit):
            document[axis].append(point)
            if options.json is not None:  # after every point, so that a run that is stopped has measured something
                options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    tables = {axis: table(document[axis], axis) for axis in ("people", "encoders") if document[axis]}
    print("\n\n".join(aligned(rows, "r" * len(rows[0])) for rows in tables.values()))
    print(f"\nSeconds (exponent); {ROWS} rows x {DIM} of each person and encoder; {_constant(document)}.")
    for point in (*document["people"], *document["encoders"]):
        if "unfinished" in point:
            print(f"{_name(point)}: {point['unfinished']}", file=sys.stderr)
    if options.page is not None:
        rewrite(options.page, {f"growth-{axis}": markdown(rows, "r" * len(rows[0])) for axis, rows in tables.items()})
    if options.plot is not None:
        draw(document, options.plot)
    return 0


def measure_rank(root: Path) -> Point:
    """Seconds of `rank` by task, and the peak memory of this process."""
    import encsel

    recorder, start, cpu = Recorder(), time.perf_counter(), time.process_time()
    encsel.rank(root, cache=None, progress=recorder)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    stages = {BEFORE: recorder.spans[TASKS[0]][0] - start, **{label: recorder.seconds[label] for label in TASKS}}
    stages[AFTER] = max(seconds - sum(stages.values()), 0.0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak, "stages": stages, "notes": recorder.notes}


class Recorder(Silent):
    """When each task began and took its last step, tasks of one label as one; and what was told meanwhile."""

    def __init__(self) -> None:
        self.spans: dict[str, tuple[float, float]] = {}
        self.notes: list[str] = []

    def note(self, text: str, *, in_result: bool = False) -> None:
        self.notes.append(text)

    @property
    def seconds(self) -> dict[str, float]:
        return {label: end - begun for label, (begun, end) in self.spans.items()}

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Task]:
        recorder, now = self, time.perf_counter()
        self.spans.setdefault(label, (now, now))

        class Timed(Task):
            def advance(self, n: int = 1) -> None:
                recorder.spans[label] = (recorder.spans[label][0], time.perf_counter())

        yield Timed()


def table(points: Sequence[Point], axis: str) -> list[tuple[str, ...]]:
    """A line for each point: seconds of every stage, each with its exponent, and memory."""
    finished = [point for point in points if "unfinished" not in point]
    labels = list(dict.fromkeys(label for point in finished for label in point["stages"]))
    rows = [(axis, "seconds", "CPU s", "peak MB", *labels)]
    for before, point in zip([None, *finished], finished, strict=False):
        cells = [_with_exponent(point, before, axis, key) for key in ("seconds", "cpu_seconds", "peak_mb")]
        cells += [_with_exponent(point, before, axis, "stages", label) for label in labels]
        rows.append((f"{point[axis]:,}", *cells))
    return rows


def draw(document: dict[str, Any], path: Path) -> None:
    """Two panels, log by log: against people and against encoders; seconds by stage, and memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    for axes, axis in zip(figure.subplots(1, 2), ("people", "encoders"), strict=True):
        points = [point for point in document[axis] if "unfinished" not in point]
        x = [point[axis] for point in points]
        memory = axes.twinx()
        axes.loglog(x, [point["seconds"] for point in points], "k-o", label="all")
        for label in dict.fromkeys(label for point in points for label in point["stages"]):
            axes.loglog(x, [max(point["stages"].get(label, 0.0), 1e-3) for point in points], "-o", ms=3, label=label)
        memory.loglog(x, [point["peak_mb"] for point in points], "--", color="grey")
        axes.set(xlabel=axis, ylabel="seconds")
        memory.set_ylabel("peak MB (dashed)")
        axes.legend(fontsize="small")
    figure.suptitle(f"rank: {ROWS} rows x {DIM} a person and encoder; {_constant(document)}")
    figure.savefig(path, dpi=120)


def _series(sizes: Sequence[tuple[int, int]], limit: float) -> Iterator[Point]:
    is_over = False
    for people, encoders in sizes:
        point: Point = {"people": people, "encoders": encoders}
        if is_over:
            point["unfinished"] = "left out, since a smaller one did not finish"
        else:
            print(_name(point), file=sys.stderr, flush=True)
            point |= _point(people, encoders, limit)
            is_over = "unfinished" in point
        yield point


def _point(people: int, encoders: int, limit: float) -> Point:
    """One population, written and ranked in processes of their own, so that memory is that of `rank` alone."""
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        sizes = {"people": people, "rows": ROWS, "dim": DIM, "faces": encoders // 2, "voices": encoders - encoders // 2}
        options = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
        start = [sys.executable, "-m"]
        subprocess.run([*start, "tests.benchmarks.populations", folder, *options], cwd=ROOT, env=env, check=True)
        try:
            done = subprocess.run(
                [*start, "tests.benchmarks", "growth", "--point", folder], cwd=ROOT, env=env, capture_output=True,
                text=True, timeout=limit, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"unfinished": f"not finished in {limit:g} s"}
    if done.returncode:
        return {"unfinished": (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]}
    point: Point = json.loads(done.stdout.splitlines()[-1])
    return point


def _with_exponent(point: Point, before: Point | None, axis: str, *keys: str) -> str:
    def value(of: Point) -> float:
        for key in keys:
            of = of.get(key, 0.0)
        return float(of)  # type: ignore[arg-type]

    new = value(point)
    shown = f"{new:,.0f}" if new >= 100 else f"{new:.2f}"
    if before is None or min(new, value(before)) <= 0.05:  # too short to be told from noise
        return shown
    exponent = math.log(new / value(before)) / math.log(point[axis] / before[axis])
    return f"{shown} ({exponent:.2f})"


def _name(point: Point) -> str:
    return f"{point['people']:,} people, {point['encoders']} encoders"


def _constant(document: dict[str, Any]) -> str:
    return f"{ENCODERS_OF_PEOPLE} encoders against people, {PEOPLE_OF_ENCODERS} people against encoders"
