"""Run calls in threads of this process, or on the workers of a cluster.

A cluster is used through its own futures, which reschedule the tasks of a lost worker. joblib's connectors to them do
less: that of Ray has no generators and loses a dead worker's tasks, that of Dask waits forever for a task or for
scattered data that Dask has given up.
"""

import contextlib
import itertools
import os
import pickle
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from encsel.core import Runtime
from encsel.errors import UsageError
from encsel.extras import missing
from encsel.parallel.calls import Call, Packer
from encsel.parallel.cluster import Cluster
from encsel.parallel.dask_cluster import DaskCluster
from encsel.parallel.ray_cluster import RayCluster
from encsel.threads import one_thread

AHEAD = 2
"""Tasks in flight per processor of the cluster."""

_packer: ContextVar[Packer | None] = ContextVar("packer", default=None)
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
    is_dask = runtime.backend == "dask"
    cluster: Cluster = DaskCluster(str(runtime.scheduler)) if is_dask else RayCluster(runtime.scheduler)
    token = _packer.set(Packer(cluster))
    try:
        yield
    finally:
        _packer.reset(token)
        cluster.close()


def is_distributed() -> bool:
    """Whether tasks run on a cluster."""
    return _packer.get() is not None


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

    threads = Parallel(n_jobs=jobs or os.cpu_count() or 1, prefer="threads", return_as="generator_unordered")
    with one_thread():
        yield from threads(delayed(_numbered)(i, call) for i, call in enumerate(calls))


def _numbered(i: int, call: Call) -> tuple[int, Any]:
    function, arguments, options = call
    return i, function(*arguments, **options)


def _on(packer: Packer, calls: Iterable[Call], gpu: bool) -> Iterator[tuple[int, Any]]:
    cluster, numbered = packer.cluster, enumerate(calls)
    running: dict[Any, int] = {}
    try:
        while True:
            for i, call in itertools.islice(numbered, max(AHEAD * cluster.n_slots() - len(running), 0)):
                running[cluster.submit(packer.packed(call), gpu=gpu)] = i
            if not running:
                return
            for task in cluster.finished(list(running)):
                result, error = cluster.result(task)
                if error is not None:
                    raise error
                yield running.pop(task), pickle.loads(result)
    finally:
        cluster.cancel(list(running))
