"""Time limits for calls that may never return: they run in threads that can be abandoned."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from encsel.errors import EncoderFailed

THREAD_NAME = "encsel-worker"
"""The command line exits without waiting for threads of this name."""

_Out = TypeVar("_Out")


class OutOfTime(EncoderFailed):
    """An encoder exceeded its time limit."""


class Workers:
    """A pool of threads that can close, and let the process exit, while a thread hangs.

    Leaving the context waits for running jobs, unless an exception was raised or `reinforce` was called.
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
        """Start as many threads again, because all existing ones may hang."""
        self._hangs = True
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.close(wait=error is None and not self._hangs)

    def close(self, *, wait: bool) -> None:
        """End each thread after its current job; cancel jobs that no thread has started."""
        with contextlib.suppress(queue.Empty):
            while True:
                if job := self._jobs.get_nowait():
                    job[0].cancel()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _start(self) -> None:
        threads = [threading.Thread(target=self._work, name=THREAD_NAME, daemon=True) for _ in range(self._n_threads)]
        self._threads += threads
        for thread in threads:
            thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, args = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function(*args))
            except BaseException as error:  # re-raised by whoever waits for the future, KeyboardInterrupt included
                future.set_exception(error)
            del job, future, function, args  # otherwise an idle thread keeps a model or an image alive


class Deadline:
    """The seconds one encoder may use; only time spent waiting for it counts. None: no limit and no thread."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds, self._left = seconds, seconds
        self._worker: Workers | None = None

    def call(self, function: Callable[..., _Out], *args: Any) -> _Out:
        """Call a function; OutOfTime if it does not return in time, while it continues in its thread."""
        if self._seconds is None:
            return function(*args)
        # One thread for all calls: libraries create a thread pool of their own for each calling thread.
        self._worker = self._worker or Workers(1)
        return self.result(self._worker.submit(function, *args))

    def result(self, future: Future[_Out]) -> _Out:
        """Result of a future; OutOfTime if the remaining time is not enough."""
        if self._left is None:
            return future.result()
        started = time.monotonic()
        try:
            return future.result(timeout=max(self._left, 0.0))
        except TimeoutError as error:
            if future.done():  # raised by the function itself
                raise
            raise OutOfTime(
                f"it did not finish within {self._seconds:g} s and was abandoned. "
                "Raise --timeout, or find out what it waits for."
            ) from error
        finally:
            self._left -= time.monotonic() - started

    def close(self) -> None:
        """End the thread after its current call."""
        if self._worker is not None:
            self._worker.close(wait=False)
            self._worker = None
