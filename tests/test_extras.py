"""Where packages are missing: what is left out, what is told to install, and that the light core does without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from toy import write_population

from encsel import extras
from encsel.core import Runtime
from encsel.errors import NotHere, UsageError
from encsel.extras import EXTRA_OF, PACKAGE_OF, command_for, missing
from encsel.loading.registry import checked_spec, encoder_families, open_encoders
from encsel.validation.stage import stages
from encsel.validation.validate import wanted_stages

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LIGHT = """
import importlib.util, sys

OPTIONAL = {optional}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OPTIONAL:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name.partition(".")[0] in OPTIONAL else find(name, *more)
from encsel import cli
for command in {commands}:
    sys.argv = ["encsel", *command]
    print("exit code", cli.run())
"""
"""A program that runs commands where no optional package can be found."""


@pytest.fixture
def absent(monkeypatch):
    def make(*modules):
        monkeypatch.setattr(extras, "is_installed", lambda module: module not in modules)

    return make


def test_extras_are_those_of_the_project():
    declared = PROJECT["optional-dependencies"]
    assert set(EXTRA_OF.values()) <= set(declared)
    assert {*declared} - {"all", "test"} == set(EXTRA_OF.values())
    for module, extra in EXTRA_OF.items():
        package = PACKAGE_OF.get(module, module)
        assert any(re.match(rf"{package}\b", line) for line in declared[extra]) or module == "huggingface_hub", module


def test_everything_a_family_or_a_stage_needs_has_an_extra():
    needed = {m for f in encoder_families() for m in f.needs} | {m for s in stages().values() for m in s.needs}
    assert needed <= set(EXTRA_OF)


@pytest.mark.parametrize("family", [f for f in encoder_families() if f.needs], ids=lambda f: f"{f.name}-{f.modality}")
def test_encoder_whose_package_is_missing_names_the_command(family, absent):
    absent(family.needs[0])
    text = family.name if family.has_default else f"{family.name}:./x"
    with pytest.raises(NotHere) as caught:
        open_encoders(checked_spec(text, family.modality), Runtime())
    assert f"not installed. Install what it needs: {command_for(*family.needs)}" in str(caught.value)
    assert re.search(r"pip install 'encsel\[\w+\]'$", str(caught.value))


def test_several_missing_packages_are_all_named(absent):
    absent("transformers", "torch")
    assert missing(("transformers", "torch")) == (
        "transformers and torch are not installed. Install what it needs: pip install 'encsel[hf]'"
    )
    assert missing(("ot",)) is None


def test_stage_whose_package_is_missing_is_left_out_or_named(absent):
    assert "gw" in wanted_stages((), ())
    absent("ot")
    assert "gw" not in wanted_stages((), ())
    with pytest.raises(UsageError, match=r"The stage gw cannot run: POT is not installed.*encsel\[gw\]"):
        wanted_stages((), ("gw",))


def test_light_core_ranks_and_validates_without_any_extra(tmp_path):
    data = str(write_population(tmp_path / "set", 40, shared=1.0))
    commands = [
        [
            "validate",
            data,
            "--only",
            "matching,spectral",
            "--no-cache",
            "--quiet",
            "--report",
            str(tmp_path / "report"),
        ],
        ["plan", data],
        ["encoders", "list"],
        ["encoders", "show", "clip"],
        ["validate", data, "--only", "gw"],
    ]
    program = LIGHT.format(optional={*EXTRA_OF, "torchvision", "cv2"}, commands=commands)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120)
    codes = re.findall(r"^exit code (\d+)$", done.stdout, re.MULTILINE)
    assert codes == ["0", "0", "0", "0", "2"], done.stdout + done.stderr
    assert "no    face      clip" in done.stdout
    assert "pip install 'encsel[hf]'" in done.stdout
    assert "The stage gw cannot run: POT is not installed" in done.stderr
    assert (tmp_path / "report" / "index.html").is_file()


def test_metric_without_its_package_says_what_to_install(monkeypatch):
    import encsel

    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(encsel.errors.EncselError, match=r"pip install 'encsel\[gw\]'"):
        encsel.metrics.gromov_wasserstein(*(np.random.default_rng(0).normal(size=(2, 12, 3))))
