"""Calibrate, and check the shipped cards: `pytest -m slow tests/benchmarks -s` prints the results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from encsel.storage.documents import cards_folder

SHARED = Path(__file__).parents[3] / "shared"
pytestmark = pytest.mark.slow


def test_a_quick_calibration_writes_cards_and_prints_their_errors(tmp_path):
    command = [sys.executable, "-m", "encsel", "calibrate", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(done.stdout)
    for name in ("encsel-calibrated-quick", "encsel-likelihood-quick"):
        assert (tmp_path / f"{name}.json").is_file()
        assert f"{name}: predicted EER" in done.stdout
    assert "| channel | 30 |" in done.stdout
    assert "p_best" in done.stdout


@pytest.mark.skipif(not SHARED.is_dir(), reason="the prototypes are not beside this checkout")
def test_cards_are_checked_on_frozen_populations_and_real_people(tmp_path):
    command = [sys.executable, str(cards_folder() / "check_cards.py"), "encsel-calibrated", "--work", str(tmp_path)]
    command += ["--yardstick", str(SHARED / "prototypes" / "core.py"), "--populations", "1", "--sets", "1", "--quick"]
    command += ["--real", str(SHARED / "data" / "mavceleb_v1_embeddings"), "--splits", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(done.stdout)
    assert "| yardstick | 200 |" in done.stdout
    assert "Real people, facenet x ecapa, 35 predict 35 others" in done.stdout
