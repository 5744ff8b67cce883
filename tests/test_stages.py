"""Long work in stages: each piece kept when done, none done twice, damage never used."""

from __future__ import annotations

import errno
import json
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from encsel import cache as caching
from encsel.cache import Results, entries, purge
from encsel.errors import BadCalibration, UsageError
from encsel.progress import Silent
from encsel.stages import Outcome, Stages, outcome_of


@dataclass(frozen=True)
class Measured:
    eer: Mapping[str, float]
    span: tuple[float, float] | None
    name: str


FACES = tuple(("face", name) for name in "abc")
SUBJECTS = {face: [face] for face in FACES}
CONTENT = {face: face[1] * 8 for face in FACES}


class Notes(Silent):
    def __init__(self):
        self.texts = []

    def note(self, text):
        self.texts.append(text)


class Work:
    """Computes a value of a subject and remembers for which it did."""

    def __init__(self, fails=None):
        self.done, self.fails, self.lock = [], fails or {}, threading.Lock()

    def __call__(self, subject, context):
        with self.lock:
            self.done.append(subject[1])
        if subject[1] in self.fails:
            raise self.fails[subject[1]]
        return Measured({"z": 0.5, "a": 0.25}, (0.125, 0.75), subject[1])


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


def stages(root, made_with=None, content=CONTENT, jobs=1, progress=None) -> Stages:
    return Stages(Results(root), made_with or {"seed": 0}, content, jobs=jobs, progress=progress or Silent())


def run(root, work, stage="toy", subjects=SUBJECTS, more=None, **options):
    return stages(root, **options).run(stage, Measured, subjects, work, more=more)


def document(root) -> Path:
    """The only result under a root."""
    (path,) = (p for p in root.glob("*/*.json") if p.name != "encoder.json")
    return path


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- kept and done again


def test_kept_result_is_not_computed_again(root):
    first, second = Work(), Work()
    one, two = run(root, first), run(root, second)
    assert (first.done, second.done) == (["a", "b", "c"], [])
    assert one == two
    assert one["face", "a"] == Outcome(Measured({"z": 0.5, "a": 0.25}, (0.125, 0.75), "a"))


def test_resumed_run_equals_the_first_to_the_order_of_keys(root):
    one, two = run(root, Work(), jobs=2), run(root, Work())
    assert repr(one) == repr(two)
    assert list(one) == list(two) == list(FACES)
    assert list(one["face", "a"].value.eer) == list(two["face", "a"].value.eer)


def test_only_what_is_missing_is_computed(root):
    run(root, Work(), subjects={FACES[1]: [FACES[1]]})
    work, notes = Work(), Notes()
    found = run(root, work, progress=notes)
    assert work.done == ["a", "c"]
    assert list(found) == list(FACES)
    assert notes.texts == ["toy: 1 of 3 kept from an earlier run."]


@pytest.mark.parametrize(
    "changed",
    [
        {"made_with": {"seed": 1}},
        {"made_with": {"seed": 0, "version": 2}},
        {"more": {"k": 5}},
        {"stage": "other"},
        {"content": dict.fromkeys(FACES, "new")},
    ],
    ids=["option", "another option", "more", "stage", "content"],
)
def test_changed_key_is_computed_again(root, changed):
    run(root, Work())
    work = Work()
    run(root, work, **changed)
    assert work.done == ["a", "b", "c"]


def test_changed_content_of_one_encoder_leaves_the_others_kept(root):
    run(root, Work())
    work = Work()
    run(root, work, content={**CONTENT, FACES[2]: "new"})
    assert work.done == ["c"]


def test_context_is_made_once_and_for_what_is_missing_alone(root):
    run(root, Work(), subjects={FACES[0]: [FACES[0]]})
    asked, seen = [], []

    def compute(subject, context):
        seen.append(context)
        return Measured({}, None, subject[1])

    for _ in range(2):
        stages(root).run("toy", Measured, SUBJECTS, compute, need=lambda missing: asked.append(missing) or "context")
    assert asked == [[FACES[1], FACES[2]]]
    assert seen == ["context"] * 2


def test_bad_calibration_is_kept_as_its_reason(root):
    first, second = Work({"b": BadCalibration("3 people; 4 are needed.")}), Work()
    one, two = run(root, first), run(root, second)
    assert one["face", "b"] == two["face", "b"] == Outcome(None, "3 people; 4 are needed.")
    assert one["face", "c"].reason is None
    assert second.done == []


@pytest.mark.parametrize("error", [UsageError("no such thing"), ZeroDivisionError("x"), KeyboardInterrupt()])
def test_other_exception_goes_through_and_leaves_what_was_done(root, error):
    with pytest.raises(type(error)):
        run(root, Work({"c": error}))
    work = Work()
    found = run(root, work)
    assert work.done == ["c"]
    assert [found[face].value.name for face in FACES] == ["a", "b", "c"]


def test_outcome_of_catches_bad_calibration_alone():
    def raising(error):
        raise error

    assert outcome_of(lambda: 3) == Outcome(3)
    assert outcome_of(lambda: raising(BadCalibration("why"))) == Outcome(None, "why")
    with pytest.raises(ValueError, match="else"):
        outcome_of(lambda: raising(ValueError("else")))


@pytest.mark.parametrize("value", [Measured({}, None, ""), Measured({"a": 1 / 3}, (1e-300, 1e300), "naïve")])
def test_values_come_back_exactly(root, value):
    one = stages(root)
    kept = one.keep("toy", Measured, {"k": 1}, Outcome(value))
    assert kept == one.kept("toy", Measured, {"k": 1}) == Outcome(value)


def test_values_may_be_tuples_and_plain(root):
    one = stages(root)
    value = (Measured({}, None, "a"), Measured({"x": 1.0}, (0.0, 1.0), "b"))
    one.keep("tuple", tuple[Measured, ...], {}, Outcome(value))
    one.keep("number", float, {}, Outcome(0.1))
    assert one.kept("tuple", tuple[Measured, ...], {}) == Outcome(value)
    assert one.kept("number", float, {}) == Outcome(0.1)


def test_work_of_nothing_is_nothing(root):
    assert run(root, Work(), subjects={}) == {}
    assert not root.exists()


# --- damage


def test_every_flipped_byte_is_noticed(root):
    results, value = Results(root), {"value": {"eer": 0.25, "name": "a"}, "reason": None}
    results.put({"k": 1}, value)
    path = document(root)
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert results.get({"k": 1}) is None, position
    path.write_bytes(content)
    assert results.get({"k": 1}) == value


def test_damaged_result_is_computed_again_and_kept(root):
    one = run(root, Work(), subjects={FACES[0]: [FACES[0]]})
    path = document(root)
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.26"))
    for again in (["a"], []):
        work = Work()
        assert run(root, work, subjects={FACES[0]: [FACES[0]]}) == one
        assert work.done == again


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"value": 1}'])
def test_file_that_is_no_result_is_computed_again(root, content):
    one = run(root, Work(), subjects={FACES[0]: [FACES[0]]})
    document(root).write_bytes(content)
    work = Work()
    assert run(root, work, subjects={FACES[0]: [FACES[0]]}) == one
    assert work.done == ["a"]


@pytest.mark.parametrize("value", [3, {}, {"value": 3, "reason": None}, {"value": {"eer": {}}, "reason": None}])
def test_result_of_another_shape_is_not_used(root, value):
    one = stages(root)
    Results(root).put({"stage": "toy", "k": 1}, value)
    assert one.kept("toy", Measured, {"k": 1}) is None


# --- where results are


def test_results_are_0600_in_0700_folders(root):
    run(root, Work())
    made = [root, *root.rglob("*")]
    assert {p.name: oct(mode(p)) for p in made} == {p.name: oct(0o700 if p.is_dir() else 0o600) for p in made}
    assert len([p for p in made if p.suffix == ".json"]) == 4


def test_cache_lists_all_results_as_one_entry_without_samples(root):
    run(root, Work())
    (entry,) = entries(root)
    assert (entry.encoder, entry.n_samples) == ("results of validate", 0)
    assert entry.n_bytes > 0


@pytest.mark.parametrize("which", [None, Results.NAME])
def test_purge_removes_results(root, which):
    run(root, Work())
    assert [entry.encoder for entry in purge(root, which)] == [Results.NAME]
    work = Work()
    run(root, work)
    assert work.done == ["a", "b", "c"]


def test_purge_of_everything_leaves_no_folder(root):
    run(root, Work())
    purge(root)
    assert not root.exists()


def test_without_a_root_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        work = Work()
        found = run(None, work)
        assert work.done == ["a", "b", "c"]
    assert found["face", "a"].value.name == "a"
    assert not list(tmp_path.iterdir())


def test_file_in_place_of_the_root_is_remembered_and_not_raised(root):
    root.write_text("a file")
    results = Results(root)
    results.put({"k": 1}, {"x": 1})
    assert str(root) in results.write_error
    assert results.get({"k": 1}) is None
    assert root.read_text() == "a file"


def test_folder_of_somebody_else_is_not_made_a_cache(root):
    root.mkdir()
    (root / "holiday.jpg").write_bytes(b"")
    results = Results(root)
    results.put({"k": 1}, {"x": 1})
    assert "holds other files" in results.write_error
    assert [path.name for path in root.iterdir()] == ["holiday.jpg"]


def test_disk_that_refuses_costs_no_result_of_the_run(root, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching, "write_private", refuse)
    results = Results(root)
    made = Stages(results, {}, CONTENT, jobs=1, progress=Silent())
    found = made.run("toy", Measured, SUBJECTS, Work())
    assert [found[face].value.name for face in FACES] == ["a", "b", "c"]
    assert results.write_error == f"No space left on device ({root})"


def test_document_is_json_that_says_its_own_hash(root):
    Results(root).put({"k": 1}, {"x": 1})
    assert set(json.loads(document(root).read_text())) == {"value", "sha256"}
