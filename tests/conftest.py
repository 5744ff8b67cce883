"""What every test runs under."""

from __future__ import annotations

import os

# Tests run side by side, one a core: numerical libraries, which read this when imported, take one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where GitHub Actions runs the tests, encsel would annotate its errors.
os.environ.pop("GITHUB_ACTIONS", None)

import gc
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from toy import few_shuffles, write_population

import encsel
from encsel import cli
from encsel.loading import registry
from encsel.ranking.result import Ranking
from encsel.storage.files import locked
from encsel.validation.result import Validation

Call = Callable[..., tuple[int, str, str]]

# Tests start many processes: none of them shall compile the package again, even where bytecode is switched off.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def states(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Empty folders; many numbered ones by `mktemp` take long."""
    root = tmp_path_factory.mktemp("states")

    def made() -> Iterator[Path]:
        for i in count():
            (root / str(i)).mkdir()
            yield root / str(i)

    return made()


@pytest.fixture(autouse=True)
def _own_record_of_weights(monkeypatch: pytest.MonkeyPatch, states: Iterator[Path]) -> None:
    """No test leaves its weights' hashes in the record of who runs the tests."""
    monkeypatch.setenv("ENCSEL_WEIGHTS", str(next(states) / "weights.json"))


_n_modules = 0


def _take_out_lazy_modules() -> None:
    global _n_modules
    if len(sys.modules) != _n_modules:
        for name, module in list(sys.modules.items()):
            if type(module).__module__ == "speechbrain.utils.importutils":
                del sys.modules[name]
        _n_modules = len(sys.modules)


@pytest.fixture(autouse=True)
def _no_lazy_modules() -> Iterator[None]:
    """Take speechbrain's lazy modules out of sys.modules: hypothesis looks at every module, which imports them."""
    # At both ends: fixtures of a module or session import as well.
    _take_out_lazy_modules()
    yield
    _take_out_lazy_modules()


@pytest.fixture(autouse=True)
def _small_heap() -> Iterator[None]:
    """Hide what libraries allocated from garbage collection: embedding collects after each model, which takes long."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test if a connection is attempted, even where the code under test catches the error."""
    attempts = []

    def refuse(*arguments: object, **_: object) -> None:
        attempts.append(arguments)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    yield
    assert attempts == []


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: small models are up to ten times slower on all cores of a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children start with Ctrl-C in force, even where the test run itself was started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _few_shuffles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shuffle people less often than users do, which moves p-values alone. Tests of these are marked `whole`."""
    if "whole" not in request.keywords:
        few_shuffles(monkeypatch)


@pytest.fixture(autouse=True)
def _in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all encoders in this process: one of their own takes seconds. Tests of these are marked `workers`."""
    if "workers" not in request.keywords:
        monkeypatch.setattr(registry, "IN_WORKERS", False)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run `encsel ARGS...` in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("ENCSEL_CACHE", str(tmp_path / "cache"))

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["encsel", *map(str, args)])
        code = cli.run()
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="session")
def population(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of 60 people by two face and two voice encoders, for tests that only read them."""
    return write_population(tmp_path_factory.mktemp("population"), 60, shared=1.0)


@pytest.fixture(scope="session")
def ranking(population: Path) -> Ranking:
    """One ranking for all tests that look at how a ranking is shown."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        few_shuffles(monkeypatch)
        return encsel.rank(population, cache=None)


@pytest.fixture(scope="session")
def validation(population: Path, tmp_path_factory: pytest.TempPathFactory) -> Validation:
    """One validation, every stage, for all tests that look at how a validation is shown."""
    base = tmp_path_factory.getbasetemp()
    # Processes of pytest-xdist share the folder above theirs, and so what one of them measured.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as monkeypatch:
        few_shuffles(monkeypatch)
        with locked(shared):
            return encsel.validate(population, cache=shared / "cache-of-validation")
