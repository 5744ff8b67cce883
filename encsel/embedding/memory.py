"""Memory that a ranking or validation needs, and that is available, so that too large a set is refused at once."""

import bisect
import contextlib
import os
from pathlib import Path

from encsel.errors import UsageError
from encsel.matching.folds import MAX_PEOPLE
from encsel.metrics.linear_cka import MAX_MATRIX

_CGROUPS = Path("/sys/fs/cgroup")
PER_ENCODER = 40 << 20
"""Bytes for each encoder: matrices of its axes in every fold.

Fitted, with those below, to the peak resident memory of `rank`: with 7 encoders of 512 to 1024 dimensions and 1249
people it took 898 MB more than a small set, and 4 of 512 with 100,000 people 1.8 GB in all; 0.9 and 2.1 are estimated.
Encoders of few dimensions take less.
"""
PER_TESTED = 36 << 10
"""Bytes for each encoder and person who is cross-validated: projections in every fold, centroids, names."""
PER_ELEMENT, PER_ELEMENT_OF_MANY = 24, 8
"""Bytes for each encoder and pair of people, in matrices of up to MAX_MATRIX people, and of more."""
PER_PERSON = 1024
"""Bytes for each encoder and other person: names, and a part of the centroids, which lie in files if they are large."""


def check_memory(n_people: int, n_faces: int, n_voices: int) -> None:
    """Raise UsageError if what a ranking keeps in memory does not fit."""
    available, needed = memory_available(), memory_needed(n_people, n_faces, n_voices)
    if available is None or needed <= available:
        return
    fitting = _people_that_fit(available, n_people, n_faces, n_voices)
    fewer = f", or fewer people: --identities {fitting}" if fitting else ""
    raise UsageError(
        f"{n_people} identities with {n_faces} face and {n_voices} voice encoders need about {needed / 2**30:.1f} GiB "
        f"of memory; this process may take {max(available, 0) / 2**30:.1f} GiB more. Rank fewer encoders at a "
        f"time{fewer}."
    )


def memory_needed(n_people: int, n_faces: int, n_voices: int) -> int:
    """Bytes that ranking takes beyond the embeddings of small files, which are kept in memory."""
    n = min(n_people, MAX_PEOPLE)
    matrices = max(min(n, MAX_MATRIX) ** 2 * PER_ELEMENT, n**2 * PER_ELEMENT_OF_MANY)
    return (n_faces + n_voices) * (PER_ENCODER + n * PER_TESTED + matrices + (n_people - n) * PER_PERSON)


def _people_that_fit(available: int, n_people: int, n_faces: int, n_voices: int) -> int:
    """The largest number of people, in tens, whose ranking fits into memory."""
    tens = range(n_people // 10 + 1)
    n_tens = bisect.bisect_right(tens, available, key=lambda n: memory_needed(10 * n, n_faces, n_voices))
    return 10 * max(n_tens - 1, 0)


def memory_available() -> int | None:
    """Bytes that this process may still allocate: limited by the machine, control groups and its address space."""
    limits = []
    resident, mapped = _in_use()
    with contextlib.suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - resident)
    limits += [limit - resident for limit in _group_limits()]
    with contextlib.suppress(ImportError):
        import resource

        if (limit := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
            # Allocators map more than they use: 186 bytes by people squared where 139 were resident.
            limits.append((limit - mapped) * 4 // 5)
    return min(limits, default=None)


def _in_use() -> tuple[int, int]:
    """Resident bytes of this process, and bytes of its address space; 0 if the system does not say."""
    try:
        mapped, resident = Path("/proc/self/statm").read_text("ascii").split()[:2]
        page = os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0, 0
    return int(resident) * page, int(mapped) * page


def _group_limits() -> list[int]:
    """Memory limits of the control groups that this process is in, versions 1 and 2, those above included."""
    limits = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text("utf-8", "surrogateescape").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            root, name = (_CGROUPS, "memory.max") if not controllers else (_CGROUPS / "memory", "memory.limit_in_bytes")
            inner = root / group.lstrip("/")
            for folder in (inner, *inner.parents):
                with contextlib.suppress(OSError, ValueError):  # "max": no limit
                    limits.append(int((folder / name).read_text("ascii")))
                if folder == root:
                    break
    return limits
