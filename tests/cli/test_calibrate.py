"""The command `encsel calibrate` and how it ends."""

from __future__ import annotations

import subprocess
import sys

USES_PROCESSES = """
from encsel.cli.interruption import Interruption
interruption = Interruption()
interruption.watch()
import time
from joblib import Parallel, delayed
Parallel(n_jobs=2)(delayed(time.sleep)(0.5) for _ in range(4))
interruption.settle(3)
interruption.leave()
"""


def test_a_run_that_used_processes_ends_at_once():
    # Left alone, they would end after five idle minutes, and the run with them.
    assert subprocess.run([sys.executable, "-c", USES_PROCESSES], timeout=60, check=False).returncode == 3
