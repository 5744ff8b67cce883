"""One validation under way: schedules pieces of work, keeps what is done, and never does a piece twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from encsel.core import MODALITIES, Embeddings, Vectors
from encsel.data.groups import person_groups
from encsel.embedding.prepare import Prepared
from encsel.errors import BadCalibration
from encsel.matching.folds import Protocol, protocol_folds
from encsel.metrics.centroids import centroids
from encsel.metrics.registry import metrics
from encsel.progress import Progress
from encsel.ranking.rank import RankSettings
from encsel.storage.cache import StageCache
from encsel.storage.documents import Malformed, decoded
from encsel.storage.result import plain
from encsel.storage.signature import canonical
from encsel.validation.stage import SKIPPED, Key, Outcome, Outcomes, Pair, Stage, stages


class Work:
    """The set, what it is measured with, and what is done already.

    Args:
        wanted: names of the stages to do.
        signature: of the result.
        jobs: pieces of work at a time, one thread each.
    """

    def __init__(
        self,
        prepared: Prepared,
        settings: RankSettings,
        protocol: Protocol,
        wanted: frozenset[str],
        signature: Mapping[str, Any],
        cache: StageCache,
        *,
        jobs: int,
        progress: Progress,
    ) -> None:
        self.prepared, self.settings, self.protocol, self.wanted = prepared, settings, protocol, wanted
        self.signature, self.progress = signature, progress
        self.people, self.seed, self.reference = prepared.people, prepared.seed, protocol == "reference"
        self.encoders: dict[Key, Embeddings] = {(e.modality, e.name): e for e in prepared.embeddings}
        self.faces, self.voices = ([k for k in self.encoders if k[0] == m] for m in MODALITIES)
        self.pairs: list[Pair] = [(f, v) for f in self.faces for v in self.voices]
        self.folds = protocol_folds(len(self.people), protocol, seed=self.seed)
        self.columns = person_groups(prepared.embeddings, self.people)
        self.content = {key: _content(e) for key, e in self.encoders.items()}
        self.outcomes: dict[str, Outcomes] = {}
        """By stage: what is done so far."""
        self._cache, self._jobs = cache, jobs
        self._made_with = {
            "encsel": signature["encsel"], "libraries": signature["libraries"], "seed": self.seed,
            "people": _hash(*self.people),
        }  # fmt: skip
        self._shared: dict[tuple[str, Key], Any] = {}

    def run(self) -> None:
        """Do every stage that is wanted."""
        for stage in stages().values():
            self.outcomes[stage.name] = stage.compute(self) if stage.name in self.wanted else self._skipped(stage)

    def value(self, stage: str, field: str, subject: Any) -> Any:
        """The value of an earlier stage; None where there is none."""
        return self.outcomes[stage].get(subject, {}).get(field, Outcome(None)).value

    def of_encoders(
        self,
        stage: Stage,
        field: str,
        compute: Callable[[Key, Any], Any],
        *,
        shared: Callable[[Sequence[Key]], Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> Outcomes:
        """A field of every encoder.

        Args:
            shared: makes what `compute` takes as well, once for all encoders that are not in the cache.
            more: options that the results depend on.
        """
        subjects = {key: (key,) for key in self.encoders}
        return self._of(stage, field, subjects, compute, shared=shared, more=more)

    def of_pairs(
        self,
        stage: Stage,
        field: str,
        compute: Callable[[Pair, Any], Any],
        *,
        shared: Callable[[Sequence[Pair]], Any] | None = None,
        more: Mapping[str, Any] | None = None,
        pairs: Sequence[Pair] | None = None,
    ) -> Outcomes:
        """A field of every pair, or of some; arguments as `of_encoders`."""
        subjects = {pair: pair for pair in (self.pairs if pairs is None else pairs)}
        return self._of(stage, field, subjects, compute, shared=shared, more=more)

    def of_set(self, stage: Stage, kind: Any, compute: Callable[[], Any], *, more: Mapping[str, Any]) -> Outcome[Any]:
        """One value of all encoders together."""
        key = self._key(stage, tuple(self.encoders), more)
        kept = self._kept(kind, key)
        return kept if kept is not None else self._keep(kind, key, outcome_of(compute))

    def each(self, label: str, keys: Sequence[Key], make: Callable[[Key], Any]) -> dict[Key, Any]:
        """What `make` makes of each of these encoders, made once and remembered under the label until `forget`.

        Raises:
            BadCalibration: at the value's first use, not here: `make` failed for an encoder.
        """
        missing = [key for key in keys if (label, key) not in self._shared]
        with self.several(label, missing) as several:
            for key, outcome in several(lambda key: outcome_of(lambda: make(key))):
                self._shared[label, key] = outcome
        return _Outcomes({key: self._shared[label, key] for key in keys})

    def for_pairs(self, label: str, make: Callable[[Key], Any]) -> Callable[[Sequence[Pair]], dict[Key, Any]]:
        """An argument `shared` of `of_pairs`: what `make` makes of every encoder of the missing pairs."""
        return lambda pairs: self.each(label, [k for k in self.encoders if any(k in p for p in pairs)], make)

    def forget(self, label: str) -> None:
        """Free what `each` remembers."""
        self._shared = {key: value for key, value in self._shared.items() if key[0] != label}

    def remembered(self, label: str) -> dict[Key, Any]:
        """What `each` has under a label, without what failed."""
        return {k: o.value for (name, k), o in self._shared.items() if name == label and o.value is not None}

    def centroids(self, key: Key) -> Vectors:
        if ("centroids", key) not in self._shared:
            self._shared["centroids", key] = centroids(self.encoders[key])
        vectors: Vectors = self._shared["centroids", key]
        return vectors

    @contextmanager
    def several(
        self, label: str, subjects: Sequence[Any]
    ) -> Iterator[Callable[[Callable[[Any], Any]], Iterator[tuple[Any, Any]]]]:
        """A function that yields (subject, what a function makes of it) as they are done, several at a time."""
        from joblib import Parallel, delayed
        from threadpoolctl import threadpool_limits

        if not subjects:
            yield lambda _: iter(())
            return
        # One thread inside each: small matrices gain nothing from more, and lose ten times on a shared machine.
        with threadpool_limits(1), self.progress.task(label, len(subjects)) as task:

            def each(function: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
                threads = Parallel(n_jobs=self._jobs, prefer="threads", return_as="generator_unordered")
                for done in threads(delayed(lambda s: (s, function(s)))(s) for s in subjects):
                    task.advance()
                    yield done

            yield each

    def _of(
        self,
        stage: Stage,
        field: str,
        subjects: Mapping[Any, Sequence[Key]],
        compute: Callable[[Any, Any], Any],
        *,
        shared: Callable[[Sequence[Any]], Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> Outcomes:
        kind = {**stage.fields, **stage.pair_fields}[field]
        keys = {s: self._key(stage, encoders, {"field": field, **(more or {})}) for s, encoders in subjects.items()}
        done = {s: kept for s in subjects if (kept := self._kept(kind, keys[s])) is not None}
        missing = [s for s in subjects if s not in done]
        context = shared(missing) if shared is not None and missing else None
        if missing and done:
            self.progress.note(f"{stage.name}: {len(done)} of {len(subjects)} kept from an earlier run.")
        with self.several(stage.name, missing) as each:
            for s, outcome in each(lambda s: outcome_of(lambda: compute(s, context))):
                done[s] = self._keep(kind, keys[s], outcome)
        return {s: {field: done[s]} for s in subjects}

    def _key(self, stage: Stage, encoders: Sequence[Key], more: Mapping[str, Any]) -> dict[str, Any]:
        """What a result is kept under: everything it depends on."""
        versions = {name: metrics()[name].version for name in stage.metrics}
        return {
            **self._made_with, "stage": stage.name, "version": stage.version, "metrics": versions,
            "content": [self.content[k] for k in encoders], **more,
        }  # fmt: skip

    def _kept(self, kind: Any, key: Mapping[str, Any]) -> Outcome[Any] | None:
        """What an earlier run kept; None if there is nothing, or it is damaged."""
        return _read(kind, self._cache.get(key))

    def _keep(self, kind: Any, key: Mapping[str, Any], outcome: Outcome[Any]) -> Outcome[Any]:
        """Keep an outcome, and return it as a later run will read it: to the order of its keys."""
        content = json.loads(canonical({"value": plain(outcome.value), "reason": outcome.reason}))
        self._cache.put(key, content)
        read = _read(kind, content)
        assert read is not None, f"{key['stage']} cannot be read back"
        return read

    def _skipped(self, stage: Stage) -> Outcomes:
        nothing: Outcome[Any] = Outcome(None, SKIPPED)
        subjects: dict[str, Sequence[Any]] = {"encoder": [*self.encoders], "pair": self.pairs, "set": ["set"]}
        skipped: Outcomes = {s: dict.fromkeys(stage.fields, nothing) for s in subjects[stage.about]}
        if stage.pair_fields:
            skipped |= {p: dict.fromkeys(stage.pair_fields, nothing) for p in self.pairs}
        return skipped


class _Outcomes(dict[Key, Any]):
    """Outcomes by encoder; taking one without a value raises its reason."""

    def __getitem__(self, key: Key) -> Any:
        outcome = super().__getitem__(key)
        if outcome.reason is not None:
            raise BadCalibration(outcome.reason)
        return outcome.value


def outcome_of(compute: Callable[[], Any]) -> Outcome[Any]:
    """The value, or the message of the BadCalibration that prevented it."""
    try:
        return Outcome(compute())
    except BadCalibration as error:
        return Outcome(None, str(error))


def _read(kind: Any, content: Any) -> Outcome[Any] | None:
    if not isinstance(content, dict):
        return None
    try:
        if content.get("reason") is not None:
            return Outcome(None, str(content["reason"]))
        return Outcome(decoded(kind, content["value"], "value"))
    except (Malformed, KeyError):
        return None


def _hash(*parts: str) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return total.hexdigest()


def _content(e: Embeddings) -> str:
    """Hash of everything in an encoder's embeddings that a result can depend on."""
    total = hashlib.sha256(f"{e.modality}\0{e.name}\0{e.vectors.shape}\0{e.vectors.dtype}\0".encode())
    total.update(np.ascontiguousarray(e.vectors).data)
    for name, column in (("", e.labels), (" ", e.samples), *sorted(e.attributes.items())):
        total.update(_hash(name, *column.tolist()).encode())
    total.update(repr(e.traits).encode())
    return total.hexdigest()
