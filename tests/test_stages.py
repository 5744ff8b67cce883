"""Long work in stages: kept when done, none done twice, the same from an earlier run."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy import embeddings, people, population

from encsel.core import Embeddings
from encsel.errors import BadCalibration
from encsel.progress import Silent
from encsel.storage.cache import StageCache
from encsel.validation.stage import Key, Outcome, Stage
from encsel.validation.work import Work, outcome_of

N = 12
A, B, C = KEYS = (("face", "a"), ("face", "b"), ("voice", "c"))


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

    def note(self, text: str, *, in_result: bool = False) -> None:
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


def encoders(*, seed: int = 0) -> tuple[Embeddings, ...]:
    """A, B and C; the seed draws A anew."""
    face, voice = population(N, rows=1)
    drawn = population(N, rows=1, seed=seed)[0]
    return embeddings("a", "face", drawn), embeddings("b", "face", face), embeddings("c", "voice", voice)


ENCODERS = encoders()
ONLY_A = ENCODERS[:1]


def work_of(
    root: Path | None,
    of: tuple[Embeddings, ...] = ENCODERS,
    *,
    jobs: int = 1,
    progress: Any = None,
    seed: int = 0,
    protocol: Any = "crossval",
    libraries: dict[str, str] | None = None,
) -> Work:
    """Work that knows of no earlier one, on these encoders' people."""
    prepared: Any = SimpleNamespace(people=of[0].identities, seed=seed, embeddings=of, device="cpu")
    settings: Any = None
    return Work(
        prepared, settings, protocol, frozenset(), {"encsel": "1", "libraries": libraries or {}}, StageCache(root),
        jobs=jobs, progress=progress or Silent(),
    )  # fmt: skip


def stage_of(
    kind: Any = Found, *, name: str = "stage", version: int = 1, about: Any = "encoder", **options: Any
) -> Stage:
    return Stage(name, about, 0, {"field": kind}, lambda _: {}, version, **options)


def run(
    root: Path | None,
    compute: Any,
    of: tuple[Embeddings, ...] = ENCODERS,
    *,
    stage: Stage | None = None,
    more: Any = None,
    shared: Any = None,
    **options: Any,
) -> dict[Key, Outcome]:
    """One stage over encoders."""
    work = work_of(root, of, **options)
    outcomes = work.of_encoders(stage or stage_of(), "field", compute, more=more, shared=shared)
    return {key: of_key["field"] for key, of_key in outcomes.items()}


def documents(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/*.json") if path.name != "encoder.json")


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
    run(root, Counted(), ONLY_A)
    notes, compute = Notes(), Counted()
    found = run(root, compute, progress=notes)
    assert compute.calls == [B, C]
    assert list(found) == list(KEYS)
    assert notes.texts == ["stage: 1 of 3 read from the cache."]
    assert notes.labels == [("stage", 2)]


def test_nothing_is_said_or_prepared_when_all_is_kept(root):
    run(root, Counted())
    notes, prepared = Notes(), []
    run(root, Counted(), progress=notes, shared=prepared.append)
    assert (notes.texts, notes.labels, prepared) == ([], [], [])


def test_what_computing_needs_is_made_once_for_the_missing_ones(root):
    run(root, Counted(), ENCODERS[1:2])
    asked = []

    def shared(missing: list[Key]) -> str:
        asked.append(list(missing))
        return "context"

    seen = []
    run(root, lambda subject, context: seen.append(context) or VALUE, shared=shared)
    assert asked == [[A, C]]
    assert seen == ["context", "context"]


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"libraries": {"numpy": "2"}},
        {"more": {"k": 5}},
        {"of": encoders(seed=1)[:1]},
        {"of": (replace(ONLY_A[0], name="renamed"),)},
        {"of": (ONLY_A[0].rows(ONLY_A[0].labels != people(N)[0]),)},
        {"stage": stage_of(version=2)},
        {"stage": stage_of(metrics={"two_nn": "field"})},
        {"stage": stage_of(name="another")},
    ],
    ids=["seed", "library", "option", "embeddings", "name", "people", "version", "metric", "stage"],
)
def test_changed_key_is_computed_again(root, changed):
    run(root, Counted(), ONLY_A)
    compute = Counted()
    run(root, compute, **{"of": ONLY_A, **changed})
    assert len(compute.calls) == 1
    again = Counted()
    run(root, again, ONLY_A)
    assert again.calls == []


def test_another_version_of_a_metric_in_a_stage_is_computed_again(root, monkeypatch):
    from encsel.metrics.registry import metrics
    from encsel.validation import work

    stage = stage_of(metrics={"two_nn": "field"})
    run(root, Counted(), ONLY_A, stage=stage)
    newer = {**metrics(), "two_nn": replace(metrics()["two_nn"], version=99)}
    monkeypatch.setattr(work, "metrics", lambda: newer)
    compute = Counted()
    run(root, compute, ONLY_A, stage=stage)
    assert compute.calls == [A]


def test_embeddings_of_another_encoder_do_not_matter(root):
    run(root, Counted(), encoders(seed=1))
    compute = Counted()
    run(root, compute)
    assert compute.calls == [A]


def test_pair_depends_on_both_its_encoders_and_on_no_other(root):
    stage = stage_of(about="pair")
    for of, calls in ((ENCODERS, [(A, C), (B, C)]), (encoders(seed=1), [(A, C)]), (ENCODERS, [])):
        compute = Counted()
        assert list(work_of(root, of).of_pairs(stage, "field", compute)) == [(A, C), (B, C)]
        assert compute.calls == calls


def test_some_pairs_alone_are_computed_when_others_cannot(root):
    compute = Counted()
    outcomes = work_of(root).of_pairs(stage_of(about="pair"), "field", compute, pairs=[(B, C)])
    assert (list(outcomes), compute.calls) == ([(B, C)], [(B, C)])
    assert work_of(root).of_pairs(stage_of(about="pair"), "field", compute, pairs=[]) == {}


def test_value_of_the_set_is_kept_and_depends_on_every_encoder(root):
    stage = stage_of(about="set")
    calls: list[int] = []
    for of, n_calls in ((ENCODERS, 1), (ENCODERS, 1), (encoders(seed=1), 2), (ENCODERS[1:], 3)):
        outcome = work_of(root, of).of_set(stage, float, lambda: calls.append(1) or 0.5, more={"k": 1})
        assert (outcome, len(calls)) == (Outcome(0.5), n_calls)


def test_stage_that_is_not_wanted_has_no_values_and_says_so():
    work = work_of(None)
    work.run()
    assert work.outcomes["topology"] == {
        key: {field: Outcome(None, "skipped") for field in ("topology", "silhouette")} for key in KEYS
    }
    assert work.outcomes["gw"][A, C] == {"gromov_wasserstein": Outcome(None, "skipped")}
    assert work.outcomes["groups"][A] == {"group_probe": Outcome(None, "skipped")}
    assert work.outcomes["groups"][A, C] == {field: Outcome(None, "skipped") for field in ("centred", "values")}
    assert work.value("prediction", "ranking", "set") is None


# --- what stages share


def test_what_encoders_share_is_made_once_until_it_is_forgotten():
    work, made = work_of(None), []

    def make(key: Key) -> str:
        made.append(key)
        return key[1]

    share = work.for_pairs("label", make)
    assert dict(share([(A, C)]).items()).keys() == {A, C}
    assert work.each("label", KEYS, make)[B] == "b"
    assert sorted(made) == [A, B, C]
    assert work.remembered("label") == {A: "a", B: "b", C: "c"}
    work.forget("label")
    assert work.remembered("label") == {}
    assert work.each("label", [A], make)[A] == "a"
    assert len(made) == 4


def test_what_cannot_be_made_fails_those_that_use_it_with_its_reason(root):
    work = work_of(root)

    def make(key: Key) -> str:
        if key == A:
            raise BadCalibration("too few")
        return key[1]

    stage = stage_of(str, about="pair")
    outcomes = work.of_pairs(stage, "field", lambda pair, made: made[pair[0]], shared=work.for_pairs("label", make))
    assert outcomes[A, C]["field"] == Outcome(None, "too few")
    assert outcomes[B, C]["field"] == Outcome("b")
    assert work.remembered("label") == {B: "b", C: "c"}


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
        found = run(root, lambda s, c, compute=compute: compute(s, c)[0], ONLY_A, stage=stage_of(kind))
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
        found = run(root, compute, ONLY_A)
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
