"""How much memory a ranking or validation takes, and how much there is, so that too large a set is refused at once."""

import contextlib
import math
import os
from pathlib import Path

from encsel.errors import UsageError

PER_ENCODER, PER_PAIR, PER_THREAD = 0, 0, 0
"""Bytes for every pair of people."""


def check_memory(n_people: int, n_faces: int, n_voices: int) -> None:
    """Raise UsageError if the matrices of people by people that a ranking holds do not fit into memory."""
    available = memory_available()
    if available is None or (needed := memory_needed(n_people, n_faces, n_voices)) <= available:
        return
    fitting = math.isqrt(available * n_people**2 // needed) // 10 * 10
    raise UsageError(
        f"{n_people} identities with {n_faces} face and {n_voices} voice encoders need about "
        f"{needed / 2**30:.1f} GiB of memory; {max(available, 0) / 2**30:.1f} GiB are available. Rank fewer encoders at a time, or some of the "
        f"identities: --identities {fitting}."
    )


def memory_needed(n_people: int, n_faces: int, n_voices: int) -> int:
    """Bytes that the geometry and cross-validation of all pairs take beyond the embeddings themselves."""
    raise NotImplementedError


def memory_available() -> int | None:
    """Bytes that this process may still take: of the machine, of its control groups, of its address space."""
    limits = []
    resident, mapped = _in_use()
    with contextlib.suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - resident)
    limits += [limit - resident for limit in _group_limits()]
    with contextlib.suppress(ImportError):
        import resource

        if (limit := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
            limits.append(limit - mapped)
    return min(limits, default=None)


def _in_use() -> tuple[int, int]:
    """Bytes of this process in memory, and of its address space; 0 where the system does not tell."""
    try:
        mapped, resident = Path("/proc/self/statm").read_text().split()[:2]
        page = os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0, 0
    return int(resident) * page, int(mapped) * page


def _group_limits() -> list[int]:
    """Memory limits of the control groups that this process is in, versions 1 and 2, those above included."""
    limits = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            root, name = (_CGROUPS, "memory.max") if not controllers else (_CGROUPS / "memory", "memory.limit_in_bytes")
            inner = root / group.lstrip("/")
            for folder in (inner, *inner.parents):
                with contextlib.suppress(OSError, ValueError):  # "max": no limit
                    limits.append(int((folder / name).read_text()))
                if folder == root:
                    break
    return limits


_CGROUPS = Path("/sys/fs/cgroup")
