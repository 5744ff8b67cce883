"""Where tasks run: in threads of this process, or on the workers of a Dask or Ray cluster.

A cluster is used through its own futures, which reschedule the tasks of a lost worker. joblib's connectors to them do
less: that of Ray has no generators and loses a dead worker's tasks, that of Dask waits forever for a task or for
scattered data that Dask has given up.
"""

import contextlib
import functools
import io
import itertools
import logging
import os
import platform
import socket
import sys
import time
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from encsel.core import Runtime
from encsel.errors import EncselError, UsageError, first_line
from encsel.extras import missing
from encsel.storage.signature import LIBRARIES, library_versions
from encsel.version import __version__

Call = tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]
"""Function, arguments and options, as `joblib.delayed` makes it."""

CONNECT_SECONDS = 10
WAIT_SECONDS = 60
"""Time without any worker after which a run is given up."""
AHEAD = 2
"""Tasks in flight per processor of the cluster."""
SHARED_BYTES = 1 << 16
"""Larger arrays and arguments are sent to the cluster once, and tasks refer to them."""
N_PARTS = 256
"""Number of pickled arguments that are remembered for the next calls."""


class Cluster(Protocol):
    """Workers elsewhere. Handles and tasks are those of the library behind it, hashable."""

    pickler: Any
    """The class cloudpickle.Pickler: workers need not import the modules of functions given from Python."""

    def n_slots(self) -> int:
        """Number of tasks that run at a time."""

    def share(self, value: Any) -> Any:
        """Put a value on the cluster and return a handle."""

    def submit(self, arguments: Sequence[Any], *, gpu: bool) -> Any:
        """Start the task `_answer(*arguments)`, in which handles stand for their values."""

    def finished(self, tasks: Sequence[Any]) -> list[Any]:
        """Wait for the first tasks to finish; empty after a second."""

    def result(self, task: Any) -> Any:
        """Result of a finished task; UsageError if the cluster has given it up."""

    def cancel(self, tasks: Sequence[Any]) -> None:
        """Stop tasks."""

    def close(self) -> None:
        """Disconnect."""


_packer: ContextVar["_Packer | None"] = ContextVar("packer", default=None)
"""Of the cluster that tasks run on; None: on this machine."""


@contextlib.contextmanager
def running_on(runtime: Runtime) -> Iterator[None]:
    """Run the tasks of `run` on the backend of a runtime; Ray without an address: $RAY_ADDRESS, or this machine.

    Raises:
        UsageError: the library is not installed, or there is no scheduler or no worker.
    """
    if runtime.backend == "local":
        yield
        return
    if lacking := missing(("distributed" if runtime.backend == "dask" else "ray",)):
        raise UsageError(lacking)
    cluster: Cluster = _Dask(str(runtime.scheduler)) if runtime.backend == "dask" else _Ray(runtime.scheduler)
    token = _packer.set(_Packer(cluster))
    try:
        yield
    finally:
        _packer.reset(token)
        cluster.close()


def is_distributed() -> bool:
    """Whether tasks run on a cluster."""
    return _packer.get() is not None


def pickled(value: Any) -> bytes:
    """A value as bytes for a worker; raises whatever pickling raises."""
    packer, file = _packer.get(), io.BytesIO()
    assert packer is not None
    packer.cluster.pickler(file).dump(value)
    return file.getvalue()


def run(calls: Iterable[Call], jobs: int | None = None, *, gpu: bool = False) -> Iterator[tuple[int, Any]]:
    """Yield (position, result) of each call as it finishes; linear algebra takes one thread inside each.

    Calls are taken from the iterable as they are started. Abandoning the generator stops what has not finished.

    Args:
        jobs: number of threads on this machine; None: one per processor. A cluster uses all of its workers.
        gpu: each call may use one GPU.
    Raises:
        UsageError: the cluster is lost or has given a call up, or a worker has other versions of what is computed with.
    """
    packer = _packer.get()
    if packer is not None:
        yield from _on(packer, calls, gpu)
        return
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits

    threads = Parallel(n_jobs=jobs or os.cpu_count() or 1, prefer="threads", return_as="generator_unordered")
    # Small matrices gain nothing from more threads, which wait for each other.
    with threadpool_limits(1):
        yield from threads(delayed(_numbered)(i, call) for i, call in enumerate(calls))


def _numbered(i: int, call: Call) -> tuple[int, Any]:
    function, arguments, options = call
    return i, function(*arguments, **options)


def _on(packer: "_Packer", calls: Iterable[Call], gpu: bool) -> Iterator[tuple[int, Any]]:
    cluster, numbered, made_with = packer.cluster, enumerate(calls), _versions()
    running: dict[Any, int] = {}
    try:
        while True:
            for i, call in itertools.islice(numbered, max(AHEAD * cluster.n_slots() - len(running), 0)):
                running[cluster.submit((made_with, *packer.packed(call)), gpu=gpu)] = i
            if not running:
                return
            for task in cluster.finished(list(running)):
                result, error = cluster.result(task)
                if error is not None:
                    raise error
                yield running.pop(task), result
    finally:
        cluster.cancel(list(running))


def _versions() -> dict[str, Any]:
    """Versions that a result depends on."""
    return {"encsel": __version__, "Python": platform.python_version_tuple()[:2], **library_versions(LIBRARIES)}


@functools.cache
def _versions_here() -> dict[str, Any]:
    return _versions()


# --- Calls as bytes


class _Packer:
    """Pickles calls. Large arrays and arguments go to the cluster once, as long as the same object is used."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._arrays: dict[int, tuple[Any, Any]] = {}  # a weak reference to an array and its handle, by identity
        self._parts: OrderedDict[int, tuple[Any, bytes | int, dict[int, Any]]] = OrderedDict()

    def packed(self, call: Call) -> tuple[Any, ...]:
        """Arguments of `_answer` after the first."""
        function, arguments, options = call
        parts, handles = [], dict[int, Any]()
        for value in (function, *arguments, options):
            part, referred = self._part(value)
            parts.append(part)
            handles |= referred
        # Handles are arguments of their own: clusters look for them only there.
        return parts, list(handles), *handles.values()

    def _part(self, value: Any) -> tuple[bytes | int, dict[int, Any]]:
        """A value as bytes, or as the key of shared bytes, and the handles that it needs by key."""
        if (known := self._parts.get(id(value))) is not None and known[0] is value:
            self._parts.move_to_end(id(value))
            return known[1], known[2]
        file, handles = io.BytesIO(), dict[int, Any]()
        self._pickler(file, handles).dump(value)
        part: bytes | int = file.getvalue()
        if len(file.getbuffer()) > SHARED_BYTES:
            part = -id(value)  # an array has its identity as key
            handles[part] = self.cluster.share(file.getvalue())
        self._parts[id(value)] = value, part, handles
        if len(self._parts) > N_PARTS:
            self._parts.popitem(last=False)
        return part, handles

    def _pickler(self, file: io.BytesIO, handles: dict[int, Any]) -> Any:
        import numpy as np

        packer = self

        class Pickler(self.cluster.pickler):  # type: ignore[name-defined]
            def persistent_id(self, value: Any) -> int | None:
                if type(value) is not np.ndarray or value.nbytes <= SHARED_BYTES or value.dtype.hasobject:
                    return None
                handles[id(value)] = packer._handle(value)
                return id(value)

        return Pickler(file)

    def _handle(self, array: Any) -> Any:
        key, arrays = id(array), self._arrays
        if key not in arrays or arrays[key][0]() is not array:

            def forget(reference: Any) -> None:
                if key in arrays and arrays[key][0] is reference:
                    del arrays[key]

            arrays[key] = weakref.ref(array, forget), self.cluster.share(array)
        return arrays[key][1]


def _answer(
    made_with: Mapping[str, Any], parts: Sequence[bytes | int], keys: Sequence[int], *shared: Any
) -> tuple[Any, Exception | None]:
    """On a worker: the result of a call, or what it raised."""
    import pickle

    from threadpoolctl import threadpool_limits

    values = dict(zip(keys, shared, strict=True))

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, key: int) -> Any:
            return values[key]

    try:
        if (here := _versions_here()) != made_with:
            differing = ", ".join(f"{k} {here.get(k)} instead of {v}" for k, v in made_with.items() if here.get(k) != v)
            raise UsageError(f"The worker {platform.node()} has {differing}. Install the same versions everywhere.")
        contents = [values[part] if isinstance(part, int) else part for part in parts]
        function, *arguments, options = [Unpickler(io.BytesIO(content)).load() for content in contents]
        threadpool_limits(1)  # for good: tasks in other threads of this process would have it lifted too early
        return function(*arguments, **options), None
    except Exception as error:
        return None, error


def _same(value: Any) -> Any:
    return value


# --- Dask and Ray


class _Dask:
    """A Dask scheduler and its workers. TLS certificates are those of Dask's own configuration."""

    def __init__(self, scheduler: str) -> None:
        import cloudpickle
        import dask
        import distributed

        self.pickler = cloudpickle.Pickler
        self._address = scheduler
        # Arrays are in the graph on purpose: scattered ones would be lost with the worker that holds them.
        self._settings = contextlib.ExitStack()
        self._settings.enter_context(dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}))
        logger = logging.getLogger("distributed.client")  # it prints tracebacks of what is reported in words
        self._settings.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        try:
            self._client = distributed.Client(
                scheduler, timeout=CONNECT_SECONDS, set_as_default=False, name="encsel", direct_to_workers=False
            )
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            self._settings.close()
            raise UsageError(
                f"No Dask scheduler answers at {scheduler} ({first_line(error)}). Start one with `dask scheduler`, and "
                "give the address that it prints, such as tcp://HOST:8786."
            ) from error
        self._lost_at: float | None = None
        try:
            self._client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError as error:
            self.close()
            raise UsageError(
                f"The Dask scheduler at {scheduler} has no workers. Start some: `dask worker {scheduler}`."
            ) from error

    def n_slots(self) -> int:
        return max(sum(self._client.nthreads().values()), 1)

    def share(self, value: Any) -> Any:
        return self._client.submit(_same, value, key=f"encsel-shared-{uuid.uuid4().hex}")

    def submit(self, arguments: Sequence[Any], *, gpu: bool) -> Any:
        return self._client.submit(_answer, *arguments, key=f"encsel-{uuid.uuid4().hex}")

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
        if self._lost_at is not None and now - self._lost_at > WAIT_SECONDS:
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


class _Ray:
    """A Ray cluster, or Ray on this machine."""

    def __init__(self, address: str | None) -> None:
        import ray
        from ray import cloudpickle

        self.pickler, self._ray = cloudpickle.Pickler, ray
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            where: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
            with contextlib.redirect_stdout(sys.stderr):
                if address and address != "auto":
                    _check_answers(address)
                try:
                    ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
                except (OSError, ValueError, RuntimeError) as error:
                    raise UsageError(
                        f"Ray cannot be started or reached ({first_line(error)}). Start it with `ray start --head`, "
                        "and give its address: --scheduler HOST:6379. If it asks for a token, set RAY_AUTH_MODE=token."
                    ) from error
        self._n_gpus = int(ray.cluster_resources().get("GPU", 0))
        self._on_cpu = ray.remote(max_retries=3)(_answer)
        self._on_gpu = ray.remote(max_retries=3, num_gpus=1)(_answer)

    def n_slots(self) -> int:
        return max(int(self._ray.cluster_resources().get("CPU", 1)), 1)

    def share(self, value: Any) -> Any:
        return self._ray.put(value)

    def submit(self, arguments: Sequence[Any], *, gpu: bool) -> Any:
        # Ray hides GPUs from tasks that do not ask for one.
        function = self._on_gpu if gpu and self._n_gpus else self._on_cpu
        return function.remote(*arguments)

    def finished(self, tasks: Sequence[Any]) -> list[Any]:
        done, _ = self._ray.wait(list(tasks), num_returns=1, timeout=1)
        return list(done)

    def result(self, task: Any) -> Any:
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            raise UsageError(
                f"Ray gave a task up ({first_line(error)}). See the logs of its workers, and run the same command "
                "again: it goes on where it stopped."
            ) from error

    def cancel(self, tasks: Sequence[Any]) -> None:
        for task in tasks:
            with contextlib.suppress(Exception):  # it has finished, or the cluster is lost
                self._ray.cancel(task, force=True)

    def close(self) -> None:
        if self._is_ours:
            self._ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise UsageError if nothing listens at HOST:PORT or ray://HOST:PORT: Ray itself waits for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"No Ray cluster answers at {address} ({first_line(error)}). Start one with `ray start --head`, and give "
            "the address that it prints, such as HOST:6379."
        ) from error
