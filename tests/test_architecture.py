"""The shape of the package: which room may import which, how long a file is, and what stays out of `encsel --help`."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import encsel

PACKAGE = Path(encsel.__file__).parent
HEAVY = (
    "torch", "torchvision", "transformers", "timm", "open_clip", "insightface", "speechbrain", "onnxruntime", "ot",
    "sklearn", "matplotlib", "distributed", "ray",
)  # fmt: skip
LAZY = {*HEAVY, "scipy", "skimage", "PIL", "soundfile", "rich", "pydantic", "pandas", "joblib"}
ROOMS = (
    "__main__", "cli", "reports", "validation", "ranking", "gates", "embedding", "simulation", "prediction", "encoders",
    "matching", "regression", "loading", "data", "metrics", "parallel", "storage", "core", "progress", "extras",
    "runtime", "rows", "threads", "version", "errors",
)  # fmt: skip
"""Top to bottom. A file imports only from its own room and from rooms below."""
MAX_LINES = 400
SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if "pretrained_regression" not in p.parts)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """Rooms that a file imports, at any depth, type-checking blocks left out."""
    rooms = set()
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                child.body = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "encsel":
            parts = (node.module or "").split(".")
            rooms |= {parts[1]} if len(parts) > 1 else {a.name for a in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("encsel.")}
    return rooms


def test_every_room_is_listed_and_says_what_it_is():
    found = {room(path) for path in SOURCES} - {"__init__"}
    assert found == set(ROOMS)
    for path in SOURCES:
        assert ast.get_docstring(ast.parse(path.read_text())), path


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    if path == PACKAGE / "__init__.py":  # the names of the public API, imported on first use
        return
    own = ROOMS.index(room(path))
    for other in imported(ast.parse(path.read_text())):
        assert other in ROOMS, f"{path.name} imports encsel.{other}"
        assert ROOMS.index(other) >= own, f"{path.relative_to(PACKAGE)} imports {other}, which is above it"


def test_no_module_imports_itself_in_a_circle():
    edges = {}
    for path in SOURCES:
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        tree = ast.parse(path.read_text())
        edges[name] = {
            node.module.removeprefix("encsel.")
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("encsel.")
        }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a circle: {' > '.join((*trail, name))}"
        if name not in done:
            for other in edges.get(name, ()):
                visit(other, (*trail, name))
            done.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_is_one_idea_and_imports_heavy_libraries_inside_functions(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    for node in ast.parse(text).body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & LAZY


def test_no_function_inside_takes_more_than_nine_parameters():
    public = {"rank", "validate"}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name not in public and room(path) != "cli":
                arguments = [a.arg for a in (*node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")]
                assert len(arguments) <= 9, f"{path.relative_to(PACKAGE)}: {node.name}({', '.join(arguments)})"


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
    assert not set(loaded) & {*HEAVY, "numpy", "pydantic"}


def test_help_answers_at_once():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "encsel", "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.4
