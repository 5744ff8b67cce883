"""Inputs from public bug reports of people who do this job, where they lie beside the checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parents[2] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases beside the checkout")


def case_42_gw_at_250_people(root: Path, call) -> None:
    source = (root / "gw.py").read_text().replace("encsel.metrics.gromov_wasserstein", "encsel.metrics.transport")
    found = {}
    exec(source, {"print": lambda n, distance: found.update({n: distance.value})})
    assert found[250] == pytest.approx(0.0767, abs=2e-4)
    assert found[251] == pytest.approx(found[250], rel=0.02)


@pytest.mark.parametrize(
    "check", [f for n, f in sorted(globals().items()) if n.startswith("case_")], ids=lambda f: f.__name__[5:]
)
def test_case(check, tmp_path, call):
    (folder,) = CASES.glob(f"{check.__name__[5:7]}-*")
    subprocess.run([sys.executable, str(folder / "make.py"), str(tmp_path / "input")], check=True, capture_output=True)
    check(tmp_path / "input", call)
