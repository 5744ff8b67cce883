"""How long work tells of itself: a bar with an estimate on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from encsel.errors import printable


class Task(Protocol):
    def advance(self, n: int = 1) -> None: ...


class Progress(Protocol):
    """What long work calls; encsel's functions print nothing themselves."""

    def note(self, text: str) -> None:
        """Say one thing the user should know."""

    def task(self, label: str, total: int) -> AbstractContextManager[Task]:
        """Context of one piece of work of `total` steps."""


class _NoTask:
    def advance(self, n: int = 1) -> None:
        pass


class Silent:
    """Says nothing: the default from Python."""

    def note(self, text: str) -> None:
        pass

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Task]:
        yield _NoTask()


class _LineTask:
    """Prints a line now and then, for logs."""

    INTERVAL = 10.0

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, total, 0
        self.started = self.said = self.ended = time.monotonic()

    def advance(self, n: int = 1) -> None:
        self.done += n
        self.ended = now = time.monotonic()
        if now - self.said >= self.INTERVAL:
            self.said = now
            rate = self.done / (now - self.started)
            left = (self.total - self.done) / rate
            print(
                f"{self.label}: {self.done} of {self.total}, {rate:.1f} a second, about {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def finish(self) -> None:
        if self.done:  # timed to the last step: overlapping tasks may be closed long after
            seconds = self.ended - self.started
            print(f"{self.label}: {self.done} done in {seconds:.1f} s", file=sys.stderr, flush=True)


class OnStderr:
    """Notes and progress for a person or a log. Tasks may overlap."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._n_open = 0

    def note(self, text: str) -> None:
        text = printable(text)  # names of people and files are in it
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Task]:
        if not sys.stderr.isatty():
            line = _LineTask(label, total)
            yield line
            line.finish()
            return
        self._n_open += 1
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        bars = self._bars
        key = bars.add_task(label, total=total, rate="")

        class Bar:
            def __init__(self) -> None:
                self.done, self.started = 0, time.monotonic()

            def advance(self, n: int = 1) -> None:
                self.done += n
                rate = self.done / max(time.monotonic() - self.started, 1e-3)
                bars.update(key, advance=n, rate=f"{rate:.1f}/s")

        try:
            yield Bar()
        finally:
            self._n_open -= 1
            if not self._n_open:
                bars.stop()
                self._bars = None


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
