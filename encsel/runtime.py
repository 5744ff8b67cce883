"""Where and how models run; `encsel.core` has it, too."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from encsel.errors import UsageError

Backend = Literal["local", "dask", "ray"]
BACKENDS: tuple[Backend, ...] = ("local", "dask", "ray")
"""Where tasks run: in threads of this process, or on the workers of a cluster."""
_DEVICE = re.compile(r"auto|(cpu|cuda|mps|xpu)(:\d+)?", re.ASCII)
_DEVICES = re.compile(r"(cpu|cuda|mps|xpu):\d+", re.ASCII)


@dataclass(frozen=True)
class Runtime:
    """Where and how models run.

    Raises:
        UsageError: a device of no such name, or a backend and options that do not go together.
    """

    device: str = "auto"
    """A torch device, or "auto": CUDA, else MPS (Apple), else the CPU; or several by number: "cuda:0,cuda:1"."""
    dtype: str = "float32"
    offline: bool = False
    hash_weights: bool = True
    """False only to inspect encoders: results need the hashes."""
    allow_pickle: bool = False
    """Also read pickled weights (with `weights_only=True`) of checkpoints that are not defaults."""
    timeout: float | None = None
    """Seconds for an encoder to open, and again to load and run; None: no limit."""
    batch_size: int | None = None
    """Samples per batch; None: depends on the device."""
    cache: str | Path | None = "default"
    """Folder of the embedding cache; "default": that of the user; None: keep nothing on disk."""
    backend: Backend = "local"
    scheduler: str | None = None
    """Address of the Dask scheduler, or of the Ray cluster."""

    def __post_init__(self) -> None:
        several = len(self.devices) > 1
        for device in self.devices:
            if not (_DEVICES if several else _DEVICE).fullmatch(device) or self.devices.count(device) > 1:
                raise UsageError(
                    f"Unknown device {self.device!r}. Choose auto, cpu, cuda, mps, xpu, or one by number: cuda:1; or "
                    "several different ones by number: cuda:0,cuda:1."
                )
        if self.backend not in BACKENDS:
            raise UsageError(f"No backend is named {self.backend!r}. Choose one of: {', '.join(BACKENDS)}.")
        if self.backend == "dask" and not self.scheduler:
            raise UsageError("The backend dask needs the address of a scheduler: --scheduler tcp://HOST:8786.")
        if self.backend == "local" and self.scheduler:
            raise UsageError(f"The scheduler {self.scheduler} belongs to no backend. Add --backend dask, or ray.")
        if self.backend != "local" and several:
            raise UsageError(
                f"The devices {self.device} are of this machine, and {self.backend} runs encoders elsewhere. Start one "
                "worker per GPU, and leave --device out."
            )
        if self.backend != "local" and self.cache is None:
            raise UsageError(
                f"The backend {self.backend} needs a cache, a folder that all workers see. Give one with --cache, and "
                "leave --no-cache out."
            )

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices on which encoders of a modality run side by side."""
        return tuple(self.device.split(","))
