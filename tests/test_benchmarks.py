"""The benchmark runs as one command; its table, its check, and its tables in the documentation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from encsel.matching.folds import MAX_PEOPLE
from encsel.metrics.curvature import N_POINTS
from encsel.metrics.neighbours import MAX_EXACT, N_SEARCHED
from encsel.metrics.transport import N_PEOPLE
from encsel.progress import Task

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # `tests.benchmarks` is run from the root of a checkout

from tests.benchmarks import growth, table  # noqa: E402


def benchmark(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[str, Path]:
    """What two fast rows print, and their JSON."""
    path = tmp_path_factory.mktemp("benchmark") / "measured.json"
    done = benchmark("--quick", "--only", "^gemm|^help$", "--json", path)
    assert done.returncode == 0, done.stderr
    return done.stdout, path


def test_a_row_has_times_memory_and_a_ratio(measured):
    text, path = measured
    products, help_ = json.loads(path.read_text())["rows"]
    assert products["note"].endswith("GFLOP/s")
    assert help_["stage"] == "encsel --help"
    assert 0 < help_["cpu_seconds"] < 5
    assert 5 < help_["peak_mb"] < 500
    (bare,) = help_["yardsticks"]
    assert help_["cpu_seconds"] / bare["cpu_seconds"] == pytest.approx(bare["ratio"])
    header, _, first, second, *_ = text.splitlines()
    assert header.split() == ["stage", "seconds", "CPU", "s", "peak", "MB", "target", "yardstick", "CPU", "s", "ratio"]
    assert first.startswith(products["stage"])
    assert second.startswith("encsel --help")
    assert header.index("yardstick") == second.index("python -c pass")


def test_check_fails_where_a_ratio_is_a_quarter_worse_than_the_stored_one(measured, tmp_path):
    ratios = table.ratios(json.loads(measured[1].read_text()))
    ((stage, of_stage),) = ratios.items()
    ((yardstick, ratio),) = of_stage.items()
    for before, code in ((ratio / 1.3, 1), (ratio / 1.2, 0), (ratio * 2, 0)):
        (tmp_path / "ratios.json").write_text(json.dumps({stage: {yardstick: before}}))
        done = benchmark("--from", measured[1], "--check", tmp_path / "ratios.json")
        lines = [line for line in done.stderr.splitlines() if line.startswith("encsel --help, beside")]
        assert (done.returncode, len(lines)) == (code, code), done.stderr


def test_ratios_are_stored_and_missing_ones_are_named(measured, tmp_path):
    path = tmp_path / "ratios.json"
    path.write_text(json.dumps({"another": {"yardstick": 1.0}}))
    done = benchmark("--from", measured[1], "--check", path, "--update", path)
    assert done.returncode == 0
    assert "encsel --help, beside python -c pass: not in ratios.json" in done.stderr
    assert list(json.loads(path.read_text())) == ["another", "encsel --help"]


def test_a_pattern_without_rows_and_a_page_of_some_rows_are_refused():
    assert benchmark("--only", "nonsense").returncode == 2
    done = benchmark("--only", "help", "--page", "speed.md")
    assert (done.returncode, "all rows" in done.stderr) == (2, True)


def test_a_page_is_rewritten_between_its_comments(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(
        "before\n<!-- benchmark: table -->\nold\n<!-- end -->\nafter\n<!-- benchmark: x -->\n<!-- end -->\n"
    )
    table.rewrite(path, {"table": "a\nb\n", "absent": "c"})
    table.rewrite(path, {"x": r"\1"})
    assert path.read_text() == (
        "before\n<!-- benchmark: table -->\na\nb\n<!-- end -->\nafter\n<!-- benchmark: x -->\n\\1\n<!-- end -->\n"
    )


def test_readme_and_page_show_the_same_savings():
    pattern = re.compile(r"<!-- benchmark: savings -->\n(.+?)<!-- end -->", re.DOTALL)
    (of_readme,), (of_page,) = (
        pattern.findall((ROOT / path).read_text(encoding="utf-8")) for path in ("README.md", "encsel/docs/speed.md")
    )
    assert of_readme == of_page
    assert "CKA of a pair and its error, 70 people" in of_readme


def test_page_states_the_samples_of_encsel():
    page = (ROOT / "encsel/docs/speed.md").read_text(encoding="utf-8")
    assert f"up to {MAX_EXACT:,} rows | those of a random {N_SEARCHED} rows, searched among all" in page
    assert f"up to {MAX_PEOPLE} people | those of a random {MAX_PEOPLE} people" in page
    assert f"| {N_POINTS} points |" in page
    assert f"up to {N_PEOPLE} people | a random {N_PEOPLE} people" in page


def test_exponents_are_those_of_growth_between_points():
    points = [
        {"people": n, "encoders": 4, "seconds": n / 10, "cpu_seconds": n / 5, "peak_mb": 100.0, "stages": stages}
        for n, stages in ((100, {"a": 1.0}), (1000, {"a": 100.0, "b": 0.01}))
    ]
    points.append({"people": 10_000, "encoders": 4, "unfinished": "not finished in 900 s"})
    header, first, second = growth.table(points, "people")
    assert header == ("people", "seconds", "CPU s", "peak MB", "a", "b")
    assert first == ("100", "10.00", "20.00", "100", "1.00", "0.00")
    assert second == ("1,000", "100 (1.00)", "200 (1.00)", "100 (0.00)", "100 (2.00)", "0.01")


def test_recorder_times_a_task_to_its_last_step():
    recorder = growth.Recorder()
    with recorder.task("geometry", 2) as task:
        assert isinstance(task, Task)
        task.advance()
    begun, end = recorder.spans["geometry"]
    assert recorder.seconds == {"geometry": end - begun}
    assert end > begun


@pytest.mark.robust
def test_growth_is_measured_and_drawn(tmp_path):
    done = benchmark(
        "growth", "--most-people", 100, "--most-encoders", 2, "--json", tmp_path / "growth.json",
        "--plot", tmp_path / "growth.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "growth.json").read_text())
    assert [point["people"] for point in document["people"]] == [100]
    assert {"geometry", "cross-validation"} <= set(document["encoders"][0]["stages"])
    assert (tmp_path / "growth.png").stat().st_size > 10_000


@pytest.mark.robust
def test_a_point_beyond_the_limit_is_named_and_ends_the_series(tmp_path):
    done = benchmark("growth", "--most-people", 300, "--most-encoders", 0, "--limit", 0.5)
    assert done.returncode == 0, done.stderr
    assert "100 people, 4 encoders: not finished in 0.5 s" in done.stderr
    assert "300 people, 4 encoders: left out" in done.stderr
