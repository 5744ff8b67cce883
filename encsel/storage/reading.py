"""Reads a file whole: an ordinary one, of bounded size, without waiting for anybody."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MAX_TEXT_BYTES = 64 << 20
"""Of a card, a result, a table of pairs, a settings file."""


class Refused(OSError):
    """What is there is no ordinary file, or too large a one; `strerror` says which."""


def read_whole(path: Path, at_most: int = MAX_TEXT_BYTES) -> bytes:
    """The content of an ordinary file of `at_most` bytes.

    Raises:
        Refused: a folder, pipe, socket or device, or a larger file.
        OSError: cannot be read.
    """
    try:
        # Before opening: to open a device may already do something.
        _check(path, path.stat(), at_most)
        # Not waiting: a pipe may have taken the file's place, and some files of /proc wait for a writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except ValueError as error:  # a NUL in the path
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    content = b""
    with os.fdopen(handle, "rb") as file:
        _check(path, facts := os.fstat(handle), at_most)
        # Files of /proc, and files that grow, say another size than they have.
        while part := file.read(min(max(facts.st_size, 1 << 16), at_most) + 1):
            content = content + part if content else part
            if len(content) > at_most:
                raise Refused(errno.EFBIG, f"too large: over {at_most >> 20} MiB", str(path))
    return content


def _check(path: Path, facts: os.stat_result, at_most: int) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise Refused(errno.EINVAL, "not a file", str(path))
    if facts.st_size > at_most:
        size = f"{facts.st_size / 2**20:.0f} MiB, at most {at_most >> 20}"
        raise Refused(errno.EFBIG, f"too large: {size}", str(path))
