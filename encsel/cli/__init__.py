"""The command line. Starts without importing anything, so that an interrupt is heard from the first moment on."""

from __future__ import annotations

import importlib
import os
from typing import Any

_PARTS = ("cli", "COMMANDS", "run")


def main() -> None:
    """Run the command line as a process, and end that with the command's exit code."""
    interruption = None
    try:
        from encsel.cli.interruption import Interruption
        from encsel.errors import INTERRUPTED

        interruption = Interruption()
        interruption.watch()
        from encsel.cli.program import run

        interruption.settle(run(interruption))
    except KeyboardInterrupt:
        if interruption is None or not interruption.happened:  # before it was watched for
            os.write(2, b"encsel: Interrupted.\n")
            os._exit(5)
        interruption.settle(INTERRUPTED)
    interruption.leave()


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return getattr(importlib.import_module("encsel.cli.program"), name)
    raise AttributeError(f"module 'encsel.cli' has no attribute {name!r}")
