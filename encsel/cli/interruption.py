"""Ctrl-C and SIGTERM: the first ends the run cleanly, a second one ends it at once; neither prints a traceback."""

import atexit
import contextlib
import os
import select
import signal
import socket
import sys
import threading
from os import _exit  # as it is now: code of others cannot take it away
from typing import Any, NoReturn

from encsel.errors import INTERRUPTED

GRACE_SECONDS = 5.0
"""Time to end an interrupted run. Runners of CI jobs send SIGTERM 7.5 s after SIGINT, and SIGKILL soon after."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether this process was interrupted, and how it ends."""

    def __init__(self) -> None:
        self.happened = False
        self._code: int | None = None
        self._printed = threading.Lock()
        self._signals: tuple[int, ...] = ()

    def watch(self) -> None:
        """Make the first signal from now on raise KeyboardInterrupt in the main thread, once."""
        # Ignored signals stay ignored: `nohup`, or `&` in a script.
        self._signals = tuple(s for s in _SIGNALS if signal.getsignal(s) != signal.SIG_IGN)
        # Python runs handlers between two lines of the main thread, which may hang in a library; this wakes another
        # thread. Sockets, because Windows can wait for nothing else.
        self._sockets = reading, writing = socket.socketpair()
        writing.setblocking(False)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        atexit.register(self._ignore)  # registered first, called last
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)
        for number in self._signals:
            signal.signal(number, self._interrupt)
        with contextlib.suppress(RuntimeError):  # no thread can be started: nothing ends a hang
            threading.Thread(target=self._wait, args=(reading,), name="encsel-interruption", daemon=True).start()

    def settle(self, code: int) -> None:
        """Set the exit code; signals no longer change it."""
        self._code = code

    def leave(self) -> NoReturn:
        """End the process with the code that `settle` set, whatever libraries have left behind."""
        assert self._code is not None
        if self._code == INTERRUPTED:
            self._print()
            # What stdout holds was cut off in the middle, and its reader may have stopped reading.
            _exit(self._code)
        self._flush()
        others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
        workers = getattr(sys.modules.get("encsel.loading.deadline"), "THREAD_NAME", None)
        if any(thread.name == workers for thread in others):
            # Abandoned threads still run. Waiting for them could take forever, and one that runs while the interpreter
            # shuts down crashes it.
            _exit(self._code)
        atexit._run_exitfuncs()
        if not all(thread.daemon for thread in others):  # Python would wait for these
            self._end(self._code)
        atexit.register(self._end, self._code)  # before libraries are torn down, which may crash
        sys.exit(self._code)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()

    def _end(self, code: int) -> None:
        self._flush()
        _exit(code)

    def _interrupt(self, number: int, frame: Any) -> None:
        if not self.happened and self._code is None:
            self.happened = True
            # In a destructor or a callback Python prints the exception and continues; `_wait` ends that.
            sys.unraisablehook = lambda _: None
            raise KeyboardInterrupt

    def _wait(self, reading: socket.socket) -> None:
        n_signals = 0
        while n_signals < 2 and select.select([reading], [], [], GRACE_SECONDS if n_signals else None)[0]:
            n_signals += sum(number in self._signals for number in reading.recv(64))
        if self._code in (None, INTERRUPTED):
            self._print()
        _exit(INTERRUPTED if self._code is None else self._code)

    def _print(self) -> None:
        """Print the one line, once, and not through a Python stream: a hanging thread may hold its lock."""
        if self._printed.acquire(timeout=1.0):
            with contextlib.suppress(OSError, ValueError):
                if _is_read(2):  # else the pipe is full and nobody reads it
                    show_cursor = "\x1b[?25h\r\n" if os.isatty(2) else ""  # progress bars hide it
                    os.write(2, f"{show_cursor}encsel: Interrupted.\n".encode())
            # Never released: the line is printed once.

    def _ignore(self) -> None:
        for number in self._signals:
            signal.signal(number, signal.SIG_IGN)

    def _forget(self) -> None:
        """In a forked child: restore the handlers, since it shares its parent's sockets."""
        signal.set_wakeup_fd(-1)
        for number in self._signals:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _is_read(number: int) -> bool:
    """Whether a stream accepts output within a second; assumed where the system cannot say."""
    try:
        return bool(select.select([], [number], [], 1.0)[1])
    except OSError:  # Windows: not a socket
        return True
