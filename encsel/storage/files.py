"""Writes files whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

TEMPORARY_PREFIX = ".encsel-writing-"


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


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left half written in a folder; what is being written now stays.

    Who writes holds a lock, which ends with its process: clocks, of this machine or of a file server, do not matter.
    """
    try:
        left = [path for path in folder.iterdir() if path.name.startswith(TEMPORARY_PREFIX)]
    except OSError:
        return
    for path in left:
        with contextlib.suppress(OSError):  # locked, gone, or not ours to touch
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(handle)


def _replace(path: Path, content: bytes, mode: int) -> None:
    sweep(path.parent)
    for is_last in (False, False, True):
        handle, temporary = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
        with os.fdopen(handle, "wb", buffering=0) as file:  # a buffer's rest would be written while it is closed
            try:
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.fchmod(handle, mode)
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(handle)
                Path(temporary).replace(path)
                return
            except FileNotFoundError:  # another process swept it away before it was locked
                if is_last:
                    raise
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
