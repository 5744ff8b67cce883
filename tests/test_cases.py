"""Inputs from public bug reports of people who do this job, and what is right for each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases beside the checkout")

# The cases name a module by its place in encsel 0.1.
SHIM = "import sys, encsel.loading.registry; sys.modules['encsel.registry'] = encsel.loading.registry"


def case_30_terminal_without_utf8(root: Path, call) -> None:
    for encoding in ("latin-1", "ascii", "cp1252"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-m", "encsel", "study"], env=environment, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert "-----" in done.stdout.decode("ascii")


def case_33_lora_adapter_ignored(root: Path, call) -> None:
    faces = ("--face", f"clip:{root / 'base'}", "--face", f"clip:{root / 'tuned'}")
    code, _, err = call("embed", root, *faces, "--voice", "ltas", "--offline", "-o", f"{root}-embedded")
    assert code == 4
    assert "adapter_config.json" in err
    assert "merge_and_unload" in err
    assert [p.stem for p in Path(f"{root}-embedded", "faces").iterdir()] == ["clip-base"]


@pytest.mark.parametrize(
    "check", [f for name, f in sorted(globals().items()) if name.startswith("case_")], ids=lambda f: f.__name__[5:]
)
def test_case(check, tmp_path, call):
    (folder,) = CASES.glob(f"{check.__name__[5:7]}-*")
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "sitecustomize.py").write_text(SHIM if check.__name__[5:7] == "33" else "")
    paths = os.pathsep.join([str(tmp_path / "shim"), str(Path(__file__).parents[1])])
    command = [sys.executable, str(folder / "make.py"), str(tmp_path / "input")]
    made = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    check(tmp_path / "input", call)
