"""Files are written whole or not at all, private ones for their owner alone."""

from __future__ import annotations

import os
import stat

import pytest

from encsel.storage import files
from encsel.storage.files import write_private, write_public

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
