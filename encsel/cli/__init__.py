"""The command line. Imports nothing at first, so that interrupts are handled from the first moment on."""

import importlib
import os
from typing import Any

_PARTS = ("cli", "COMMANDS", "run")


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    interruption = None
    try:
        import signal

        # Signals that arrive before the handlers are set are held back until then; Windows cannot.
        hold_back = getattr(signal, "pthread_sigmask", None)
        before = hold_back and hold_back(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        from encsel.storage.streams import guard

        guard()
        from encsel.cli.interruption import Interruption
        from encsel.errors import INTERRUPTED

        interruption = Interruption()
        interruption.watch()
        if hold_back:
            hold_back(signal.SIG_SETMASK, before)
        from encsel.cli.program import run

        interruption.settle(run(interruption))
    except KeyboardInterrupt:
        if interruption is None or not interruption.happened:  # before the handlers were set
            try:
                os.write(2, b"encsel: Interrupted.\n")
            finally:
                os._exit(5)
        interruption.settle(INTERRUPTED)
    except Exception:
        # A damaged installation. Python's own exit code would be 1, which is that of a failed gate.
        import traceback

        try:
            traceback.print_exc()
        finally:
            os._exit(70)
    interruption.leave()


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return getattr(importlib.import_module("encsel.cli.program"), name)
    raise AttributeError(f"module 'encsel.cli' has no attribute {name!r}")
