"""Writes files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

TEMPORARY_PREFIX = ".writing-"


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read; missing folders are made, for their owner alone."""
    # `mkdir(parents=True)` gives its mode to the innermost folder alone.
    for folder in [*reversed(path.parent.parents), path.parent]:
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    _replace(path, content, 0o600)


def write_public(path: Path, content: bytes) -> None:
    """Write a file with the permissions the user's umask gives.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    umask = os.umask(0)
    os.umask(umask)
    _replace(path, content, 0o666 & ~umask)


def _replace(path: Path, content: bytes, mode: int) -> None:
    handle, temporary = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
