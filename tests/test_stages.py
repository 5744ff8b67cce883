"""Long work in stages: kept when done, none done twice, damage never used, private, purged with the cache."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from encsel.errors import BadCalibration
from encsel.progress import Silent
from encsel.storage import cache as caching
from encsel.storage.cache import StageCache, entries, purge
from encsel.validation.runner import Key, Outcome, Stages, outcome_of

A, B, C = KEYS = (("face", "a"), ("face", "b"), ("voice", "c"))
CONTENT = {key: f"content of {key[1]}" for key in KEYS}
MADE_WITH = {"protocol": "crossval", "seed": 0}


@dataclass(frozen=True)
class Inner:
    values: tuple[float, ...]
    reason: str | None


@dataclass(frozen=True)
class Found:
    n: int
    share: float | None
    by_name: Mapping[str, float]
    parts: tuple[Inner, ...]


VALUE = Found(3, 0.1 + 0.2, {"z": 1.0, "a": 1e-300, "m": 2.0}, (Inner((0.5, -0.0), None), Inner((), "none")))


class Notes(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.labels: list[tuple[str, int]] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def task(self, label, total):
        self.labels.append((label, total))
        return super().task(label, total)


class Counted:
    """Computes VALUE, or what it was told to, and remembers for whom."""

    def __init__(self, value: Any = VALUE) -> None:
        self.value = value
        self.calls: list[Any] = []

    def __call__(self, subject: Any, context: Any) -> Any:
        self.calls.append(subject)
        found = self.value[subject] if isinstance(self.value, dict) else self.value
        if isinstance(found, BaseException):
            raise found
        return found


def stages(root: Path | None, *, jobs: int = 1, progress: Any = None, content: Any = None, **made_with: Any) -> Stages:
    return Stages(
        StageCache(root), {**MADE_WITH, **made_with}, content or CONTENT, jobs=jobs, progress=progress or Silent()
    )


def run(root: Path | None, compute: Any, subjects: Any = None, *, kind: Any = Found, **options: Any) -> dict:
    """One stage over encoders, by a `Stages` that knows nothing of an earlier one."""
    more, need, label = (options.pop(name, None) for name in ("more", "need", "label"))
    chosen = subjects or {key: [key] for key in KEYS}
    return stages(root, **options).run("stage", kind, chosen, compute, more=more, need=need, label=label)


def documents(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/*.json") if path.name != "encoder.json")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# --- none done twice


def test_result_that_was_kept_is_not_computed_again(root):
    first, second = Counted(), Counted()
    found = run(root, first)
    assert first.calls == list(KEYS)
    assert run(root, second) == found == dict.fromkeys(KEYS, Outcome(VALUE))
    assert second.calls == []


def test_only_what_is_missing_is_computed(root):
    run(root, Counted(), {A: [A]})
    notes, compute = Notes(), Counted()
    found = run(root, compute, progress=notes, label="Things")
    assert compute.calls == [B, C]
    assert list(found) == list(KEYS)
    assert notes.texts == ["Things: 1 of 3 kept from an earlier run."]
    assert notes.labels == [("Things", 2)]


def test_nothing_is_said_or_prepared_when_all_is_kept(root):
    run(root, Counted())
    notes, prepared = Notes(), []
    run(root, Counted(), progress=notes, need=prepared.append)
    assert (notes.texts, notes.labels, prepared) == ([], [], [])


def test_what_computing_needs_is_made_once_for_the_missing_ones(root):
    run(root, Counted(), {B: [B]})
    asked = []

    def need(missing: list[Key]) -> str:
        asked.append(list(missing))
        return "context"

    seen = []
    run(root, lambda subject, context: seen.append(context) or VALUE, need=need)
    assert asked == [[A, C]]
    assert seen == ["context", "context"]


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"library": "2"}, {"more": {"k": 5}}, {"content": {**CONTENT, A: "others"}}],
    ids=["seed", "new part", "option", "embeddings"],
)
def test_changed_key_is_computed_again(root, changed):
    run(root, Counted(), {A: [A]})
    compute = Counted()
    run(root, compute, {A: [A]}, **changed)
    assert compute.calls == [A]
    again = Counted()
    run(root, again, {A: [A]})
    assert again.calls == []


def test_stages_do_not_share_results(root):
    one = stages(root)
    one.run("first", Found, {A: [A]}, Counted())
    compute = Counted()
    one.run("second", Found, {A: [A]}, compute)
    assert compute.calls == [A]


def test_embeddings_of_another_encoder_do_not_matter(root):
    run(root, Counted(), {A: [A]})
    compute = Counted()
    run(root, compute, {A: [A]}, content={**CONTENT, B: "others"})
    assert compute.calls == []


def test_pair_depends_on_both_encoders_in_their_order(root):
    run(root, Counted(), {(A, C): [A, C]})
    for encoders, n in (((A, C), 0), ((C, A), 1), ((B, C), 1)):
        compute = Counted()
        run(root, compute, {encoders: encoders})
        assert len(compute.calls) == n


def test_renamed_encoder_keeps_its_results(root):
    run(root, Counted(), {A: [A]})
    compute, new = Counted(), ("face", "new name")
    run(root, compute, {new: [new]}, content={new: CONTENT[A]})
    assert compute.calls == []


def test_work_of_nothing_is_nothing(root):
    assert stages(root).run("stage", Found, {}, Counted()) == {}
    assert not root.exists()


# --- the same from an earlier run


def test_first_run_gives_what_a_resumed_run_gives_to_the_order_of_keys(root):
    first, second = run(root, Counted())[A].value, run(root, Counted())[A].value
    assert first == second == VALUE
    assert list(first.by_name) == list(second.by_name) == ["a", "m", "z"]
    assert json.dumps(first.by_name) == json.dumps(second.by_name)


def test_run_without_a_cache_gives_the_same_to_the_order_of_keys(root):
    kept, not_kept = run(root, Counted())[A].value, run(None, Counted())[A].value
    assert kept == not_kept
    assert list(kept.by_name) == list(not_kept.by_name)


def test_numbers_come_back_to_the_last_digit_and_in_their_types(root):
    for _ in range(2):
        value = run(root, Counted())[A].value
        assert (value.share.hex(), type(value.n), type(value.parts)) == ((0.1 + 0.2).hex(), int, tuple)
        assert str(value.parts[0].values[1]) == "-0.0"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (float, 0.25),
        (float | None, None),
        (tuple[Inner, ...], (Inner((1.0,), None), Inner((), "x"))),
        (Mapping[str, Mapping[str, float | None]], {"b": {"y": 1.0, "x": None}, "a": {}}),
    ],
)
def test_plain_values_tuples_and_mappings_are_kept(root, kind, value):
    for n in (1, 0):
        compute = Counted([value])
        found = run(root, lambda s, c, compute=compute: compute(s, c)[0], {A: [A]}, kind=kind)
        assert (found[A], len(compute.calls)) == (Outcome(value), n)


def test_subjects_come_back_in_the_order_they_were_given_with_several_at_a_time(root):
    first_done = threading.Event()

    def compute(subject: Key, _: object) -> Found:
        if subject == A:
            assert first_done.wait(10)
        first_done.set()
        return VALUE

    assert list(run(root, compute, jobs=2)) == list(KEYS)


# --- failures


def test_bad_calibration_is_kept_as_its_reason(root):
    error = BadCalibration("3 people; 10 are needed. Add people.")
    for n in (1, 0):
        compute = Counted(error)
        found = run(root, compute, {A: [A]})
        assert (found[A], len(compute.calls)) == (Outcome(None, str(error)), n)


def test_bad_calibration_of_one_leaves_the_others(root):
    found = run(root, Counted({A: VALUE, B: BadCalibration("too few"), C: VALUE}))
    assert [outcome.reason for outcome in found.values()] == [None, "too few", None]
    assert found[C].value == VALUE


def test_outcome_is_a_value_or_the_message_of_bad_calibration_alone():
    def fail(error: Exception) -> None:
        raise error

    assert outcome_of(lambda: 1) == Outcome(1)
    assert outcome_of(lambda: fail(BadCalibration("why"))) == Outcome(None, "why")
    with pytest.raises(ValueError, match="else"):
        outcome_of(lambda: fail(ValueError("else")))


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_another_exception_propagates_and_leaves_finished_results_kept(root, error):
    with pytest.raises(type(error)):
        run(root, Counted({A: VALUE, B: VALUE, C: error}))
    compute = Counted()
    assert run(root, compute) == dict.fromkeys(KEYS, Outcome(VALUE))
    assert compute.calls == [C]


def test_exception_among_several_at_a_time_leaves_finished_results_kept(root):
    def compute(subject: Key, _: object) -> Found:
        if subject == C:
            # Not before the others are on disk: results are kept as they come, not at the end.
            for _ in range(1000):
                if len(documents(root)) == 2:
                    break
                threading.Event().wait(0.01)
            raise RuntimeError("a bug")
        return VALUE

    with pytest.raises(RuntimeError, match="a bug"):
        run(root, compute, jobs=2)
    compute_rest = Counted()
    run(root, compute_rest)
    assert compute_rest.calls == [C]


# --- damage


def test_every_flipped_byte_is_computed_again_or_means_the_same(root):
    run(root, Counted(), {A: [A]})
    (path,) = documents(root)
    content = path.read_bytes()
    n_again = 0
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        compute = Counted()
        assert run(root, compute, {A: [A]})[A] == Outcome(VALUE), position
        n_again += len(compute.calls)
    assert n_again > 0.95 * len(content)


def test_damaged_file_is_made_whole_by_the_next_run(root):
    run(root, Counted(), {A: [A]})
    (path,) = documents(root)
    content = path.read_bytes()
    path.write_bytes(content[:20] + b"!" + content[21:])
    run(root, Counted(), {A: [A]})
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"{}", b'"text"', b'{"value":1}', b"\xff", b"[" * 100_000]
)
def test_file_that_holds_something_else_is_computed_again(root, content):
    run(root, Counted(), {A: [A]})
    (path,) = documents(root)
    path.write_bytes(content)
    compute = Counted()
    assert run(root, compute, {A: [A]})[A] == Outcome(VALUE)
    assert compute.calls == [A]


def test_result_of_another_shape_is_computed_again(root):
    # As an earlier version of the dataclass would have left it: whole, and of no use.
    one = stages(root)
    one.keep("stage", Mapping[str, float], one.key([A]), Outcome({"n": 3.0}))
    compute = Counted()
    assert run(root, compute, {A: [A]})[A] == Outcome(VALUE)
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
    run(root, compute, {A: [A]})
    assert compute.calls == [A]


def test_purge_of_one_encoder_leaves_results(root):
    run(root, Counted())
    assert purge(root, "toy") == []
    assert len(documents(root)) == 3
    assert [entry.encoder for entry in purge(root, StageCache.NAME)] == [StageCache.NAME]
    assert documents(root) == []


def test_disk_that_refuses_sets_write_error_and_the_run_goes_on(root, monkeypatch):
    monkeypatch.setattr(caching, "write_private", refuse)
    results = StageCache(root)
    one = Stages(results, MADE_WITH, CONTENT, jobs=1, progress=Silent())
    found = one.run("stage", Found, {key: [key] for key in KEYS}, Counted())
    assert found == dict.fromkeys(KEYS, Outcome(VALUE))
    assert results.write_error == f"Read-only file system ({root})"
    assert results.get({"stage": "stage", **one.key([A])}) is None


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
    assert StageCache(root).get({"stage": "stage", **stages(root).key([A])}) is None
