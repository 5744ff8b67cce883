"""The shape of the package: which file may import which, and what must stay out of `encsel --help`."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import encsel

PACKAGE = Path(encsel.__file__).parent
HEAVY = ("torch", "transformers", "insightface", "speechbrain", "onnxruntime", "ot", "sklearn", "matplotlib")

LAYERS = [
    {"__main__"},
    {"cli"},
    {"page"},
    {"figures", "study", "schemas"},
    {"validation_report"},
    {"validation", "report"},
    {"validated", "explanation", "plan"},
    {"ranking", "analysis"},
    {"results", "evaluation"},
    {"manifold", "matching", "groups", "stages"},
    {"recipe", "embed", "pseudonyms"},
    {"prediction", "trials"},
    {"github"},
    {"gates"},
    {"compare"},
    {"geometry", "regression", "calibration", "cache", "demo", "progress", "health", "calibrated", "simulation"},
    {"evidence", "card"},
    {"layouts", "vectors", "pairs"},
    {"association", "crossval"},
    {"encoders", "metrics", "media"},
    {"registry", "speech", "vision"},
    {"pretrained", "scorers"},
    {"cardfile", "signoff"},
    {"neighbours", "sampling", "signature", "files", "eer", "spec", "config", "deadline"},
    {"core", "reading"},
    {"errors"},
    {""},
]
"""Top to bottom; a module imports only from layers below its own. "" is `encsel/__init__.py`, which has the version."""


def level(module: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if module in layer)


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    inner = path.relative_to(PACKAGE).parts[0]
    return "" if inner == "__init__.py" else inner.removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """Modules of encsel that a file imports, at any depth, type-checking blocks left out."""
    found = set()
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                child.body = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "encsel":
            rest = node.module.split(".")[1:]
            names = [a.name for a in node.names]
            if rest:
                found.add(".".join(rest))
            else:
                found.update(n if (PACKAGE / f"{n}.py").exists() or (PACKAGE / n).is_dir() else "" for n in names)
        elif isinstance(node, ast.Import):
            found.update(a.name.removeprefix("encsel.") for a in node.names if a.name.startswith("encsel."))
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = part(path)
    for module in imported(ast.parse(path.read_text())):
        top = module.split(".")[0]
        # A command may call another; a metric may be built on another, and knows nothing else.
        if own == top and own in ("cli", "metrics"):
            continue
        assert level(top) > level(own), f"{own or '__init__'} imports {module}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_inside_functions(path):
    for node in ast.parse(path.read_text()).body:
        names = (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        assert not {n.split(".")[0] for n in names} & {
            *HEAVY,
            "scipy",
            "skimage",
            "librosa",
            "PIL",
            "soundfile",
            "rich",
        }


def test_every_module_says_what_it_is_on_its_first_line():
    for path in sources():
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_help_imports_no_heavy_library():
    code = (
        "import sys; sys.argv = ['encsel', '--help']\n"
        "from encsel.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(sorted(m for m in sys.modules if '.' not in m), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(result.stderr.splitlines()[-1])
    assert "encsel" in loaded
    assert not set(loaded) & set(HEAVY)


def test_help_answers_at_once():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "encsel", "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.4
