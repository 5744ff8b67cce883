"""The memory that a ranking takes: estimated before anything is embedded, against what there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from toy import write_population

import encsel
from encsel.embedding import memory
from encsel.errors import UsageError

GROWTH = """
import sys
from pathlib import Path
import pytest
from toy import few_shuffles, write_population
import encsel
few_shuffles(pytest.MonkeyPatch())

def peak():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))

root, n = Path(sys.argv[1]), int(sys.argv[2])
encsel.rank(write_population(root / "few", 40, faces=1, voices=1), cache=None)
before = peak()
encsel.rank(write_population(root / "many", n, faces=1, voices=1), cache=None)
print(peak() - before)
"""


@pytest.mark.robust
@pytest.mark.parametrize("n", [1000])
def test_the_estimate_is_what_a_ranking_takes(tmp_path, n):
    if not Path("/proc/self/status").is_file():
        pytest.skip("the system does not tell the peak of memory")
    command = [sys.executable, "-c", GROWTH, tmp_path, str(n)]
    taken = int(subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent).stdout)
    # What libraries load late and allocators keep is about 20 MB. These encoders have few dimensions, and take less.
    assert 0.6 * taken - 20e6 < memory.memory_needed(n, 1, 1) < 3 * taken


def test_too_large_a_set_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    data = write_population(tmp_path, 60, faces=2, voices=1)
    monkeypatch.setattr(memory, "memory_available", lambda: memory.memory_needed(45, 2, 1))
    with pytest.raises(UsageError, match=r"60 identities with 2 face and 1 voice .* --identities 40\.") as caught:
        encsel.rank(data, cache=None)
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match="--identities 40"):
        encsel.validate(data, cache=None)
    assert encsel.rank(data, identities=40, cache=None).n_identities == 40


def test_nothing_left_names_no_number_of_people(monkeypatch):
    monkeypatch.setattr(memory, "memory_available", lambda: -1)
    with pytest.raises(UsageError, match=r"may take 0\.0 GiB more\. Rank fewer encoders at a time\.$"):
        memory.check_memory(50, 1, 1)


def test_the_tightest_limit_counts(tmp_path, monkeypatch):
    import resource

    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_in_use", lambda: (1 << 20, 3 << 20))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    machine = memory.memory_available()
    assert machine > 1 << 28
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory.memory_available() == machine
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        (tmp_path / name).write_text(f"{64 << 20}\n")
    known = Path("/proc/self/cgroup").is_file()
    assert memory.memory_available() == (63 << 20 if known else machine)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (32 << 20, 32 << 20))
    assert memory.memory_available() == (29 << 20) * 4 // 5
