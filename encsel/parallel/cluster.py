"""What encsel needs of a cluster."""

from collections.abc import Sequence
from typing import Any, Protocol

CONNECT_SECONDS = 10
"""Time in which a scheduler must answer, and have a worker."""
WAIT_SECONDS = 60
"""Time without any worker after which a run is given up."""


class Cluster(Protocol):
    """Workers elsewhere. Handles and tasks are those of the library behind it, hashable."""

    def n_slots(self) -> int:
        """Number of tasks that run at a time."""

    def share(self, value: Any) -> Any:
        """Put a value on the cluster and return a handle."""

    def submit(self, arguments: Sequence[Any], *, gpu: bool) -> Any:
        """Start the task `calls.answer(*arguments)`, in which handles stand for their values."""

    def finished(self, tasks: Sequence[Any]) -> list[Any]:
        """Wait for the first tasks to finish; empty after a second."""

    def result(self, task: Any) -> Any:
        """Result of a finished task; UsageError if the cluster has given it up."""

    def cancel(self, tasks: Sequence[Any]) -> None:
        """Stop tasks."""

    def close(self) -> None:
        """Disconnect."""
