"""Progress: a bar with an estimate on a terminal, log lines elsewhere, always on stderr."""

import contextlib
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

from encsel.errors import disarmed, harmless
from encsel.threads import in_threads, one_thread

Item = TypeVar("Item")
Value = TypeVar("Value")


class Task:
    """A piece of work in steps; this one shows nothing."""

    def advance(self, n: int = 1) -> None:
        pass


class Progress(Protocol):
    """Receiver of notes and progress; encsel's functions print nothing themselves."""

    def note(self, text: str, *, in_result: bool = False) -> None:
        """Tell the user something; `in_result`: the result will say it, too."""

    def task(self, label: str, total: int) -> AbstractContextManager[Task]:
        """Context of a piece of work of `total` steps."""


class Silent:
    """Shows nothing, the default in Python; notes go to the logger `encsel` at level INFO."""

    def note(self, text: str, *, in_result: bool = False) -> None:
        import logging

        logging.getLogger("encsel").info("%s", text)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Task]:
        yield Task()


PATIENCE = 3.0
"""Seconds after which `watched` shows its progress."""
AT_A_TIME = 4
"""Largest number of items that `each` works on, so that memory does not grow with the number of processors."""


def watched(progress: Progress, label: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """The items, one by one, with progress if they take longer than PATIENCE."""
    started, task = time.monotonic(), None
    with contextlib.ExitStack() as stack:
        for n_done, item in enumerate(items):
            if task is not None:
                task.advance()
            elif time.monotonic() - started > PATIENCE:
                task = stack.enter_context(progress.task(label, total))
                task.advance(n_done)
            yield item
        if task is not None:
            task.advance()


def each(function: Callable[[Item], Value], progress: Progress, label: str, items: Sequence[Item]) -> list[Value]:
    """What a function makes of each item, a few at a time, with progress as `watched`."""
    with one_thread():
        return list(watched(progress, label, in_threads(function, items, AT_A_TIME), len(items)))


class _LineTask(Task):
    """Prints a line at most every 10 seconds, for logs."""

    INTERVAL = 10.0

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._started = self._printed = self._ended = time.monotonic()

    def advance(self, n: int = 1) -> None:
        self._done += n
        self._ended = now = time.monotonic()
        if now - self._printed >= self.INTERVAL:
            self._printed = now
            rate = self._done / (now - self._started)
            estimate = f"{rate:.1f} a second, about {(self._total - self._done) / rate:.0f} s left"
            print(f"{self._label}: {self._done} of {self._total}, {estimate}", file=sys.stderr, flush=True)

    def finish(self) -> None:
        if self._done:  # timed to the last step: overlapping tasks may be closed long after
            seconds = self._ended - self._started
            print(f"{self._label}: {self._done} done in {seconds:.1f} s", file=sys.stderr, flush=True)


class OnStderr:
    """Notes and progress for a person or a log. Tasks may overlap.

    With `before_result`, what the result says as well is left to it.
    """

    def __init__(self, *, before_result: bool = False) -> None:
        self._bars: Any = None
        self._n_open = 0
        self._lock = threading.Lock()  # encoders on several devices run in threads
        self._before_result = before_result

    def note(self, text: str, *, in_result: bool = False) -> None:
        if in_result and self._before_result:
            return
        text = harmless(text)  # names of people and files are in it
        if self._bars is not None:
            self._bars.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Task]:
        label = harmless(label)
        if not sys.stderr.isatty():
            line = _LineTask(label, total)
            yield line
            line.finish()
            return
        with self._lock:
            self._n_open += 1
            if self._bars is None:
                self._bars = _bars()
                self._bars.start()
            bars, started = self._bars, time.monotonic()
        key = bars.add_task(label, total=total, rate="")

        class Bar(Task):
            done = 0

            def advance(self, n: int = 1) -> None:
                self.done += n
                rate = self.done / max(time.monotonic() - started, 1e-3)
                bars.update(key, advance=n, rate=f"{rate:.1f}/s")

        try:
            yield Bar()
        finally:
            with self._lock:
                self._n_open -= 1
                if not self._n_open:
                    bars.stop()
                    self._bars = None


_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""Where programs that scan a log may see a line end."""


class _Disarming:
    """A stream whose lines read neither as encsel's verdict nor as commands, whoever prints them."""

    REMEMBERED = 1000
    """Characters of an unfinished line that decide how it goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._line = stream, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        parts = []
        for part in re.split(f"(?<=[{_LINE_ENDS}])", text):
            n_written, line = len(self._line), self._line + part
            parts.append(disarmed(line, n_written)[n_written:])
            is_over = line[-1:] and line[-1] in _LINE_ENDS
            self._line = "" if is_over else line[: self.REMEMBERED] + line[self.REMEMBERED :][-2:]
        self._stream.write("".join(parts))
        return len(text)

    def command(self, line: str) -> None:
        """Write a line as it is."""
        self._stream.write(("\n" if self._line else "") + line + "\n")
        self._line = ""

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))


@contextmanager
def stderr_disarmed() -> Iterator[None]:
    """Whatever Python code prints on stderr (notes, tracebacks, plug-ins) passes neither for a verdict nor a command.

    Native libraries and other processes write past it.
    """
    if sys.stderr is None:  # closed
        yield
        return
    with contextlib.redirect_stderr(_Disarming(sys.stderr)):
        yield


def command_on_stderr(line: str) -> None:
    """Print encsel's own command to the runner of a CI job."""
    if isinstance(sys.stderr, _Disarming):
        sys.stderr.command(line)
    else:
        print(line, file=sys.stderr)


def _bars() -> Any:
    import rich.console
    import rich.progress as bars

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeRemainingColumn(),
    )
    return bars.Progress(*columns, console=rich.console.Console(stderr=True))
