"""The workers of a Ray cluster."""

import contextlib
import logging
import socket
import sys
from collections.abc import Sequence
from typing import Any

from encsel.errors import UsageError, first_line
from encsel.parallel import cluster
from encsel.parallel.calls import answer


class RayCluster:
    """A Ray cluster, or Ray on this machine."""

    def __init__(self, address: str | None) -> None:
        import ray

        self._ray = ray
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
        self._on_cpu = ray.remote(max_retries=3)(answer)
        self._on_gpu = ray.remote(max_retries=3, num_gpus=1)(answer)

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
        socket.create_connection((host.strip("[]"), int(port)), cluster.CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"No Ray cluster answers at {address} ({first_line(error)}). Start one with `ray start --head`, and give "
            "the address that it prints, such as HOST:6379."
        ) from error
