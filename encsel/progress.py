"""How long work tells of itself: a bar with an estimate on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


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
        self.started = self.said = time.monotonic()

    def advance(self, n: int = 1) -> None:
        self.done += n
        now = time.monotonic()
        if now - self.said >= self.INTERVAL:
            self.said = now
            left = (now - self.started) / self.done * (self.total - self.done)
            print(f"{self.label}: {self.done} of {self.total}, about {left:.0f} s left", file=sys.stderr, flush=True)


class OnStderr:
    """Notes and progress for a person or a log."""

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Task]:
        if not sys.stderr.isatty():
            line = _LineTask(label, total)
            yield line
            if line.done:
                seconds = time.monotonic() - line.started
                print(f"{label}: {line.done} done in {seconds:.1f} s", file=sys.stderr, flush=True)
            return
        import rich.console
        import rich.progress as bars

        columns = (
            bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn(),
            bars.TimeRemainingColumn(),
        )  # fmt: skip
        with bars.Progress(*columns, console=rich.console.Console(stderr=True), transient=False) as bar:
            task = bar.add_task(label, total=total)

            class Bar:
                def advance(self, n: int = 1) -> None:
                    bar.advance(task, n)

            yield Bar()
