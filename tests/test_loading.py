"""No file that encsel reads can run code: no pickle, and no library version that a file could exploit."""

from __future__ import annotations

import ast
import tomllib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "encsel").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LISTS = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
REQUIREMENTS = [Requirement(text) for texts in LISTS for text in texts]

# Dask and Ray send functions and results as pickles themselves; `encsel help scale` says whom that trusts.
BETWEEN_MACHINES = {
    ROOT / "encsel" / name for name in ("embedding/shards.py", "parallel/calls.py", "parallel/tasks.py")
}
UNSOUND = [
    ("torch", "2.5.1", "CVE-2025-32434: weights_only=True runs code"),
    ("torch", "2.9.1", "CVE-2026-24747: weights_only=True corrupts memory"),
    ("torch", "2.10.0", "CVE-2026-4538: deserialisation of pt2 files"),
    ("transformers", "4.57.0", "CVE-2025-14926: code from a configuration"),
    ("transformers", "5.2.0", "CVE-2026-4372, CVE-2026-5241: code from a checkpoint without trust_remote_code"),
    ("pillow", "10.0.0", "CVE-2023-4863: libwebp"),
    ("pillow", "10.1.0", "CVE-2023-50447: ImageMath"),
    ("pillow", "12.1.0", "CVE-2026-25990: out-of-bounds write"),
    ("pillow", "12.3.0", "GHSA-8g5g-8vmr-9782: JPEG decoder overflow"),
    ("onnx", "1.17.0", "CVE-2025-51480: files overwritten"),
    ("onnx", "1.20.1", "CVE-2026-27489, CVE-2026-34445: files read, properties overwritten"),
    ("joblib", "1.1.0", "CVE-2022-21797: eval"),
    ("numpy", "1.16.2", "CVE-2019-6446: allow_pickle by default"),
]
FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "hyperpyyaml"}
TORCHSCRIPT = ROOT / "encsel" / "loading" / "torchscript.py"
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "joblib.load",
    "pickle.load",
    "pickle.loads",
    "torch.jit.load",
    "torch.hub.load",
}


@pytest.mark.parametrize(("package", "bad", "why"), UNSOUND)
def test_version_with_known_code_execution_cannot_be_installed(package, bad, why):
    for requirement in REQUIREMENTS:
        assert requirement.name.lower() != package or not requirement.specifier.contains(bad), why


def test_installed_versions_are_those_allowed():
    # Ray is not among the packages of the tests.
    names = {"encsel", *(() if find_spec("ray") else ("ray",))}
    assert all(r.specifier.contains(version(r.name)) for r in REQUIREMENTS if r.name not in names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_loads_nothing_that_runs_code(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom) and path not in BETWEEN_MACHINES:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not {name.split(".")[0] for name in names} & FORBIDDEN_MODULES
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        allowed = {"torch.jit.load"} if path == TORCHSCRIPT else {"pickle.loads"} if path in BETWEEN_MACHINES else set()
        assert called not in FORBIDDEN_CALLS - allowed
        assert options.get("trust_remote_code", "False") == "False"
        if called == "np.load":
            assert options["allow_pickle"] == "False"
        if called == "torch.load":
            assert options["weights_only"] == "True"
