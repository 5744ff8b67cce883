"""Inputs from public bug reports, made anew, and what must come out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parents[2] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases beside the checkout")


def case_30_terminal_without_utf8(root: Path, call) -> None:
    for encoding in ("latin-1", "ascii", "cp1252"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-m", "encsel", "study"], env=environment, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert "-----" in done.stdout.decode("ascii")


@pytest.mark.parametrize(
    "check", [f for n, f in sorted(globals().items()) if n.startswith("case_")], ids=lambda f: f.__name__[5:]
)
def test_case(check, tmp_path, call):
    (folder,) = CASES.glob(f"{check.__name__[5:7]}-*")
    subprocess.run([sys.executable, folder / "make.py", tmp_path / "input"], check=True, capture_output=True)
    check(tmp_path / "input", call)
