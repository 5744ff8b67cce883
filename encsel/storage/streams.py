"""stdin, stdout and stderr of the process. Writes never raise, whatever happens to a reader or a disk.

The error is kept instead, so that the exit code can report a lost result, and nothing else.
"""

import codecs
import contextlib
import errno
import io
import os
import select
import stat
import sys
from typing import Any, TextIO

_ESCAPED = "encsel.escaped"
_ASCII = "encsel_ascii"


def guard() -> None:
    """Replace the standard streams by ones that never raise. Call this before anything is printed or opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file to be opened gets this number, and output is written to it. Reading returns nothing;
            # writing is an error, as it was before.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)
    codecs.register(_ascii)
    codecs.register_error(_ESCAPED, _escaped)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = _guarded(getattr(sys, name), number)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def failure() -> OSError | None:
    """The error that cut stdout short; None if it is complete, or if its reader went away."""
    raw = getattr(getattr(sys.__stdout__, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _Raw) else None


class _Raw(io.RawIOBase):
    """A stream that is written until the first error; later output is discarded.

    Attributes:
        error: that error, unless the reader went away.
    """

    def __init__(self, stream: TextIO, raw: io.RawIOBase) -> None:
        super().__init__()
        self._stream = stream  # it would close `raw` when it is collected
        self._raw = raw
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            while (n_written := self._raw.write(data)) is None:
                # Another process that shares the stream made it non-blocking.
                select.select([], [self._raw], [])
            return n_written
        except OSError as error:
            # A terminal that is gone is an I/O error.
            is_terminal = error.errno == errno.EIO and stat.S_ISCHR(os.fstat(self.fileno()).st_mode)
            # Windows calls a pipe without a reader an invalid argument.
            is_gone = isinstance(error, ConnectionError) or (os.name == "nt" and error.errno == errno.EINVAL)
            if not is_terminal and not is_gone:
                self.error = error
            # For native libraries and children, too.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def writable(self) -> bool:
        return True


class _Text(io.TextIOWrapper):
    """Stay open: libraries must not close stdout or stderr, which they do not own."""

    def close(self) -> None:
        self.flush()


def _guarded(stream: TextIO | None, number: int) -> TextIO:
    stream = stream or os.fdopen(number, "w", encoding="utf-8", closefd=False)
    buffer: Any = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # with `python -u` there is no buffer between
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.RawIOBase):
        return stream  # somebody else's, in memory
    with contextlib.suppress(OSError):
        stream.flush()
    return _Text(
        io.BufferedWriter(_Raw(stream, raw)),
        # click takes ASCII for a mistake and writes UTF-8 to it.
        encoding=_ASCII if codecs.lookup(stream.encoding).name == "ascii" else stream.encoding,
        errors=_ESCAPED,
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _ascii(name: str) -> codecs.CodecInfo | None:
    """ASCII under another name."""
    if name != _ASCII:
        return None
    plain = codecs.lookup("ascii")
    return codecs.CodecInfo(
        plain.encode, plain.decode, incrementalencoder=plain.incrementalencoder,
        incrementaldecoder=plain.incrementaldecoder, name=_ASCII,
    )  # fmt: skip


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Error handler for characters missing from an encoding: box lines become hyphens, others JSON escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    import json

    lacking = error.object[error.start : error.end].replace("─", "-")
    return json.dumps(lacking)[1:-1], error.end
