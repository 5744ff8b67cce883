"""Long work in stages over encoders and pairs: several at a time, each kept when done, none done twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Generic, TypeVar

from encsel.core import Modality
from encsel.errors import BadCalibration
from encsel.progress import Progress
from encsel.storage.cache import Results
from encsel.storage.documents import Malformed, decoded
from encsel.storage.signature import canonical

Key = tuple[Modality, str]
"""Modality and name of an encoder."""
Pair = tuple[Key, Key]

SKIPPED = "skipped"

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of one piece of work: a value, or the reason why there is none."""

    value: T | None
    reason: str | None = None


def outcome_of(compute: Callable[[], T]) -> Outcome[T]:
    """The value, or the message of the BadCalibration that stood in its way."""
    try:
        return Outcome(compute())
    except BadCalibration as error:
        return Outcome(None, str(error))


class Stages:
    """What stages share: where results are kept, what they depend on, how many run at a time."""

    def __init__(
        self,
        results: Results,
        made_with: Mapping[str, Any],
        content: Mapping[Key, str],
        *,
        jobs: int,
        progress: Progress,
    ) -> None:
        """
        Args:
            made_with: everything a result depends on beside the embeddings.
            content: hash of each encoder's embeddings.
            jobs: pieces at a time, each on one thread.
        """
        self._results, self._made_with, self._content = results, made_with, content
        self._jobs, self._progress = jobs, progress

    def key(self, encoders: Sequence[Key], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a result made of these encoders is kept under."""
        return {**self._made_with, "content": [self._content[k] for k in encoders], **(more or {})}

    def run(
        self,
        stage: str,
        kind: Any,
        subjects: Mapping[Any, Sequence[Key]],
        compute: Callable[[Any, Any], Any],
        *,
        need: Callable[[Sequence[Any]], Any] | None = None,
        more: Mapping[str, Any] | None = None,
        label: str | None = None,
    ) -> dict[Any, Outcome[Any]]:
        """Every subject's outcome: kept from an earlier run, or computed now.

        Args:
            kind: type of the values, made of dataclasses, tuples, mappings and plain values.
            subjects: what to compute for, each with the encoders it depends on.
            compute: makes a value of a subject and of what `need` made for all the missing ones.
            more: options that results depend on.
        """
        keys = {s: self.key(encoders, more) for s, encoders in subjects.items()}
        found = {s: kept for s in subjects if (kept := self.kept(stage, kind, keys[s])) is not None}
        missing = [s for s in subjects if s not in found]
        context = need(missing) if need is not None and missing else None
        if missing and found:
            self._progress.note(f"{label or stage}: {len(found)} of {len(subjects)} kept from an earlier run.")
        with self.several(label or stage, missing) as each:
            for s, outcome in each(lambda s: outcome_of(lambda: compute(s, context))):
                found[s] = self.keep(stage, kind, keys[s], outcome)
        return {s: found[s] for s in subjects}

    @contextmanager
    def several(
        self, label: str, subjects: Sequence[Any]
    ) -> Iterator[Callable[[Callable[[Any], Any]], Iterator[tuple[Any, Any]]]]:
        """A function that yields (subject, what a function makes of it), several at a time, as they are done."""
        from joblib import Parallel, delayed
        from threadpoolctl import threadpool_limits

        if not subjects:
            yield lambda _: iter(())
            return
        # One thread inside each: small matrices gain nothing from more, and lose ten times on a shared machine.
        with threadpool_limits(1), self._progress.task(label, len(subjects)) as task:

            def each(function: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
                threads = Parallel(n_jobs=self._jobs, prefer="threads", return_as="generator_unordered")
                for done in threads(delayed(lambda s: (s, function(s)))(s) for s in subjects):
                    task.advance()
                    yield done

            yield each

    def kept(self, stage: str, kind: Any, key: Mapping[str, Any]) -> Outcome[Any] | None:
        """What an earlier run left under a key; None when there is none, or one that is damaged."""
        return _read(kind, self._results.get({"stage": stage, **key}), stage)

    def keep(self, stage: str, kind: Any, key: Mapping[str, Any], outcome: Outcome[T]) -> Outcome[T]:
        """Leave an outcome for the next run, and return it as that run will read it: to the order of its keys."""
        content = json.loads(canonical({"value": _plain(outcome.value), "reason": outcome.reason}))
        self._results.put({"stage": stage, **key}, content)
        read = _read(kind, content, stage)
        assert read is not None, f"{stage} cannot be read back"
        return read


def _read(kind: Any, content: Any, where: str) -> Outcome[Any] | None:
    if not isinstance(content, dict):
        return None
    try:
        if content.get("reason") is not None:
            return Outcome(None, str(content["reason"]))
        return Outcome(decoded(kind, content["value"], where))
    except (Malformed, KeyError):
        return None


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value
