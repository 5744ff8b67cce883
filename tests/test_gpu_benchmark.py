"""The GPU benchmark runs without pytest and finds that the device agrees with the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_DIFFERENCES = {
    "max |difference| of distances": 1e-6,
    "max |difference| of sampled distances": 1e-6,
    "|difference| of curvature": 1e-5,
    "max |difference| of permuted CKA": 1e-5,
}


@pytest.mark.parametrize(
    "options",
    [pytest.param(["--quick"], marks=pytest.mark.robust), pytest.param([], marks=pytest.mark.gpu)],
    ids=["quick", "full"],
)
def test_benchmark_runs_and_the_device_agrees_with_the_cpu(tmp_path, options):
    if not options and not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("no CUDA device")
    # One thread on the CPU: several wait for each other in small models.
    env = {**os.environ, "PYTHONPATH": str(ROOT), **({"OMP_NUM_THREADS": "1"} if options else {})}
    command = [sys.executable, "tests/benchmarks/gpu.py", *options, "--json", str(tmp_path / "gpu.json")]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "gpu.json").read_text())
    assert document["failures"] == {}
    seen = set()
    for result in document["results"]:
        part, measure, value = result["part"], result["measure"], result["value"]
        if measure == "lowest cosine with CPU float32":
            assert value > (0.99999 if part.endswith("float32") else 0.99), part
        elif measure in MAX_DIFFERENCES:
            assert value < MAX_DIFFERENCES[measure], measure
        seen.add(measure)
    assert {*MAX_DIFFERENCES, "lowest cosine with CPU float32"} <= seen
    assert "encsel / bare" in done.stdout
