"""The workers of a Dask scheduler."""

import contextlib
import logging
import time
import uuid
from collections.abc import Sequence
from typing import Any

from encsel.errors import EncselError, UsageError, first_line
from encsel.parallel import cluster
from encsel.parallel.calls import answer, same


class DaskCluster:
    """A Dask scheduler and its workers. TLS certificates are those of Dask's own configuration."""

    def __init__(self, scheduler: str) -> None:
        import dask
        import distributed

        self._address = scheduler
        # Arrays are in the graph on purpose: scattered ones would be lost with the worker that holds them.
        self._settings = contextlib.ExitStack()
        self._settings.enter_context(dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}))
        logger = logging.getLogger("distributed.client")  # it prints tracebacks of what is reported in words
        self._settings.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        try:
            self._client = distributed.Client(
                scheduler, timeout=cluster.CONNECT_SECONDS, set_as_default=False, name="encsel", direct_to_workers=False
            )
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            self._settings.close()
            raise UsageError(
                f"No Dask scheduler answers at {scheduler} ({first_line(error)}). Start one with `dask scheduler`, and "
                "give the address that it prints, such as tcp://HOST:8786."
            ) from error
        self._lost_at: float | None = None
        try:
            self._client.wait_for_workers(1, timeout=cluster.CONNECT_SECONDS)
        except TimeoutError as error:
            self.close()
            raise UsageError(
                f"The Dask scheduler at {scheduler} has no workers. Start some: `dask worker {scheduler}`."
            ) from error

    def n_slots(self) -> int:
        return max(sum(self._client.nthreads().values()), 1)

    def share(self, value: Any) -> Any:
        return self._client.submit(same, value, key=f"encsel-shared-{uuid.uuid4().hex}")

    def submit(self, arguments: Sequence[Any], *, gpu: bool) -> Any:
        return self._client.submit(answer, *arguments, key=f"encsel-{uuid.uuid4().hex}")

    def finished(self, tasks: Sequence[Any]) -> list[Any]:
        import distributed

        try:
            with contextlib.suppress(TimeoutError), self._client.as_current():
                done = list(distributed.wait(tasks, timeout=1, return_when="FIRST_COMPLETED").done)
                self._lost_at = None
                return done
            has_workers = bool(self._client.nthreads())
        except (OSError, distributed.CancelledError) as error:
            raise self._lost() from error
        now = time.monotonic()
        self._lost_at = None if has_workers else self._lost_at or now
        if self._lost_at is not None and now - self._lost_at > cluster.WAIT_SECONDS:
            raise UsageError(
                f"The Dask scheduler at {self._address} has lost all of its workers; their logs say why, such as "
                "encsel in another version. Start some, and run the same command again: it goes on where it stopped."
            )
        return []

    def result(self, task: Any) -> Any:
        import distributed

        try:
            return task.result()
        except distributed.KilledWorker as error:
            raise UsageError(
                f"Dask gave a task up after {error.allowed_failures + 1} workers that ran it were lost; they may have "
                "run out of memory. See their logs, and run the same command again."
            ) from error
        except (OSError, distributed.CancelledError) as error:
            raise self._lost() from error
        except Exception as error:  # what the call itself raises is part of the result
            raise UsageError(
                f"The scheduler at {self._address} or a worker cannot run tasks of encsel "
                f"({first_line(error).partition('. ')[0]}). Install the same version of encsel there."
            ) from error

    def cancel(self, tasks: Sequence[Any]) -> None:
        if tasks and self._client.status == "running":
            with contextlib.suppress(OSError, TimeoutError):
                self._client.cancel(tasks, force=True)

    def close(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            self._client.close(timeout=2)
        self._settings.close()

    def _lost(self) -> EncselError:
        return UsageError(
            f"The Dask scheduler at {self._address} was lost. Start it again, and run the same command again: it goes "
            "on where it stopped."
        )
