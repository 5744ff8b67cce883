"""The command `encsel calibrate`, on simulated sets that are there."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from test_card_fit import made_up

from encsel.simulation.populations import KINDS
from encsel.simulation.trials import TRIALS_VERSION


def test_a_run_writes_its_cards_and_ends_at_once(tmp_path):
    (tmp_path / "work").mkdir()
    for kind in KINDS:
        for seed in range(2):
            np.savez(tmp_path / "work" / f"{kind}-{seed}-1x2-v{TRIALS_VERSION}.npz", **vars(made_up(kind, seed)))
    command = [sys.executable, "-m", "encsel", "calibrate", "--quick", "--jobs", "2", "--output", str(tmp_path)]
    # Processes left alone would end after five idle minutes, and the run with them.
    done = subprocess.run(command, timeout=120, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| low-rank | 30 |" in done.stdout
    assert {path.name for path in tmp_path.glob("*.json")} == {
        "encsel-calibrated-quick.json", "encsel-likelihood-quick.json",
    }  # fmt: skip
