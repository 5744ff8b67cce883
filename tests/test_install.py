"""The regression cards and the command are found however encsel was installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import encsel

CHECKOUT = Path(__file__).resolve().parent.parent
LOOK = """
import json, encsel
from encsel.prediction.card import shipped_calibrated
from encsel.regression.card import load_geometric_card, shipped_cards
from encsel.storage.documents import cards_folder
names = [*shipped_cards(), *shipped_calibrated()]
print(json.dumps([encsel.__file__, str(cards_folder()), names, load_geometric_card("upadhyay2026").name]))
"""

pytestmark = pytest.mark.skipif(
    not (CHECKOUT / ".git").exists(), reason="needs a git checkout to build from, not an installed or unpacked encsel"
)


def run(*command, **options):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, env=environment, **options
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what git would commit, so that no build output lands in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in run("git", "-C", CHECKOUT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (CHECKOUT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=source)
    return folder


def test_wheel_holds_the_package_its_cards_and_its_types(built, source):
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        info = f"encsel-{encsel.__version__}.dist-info"
        metadata, scripts = (wheel.read(f"{info}/{name}").decode() for name in ("METADATA", "entry_points.txt"))
    files = {f"encsel/{path.relative_to(source / 'encsel').as_posix()}" for path in (source / "encsel").rglob("*.*")}
    cards = {f"encsel/pretrained_regression/{path.name}" for path in (source / "pretrained_regression").iterdir()}
    assert "encsel/py.typed" in files
    assert len(cards) > 4
    assert {name for name in names if not name.startswith(info)} == files | cards
    assert f"\nVersion: {encsel.__version__}\n" in metadata
    assert "encsel = encsel.cli:main" in scripts


def test_sdist_holds_what_a_wheel_is_built_from_and_the_tests(built, source):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    paths = [p for folder in ("encsel", "tests", "pretrained_regression") for p in (source / folder).rglob("*.*")]
    assert {p.relative_to(source).as_posix() for p in paths} <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names


@pytest.fixture
def environment(tmp_path):
    """A new virtual environment that sees the libraries of this one, but not its editable installs."""
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    scheme = sysconfig.get_paths("venv", vars={"base": str(venv), "platbase": str(venv)})
    # A .pth file of a folder that is added by a .pth file is not read: an editable encsel here stays out there.
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    Path(scheme["purelib"], "libraries.pth").write_text("\n".join(libraries))
    return Path(scheme["scripts"])


def install(environment, *what):
    python = environment / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet",
        "--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed", "--no-warn-script-location", *what,
    )  # fmt: skip


def look(environment, cwd):
    """Where encsel is, where its cards are and which, as seen from another folder; the command must answer, too."""
    assert run(environment / "encsel", "--version", cwd=cwd) == f"encsel {encsel.__version__}\n"
    file, cards, names, name = json.loads(run(environment / "python", "-c", LOOK, cwd=cwd))
    assert name == "upadhyay2026"
    shipped = {path.stem for path in (CHECKOUT / "pretrained_regression").glob("*.json")}
    assert set(names) == shipped
    return Path(file).resolve(), Path(cards)


@pytest.mark.parametrize("kind", ["*.whl", pytest.param("*.tar.gz", marks=pytest.mark.slow)], ids=["wheel", "sdist"])
def test_cards_are_found_from_an_installed(built, environment, tmp_path, kind):
    (archive,) = built.glob(kind)
    install(environment, archive)
    file, cards = look(environment, tmp_path)
    assert file.is_relative_to(environment.parent.resolve())
    assert cards == file.parent / "pretrained_regression"


@pytest.mark.slow
def test_cards_are_found_from_an_editable_install(source, environment, tmp_path):
    install(environment, "--editable", source)
    file, cards = look(environment, tmp_path)
    assert file == (source / "encsel" / "__init__.py").resolve()
    assert cards.is_relative_to(source.resolve())
