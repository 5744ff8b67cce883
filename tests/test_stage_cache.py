"""The cache of finished stages: damage is never used, files are private, and they are purged with the cache."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from test_stages import KEYS, ONLY_A, VALUE, A, Counted, documents, run, stage_of

from encsel.storage import cache as caching
from encsel.storage.cache import StageCache, entries, purge
from encsel.validation.stage import Outcome


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


def test_every_flipped_byte_is_noticed_or_means_the_same(root):
    cache, key, value = StageCache(root), {"stage": "stage"}, {"value": {"n": 0.1 + 0.2, "name": "a"}, "reason": None}
    cache.put(key, value)
    (path,) = documents(root)
    content = path.read_bytes()
    n_noticed = 0
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        found = cache.get(key)
        assert found in (None, value), position
        n_noticed += found is None
    assert n_noticed > 0.95 * len(content)


def test_damaged_file_is_made_whole_by_the_next_run(root):
    run(root, Counted(), ONLY_A)
    (path,) = documents(root)
    content = path.read_bytes()
    path.write_bytes(content[:20] + b"!" + content[21:])
    run(root, Counted(), ONLY_A)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"{}", b'"text"', b'{"value":1}', b"\xff", b"[" * 100_000]
)
def test_file_that_holds_something_else_is_computed_again(root, content):
    run(root, Counted(), ONLY_A)
    (path,) = documents(root)
    path.write_bytes(content)
    compute = Counted()
    assert run(root, compute, ONLY_A)[A] == Outcome(VALUE)
    assert compute.calls == [A]


def test_result_of_another_shape_is_computed_again(root):
    # As an earlier version of the dataclass would have left it: whole, and of no use.
    run(root, lambda *_: {"n": 3.0}, ONLY_A, stage=stage_of(Mapping[str, float]))
    compute = Counted()
    assert run(root, compute, ONLY_A)[A] == Outcome(VALUE)
    assert compute.calls == [A]


def test_result_under_another_s_name_is_computed_again(root):
    values = {key: replace(VALUE, n=i) for i, key in enumerate(KEYS)}
    found = run(root, Counted(values))
    first, second, *_ = documents(root)
    first.write_bytes(second.read_bytes())
    compute = Counted(values)
    assert run(root, compute) == found
    assert len(compute.calls) == 1


def test_missing_file_costs_one_result_only(root):
    run(root, Counted())
    documents(root)[0].unlink()
    compute = Counted()
    run(root, compute)
    assert len(compute.calls) == 1


# --- on disk


def test_results_without_a_root_keep_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        compute = Counted()
        assert run(None, compute) == dict.fromkeys(KEYS, Outcome(VALUE))
        assert compute.calls == list(KEYS)
    assert list(tmp_path.iterdir()) == []
    results = StageCache(None)
    results.put({"a": 1}, 2)
    assert (results.get({"a": 1}), results.write_error) == (None, None)


@pytest.mark.parametrize("mask", [0, 0o022])
def test_results_are_0600_in_0700_folders(tmp_path, mask):
    root = tmp_path / "new" / "cache"
    before = os.umask(mask)
    try:
        run(root, Counted())
    finally:
        os.umask(before)
    made = [root, *root.rglob("*")]
    assert len(documents(root)) == 3
    assert {path.name: oct(mode(path)) for path in made} == {
        path.name: oct(0o700 if path.is_dir() else 0o600) for path in made
    }


def test_results_lie_in_the_cache_under_their_own_name(root):
    run(root, Counted())
    (entry,) = entries(root)
    assert (entry.encoder, entry.n_samples) == (StageCache.NAME, 0)
    assert entry.n_bytes > 0
    assert (root / "CACHEDIR.TAG").exists()


def test_purge_removes_results_with_everything_else(root):
    run(root, Counted())
    assert [entry.encoder for entry in purge(root)] == [StageCache.NAME]
    assert not root.exists()
    compute = Counted()
    run(root, compute, ONLY_A)
    assert compute.calls == [A]


def test_purge_of_one_encoder_leaves_results(root):
    run(root, Counted())
    assert purge(root, "toy") == []
    assert len(documents(root)) == 3
    assert [entry.encoder for entry in purge(root, StageCache.NAME)] == [StageCache.NAME]
    assert documents(root) == []


def test_disk_that_refuses_sets_write_error_and_the_run_goes_on(root, monkeypatch):
    monkeypatch.setattr(caching, "write_private", refuse)
    assert run(root, Counted()) == dict.fromkeys(KEYS, Outcome(VALUE))
    results = StageCache(root)
    results.put({"a": 1}, 2)
    assert results.write_error == f"Read-only file system ({root})"
    assert results.get({"a": 1}) is None


def test_disk_that_refused_once_is_not_tried_again(root, monkeypatch):
    tried = []
    monkeypatch.setattr(caching, "write_private", lambda *a: tried.append(a) or refuse())
    results = StageCache(root)
    for i in range(3):
        results.put({"i": i}, i)
    assert len(tried) == 1


def test_file_or_somebodys_folder_in_place_of_the_cache_sets_write_error(tmp_path):
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "holiday.jpg").write_text("")
    for name in ("file", "folder"):
        results = StageCache(tmp_path / name)
        assert results.get({"a": 1}) is None
        results.put({"a": 1}, 2)
        assert str(tmp_path / name) in results.write_error
        assert results.get({"a": 1}) is None
    assert (tmp_path / "file").read_text() == "a file"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["holiday.jpg"]


def test_cache_that_refuses_reading_is_computed_anew(root, monkeypatch):
    run(root, Counted())
    monkeypatch.setattr(Path, "read_bytes", refuse)
    compute = Counted()
    run(root, compute)
    assert compute.calls == list(KEYS)
