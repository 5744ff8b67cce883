"""What every test runs under."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _own_record_of_weights(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test leaves its weights' hashes in the record of who runs the tests."""
    monkeypatch.setenv("ENCSEL_WEIGHTS", str(tmp_path_factory.mktemp("state") / "weights.json"))


@pytest.fixture(autouse=True)
def _no_lazy_modules() -> Iterator[None]:
    """Take speechbrain's lazy modules out of sys.modules: hypothesis looks at every module, which imports them."""
    yield
    for name, module in list(sys.modules.items()):
        if type(module).__module__ == "speechbrain.utils.importutils":
            del sys.modules[name]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children start with Ctrl-C in force, even where the test run itself was started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
