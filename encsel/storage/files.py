"""Read and write whole files: regular files of bounded size, replaced atomically."""

import contextlib
import errno
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY_PREFIX = ".encsel-writing-"
MAX_TRIES = 100  # of writing a file that other processes sweep away in the instant before it is locked
MAX_TEXT_BYTES = 64 << 20  # largest card, result, table of pairs or settings file
ANNEX_POINTER = "a git-annex pointer, not the file itself: run git annex get"


class Refused(OSError):
    """Not a regular file, or too large; `strerror` says which."""


def read_whole(path: Path, at_most: int = MAX_TEXT_BYTES) -> bytes:
    """Content of a regular file of at most `at_most` bytes, without waiting for another process.

    Raises:
        Refused: a folder, pipe, socket or device, or a larger file.
    """
    with open_ordinary(path, at_most) as file:
        size = os.fstat(file.fileno()).st_size
        content = b""
        # Files in /proc, and files that grow, report a wrong size.
        while part := file.read(min(max(size, 1 << 16), at_most) + 1):
            content = content + part if content else part
            if len(content) > at_most:
                raise Refused(errno.EFBIG, f"too large: over {at_most >> 20} MiB", str(path))
    return content


def open_ordinary(path: Path, at_most: int) -> BinaryIO:
    """A regular file of at most `at_most` bytes, opened without waiting for another process; raises as `read_whole`."""
    try:
        # Check before opening: opening a device may already have an effect.
        _check(path, path.stat(), at_most)
        # Do not wait: a pipe may have taken the file's place, and some files of /proc wait for a writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL in the path
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    file = os.fdopen(handle, "rb")
    try:
        _check(path, os.fstat(handle), at_most)
    except OSError:
        file.close()
        raise
    return file


_LFS = re.compile(rb"version https://(git-lfs\.github\.com|hawser\.github\.com)/spec/")
_ANNEX = re.compile(rb"[\x20-\x7e]{0,1000}annex/objects/[\x20-\x7e]")
_HTML = re.compile(
    rb"(?>\s|<\?xml[^>]*>|<!--.*?-->)*+<(!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE | re.DOTALL
)
_XML_ERROR = re.compile(rb"\s*(<\?xml[^>]*>\s*)?<Error>")


def stand_in(content: bytes) -> str | None:
    """What a placeholder for a file is and what to do about it; None if `content` is the file itself.

    Args:
        content: the file, or its first kilobyte.

    >>> stand_in(b"version https://git-lfs.github.com/spec/v1\\noid sha256:...")
    'a Git LFS pointer, not the file itself: run git lfs pull'
    >>> stand_in(b"RIFF....WAVE") is None
    True
    """
    head = content[:1024].removeprefix(b"\xef\xbb\xbf")
    if _LFS.match(head.lstrip()):
        return "a Git LFS pointer, not the file itself: run git lfs pull"
    if _ANNEX.match(head) and len(content) <= 32_768:
        return ANNEX_POINTER
    if _HTML.match(head):
        return "an HTML page, not the file itself: download it again"
    if _XML_ERROR.match(head):
        return "an error message of a file server, not the file itself: download it again"
    return None


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, in folders (made if missing) that only the owner can enter."""
    # `mkdir(parents=True)` applies its mode to the innermost folder only.
    for folder in [*reversed(path.parent.parents), path.parent]:
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    _replace(path, content, 0o600)


def write_public(path: Path, content: bytes) -> None:
    """Write a file with the permissions of the user's umask into an existing folder."""
    umask = os.umask(0)
    os.umask(umask)
    _replace(path, content, 0o666 & ~umask)


def sweep(folder: Path) -> None:
    """Remove the half-written files of killed processes from a folder, and no file that is being written.

    The writer holds a lock, which ends with its process, so no clock (of this machine or a file server) matters.
    """
    try:
        leftovers = [path for path in folder.iterdir() if path.name.startswith(TEMPORARY_PREFIX)]
    except OSError:
        return
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    for path in leftovers:
        with contextlib.suppress(OSError):  # gone, or not ours to touch
            handle = os.open(path, flags)
            try:
                is_left = _lock(handle)
            finally:
                os.close(handle)  # before removing the file: Windows does not remove an open one
            if is_left:
                path.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait for other processes that hold the lock of a folder; continue if the file system has no locks."""
    # Windows cannot open a folder.
    where, flags = (folder / ".encsel-lock", os.O_RDWR | os.O_CREAT) if os.name == "nt" else (folder, os.O_RDONLY)
    handle = os.open(where, flags)
    try:
        _lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


def _replace(path: Path, content: bytes, mode: int) -> None:
    sweep(path.parent)
    for n_left in reversed(range(MAX_TRIES)):
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:  # a buffer would be written out when it is closed
                _lock(handle)
                if hasattr(os, "fchmod"):
                    os.fchmod(handle, mode)
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(handle)
                if os.name == "nt":  # cannot rename an open file
                    file.close()
                temporary.replace(path)
                return
        except (FileNotFoundError, PermissionError) as error:
            # Another process swept it away before it was locked; or, on Windows, has the earlier file open.
            temporary.unlink(missing_ok=True)
            if not n_left or (isinstance(error, PermissionError) and os.name != "nt"):
                raise
            time.sleep(0.01)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _lock(handle: int, *, wait: bool = False) -> bool:
    """Lock an open file until it is closed; False if another process holds it or the file system has no locks."""
    from filelock import lock_descriptor

    try:
        return lock_descriptor(handle, blocking=wait)
    except OSError:
        return False


def _check(path: Path, facts: os.stat_result, at_most: int) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise Refused(errno.EINVAL, "not a file", str(path))
    if (size := facts.st_size) > at_most:
        raise Refused(errno.EFBIG, f"too large: {size / 2**20:.0f} MiB, at most {at_most >> 20}", str(path))
