"""Bounds the time of calls that may never return: they run in threads that can be left behind."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from encsel.errors import EncoderFailed

THREAD_NAME = "encsel-worker"
"""The command line ends without waiting for threads of this name."""

_Out = TypeVar("_Out")


class OutOfTime(EncoderFailed):
    """An encoder took longer than it may."""


class Workers:
    """A pool of threads, of which one that never returns keeps neither the pool nor the process from ending.

    As a context it waits at its end for what was begun, unless an exception or `reinforce` came before.
    """

    def __init__(self, n_threads: int) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._jobs = queue.SimpleQueue()
        self._n_threads, self._hangs = n_threads, False
        self._threads: list[threading.Thread] = []
        self._start()

    def submit(self, function: Callable[..., _Out], *args: Any) -> Future[_Out]:
        future: Future[_Out] = Future()
        self._jobs.put((future, function, args))
        return future

    def reinforce(self) -> None:
        """As many new threads again: those there are may all hang."""
        self._hangs = True
        self._start()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(wait=error is None and not self._hangs)

    def close(self, *, wait: bool) -> None:
        """End the threads when they are done with what they do; what waits for a thread is cancelled."""
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job[0].cancel()
        for _ in self._threads:
            self._jobs.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _start(self) -> None:
        for _ in range(self._n_threads):
            thread = threading.Thread(target=self._work, name=THREAD_NAME, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, args = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function(*args))
            except BaseException as error:  # for who waits, Ctrl-C among it
                future.set_exception(error)
            del job, future, function, args  # else an idle thread holds a model or a picture


class Deadline:
    """The seconds that one encoder has; only what it is waited for counts. None: no limit, nothing in a thread."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds, self._left = seconds, seconds
        self._worker: Workers | None = None

    def call(self, function: Callable[..., _Out], *args: Any) -> _Out:
        """What the function returns.

        Raises:
            OutOfTime: it did not return in time, and goes on in its thread.
        """
        if self._seconds is None:
            return function(*args)
        # One thread for all calls: libraries make a team of threads of their own for each that calls them.
        self._worker = self._worker or Workers(1)
        return self.result(self._worker.submit(function, *args))

    def result(self, future: Future[_Out]) -> _Out:
        """What a future comes to, waited for no longer than is left.

        Raises:
            OutOfTime: that was not enough.
        """
        if self._left is None:
            return future.result()
        started = time.monotonic()
        try:
            return future.result(timeout=max(self._left, 0.0))
        except TimeoutError as error:
            if future.done():  # the function's own
                raise
            raise OutOfTime(
                f"it was not done after {self._seconds:g} s and is given up. "
                "Allow more with --timeout, or find out what it waits for."
            ) from error
        finally:
            self._left -= time.monotonic() - started

    def close(self) -> None:
        """End the thread, once it is done with what it does."""
        if self._worker is not None:
            self._worker.close(wait=False)
            self._worker = None
