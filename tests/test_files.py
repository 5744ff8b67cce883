"""Files are written whole or not at all, private ones for their owner only."""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys

import pytest

from encsel.storage import files
from encsel.storage.files import TEMPORARY_PREFIX, locked, sweep, write_private, write_public

WRITERS = [write_private, write_public]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    """Sets the umask until the test ends."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_private_file_is_readable_by_its_owner_alone(tmp_path, umask, mask):
    umask(mask)
    write_private(tmp_path / "new" / "a", b"content")
    assert (tmp_path / "new" / "a").read_bytes() == b"content"
    assert mode(tmp_path / "new" / "a") == 0o600
    assert mode(tmp_path / "new") == 0o700


@pytest.mark.parametrize(("mask", "expected"), [(0, 0o666), (0o022, 0o644), (0o077, 0o600)])
def test_public_file_has_the_mode_of_the_umask(tmp_path, umask, mask, expected):
    umask(mask)
    write_public(tmp_path / "a", b"content")
    assert mode(tmp_path / "a") == expected
    assert umask(0) == mask


def test_public_file_needs_its_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_public(tmp_path / "missing" / "a", b"content")


@pytest.mark.parametrize("write", WRITERS)
def test_file_is_replaced(tmp_path, write):
    (tmp_path / "a").write_bytes(b"a longer old content")
    write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, write, failure):
    def fail(handle):
        raise failure

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(type(failure)):
        write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_is_being_written_is_left_alone_by_others(tmp_path, monkeypatch):
    sync = os.fsync

    def sweep_first(handle):
        sweep(tmp_path)
        sync(handle)

    monkeypatch.setattr(files.os, "fsync", sweep_first)
    write_private(tmp_path / "a", b"content")
    assert (tmp_path / "a").read_bytes() == b"content"


def test_a_file_swept_away_before_it_is_locked_is_written_again(tmp_path, monkeypatch):
    lock = files._lock
    swept = []

    def sweep_first(handle, *, wait=False):
        if len(swept) < 20:
            swept.extend(tmp_path.iterdir())
            for path in tmp_path.iterdir():
                path.unlink()
        return lock(handle, wait=wait)

    monkeypatch.setattr(files, "_lock", sweep_first)
    write_private(tmp_path / "a", b"content")
    assert len(swept) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def count(folder, n):
    for _ in range(n):
        with locked(folder):
            path = folder / "count"
            path.write_text(str(int(path.read_text()) + 1))


def test_locked_folder_keeps_other_processes_waiting_and_holds_no_lock_file(tmp_path):
    (tmp_path / "count").write_text("0")
    workers = [multiprocessing.get_context("fork").Process(target=count, args=(tmp_path, 20)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert (tmp_path / "count").read_text() == "60"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_files_are_written_on_systems_without_fcntl(tmp_path):
    code = (
        "import pathlib, sys\n"
        "sys.modules['fcntl'] = None\n"
        "from encsel.storage.files import locked, sweep, write_private, write_public\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with locked(folder):\n"
        "    write_private(folder / 'a', b'a')\n"
        "    write_public(folder / 'b', b'b')\n"
    )
    (tmp_path / f"{TEMPORARY_PREFIX}left").write_bytes(b"half")
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], check=True)
    # Without locks nobody can tell whether a file is still being written.
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", f"{TEMPORARY_PREFIX}left"}
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
