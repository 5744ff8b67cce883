"""One validation in progress: schedules tasks, keeps results, and does no task twice."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from encsel.core import MODALITIES, Embeddings, Vectors
from encsel.data.groups import person_groups
from encsel.embedding.prepare import Prepared
from encsel.errors import BadCalibration
from encsel.matching.eer import EerRule, eer_of_sorted, nearest_eer
from encsel.matching.folds import Protocol, protocol_folds
from encsel.metrics.registry import metrics
from encsel.parallel.tasks import run
from encsel.progress import Progress, Silent
from encsel.ranking.settings import RankSettings
from encsel.storage.cache import StageCache
from encsel.storage.documents import Malformed, decoded
from encsel.storage.result import plain
from encsel.storage.signature import canonical, digest
from encsel.validation.stage import SKIPPED, Key, Outcome, Outcomes, Pair, Stage, stages


class Work:
    """The set, how it is measured, and the results so far.

    Args:
        wanted: names of the stages to run.
        signature: signature of the result.
        jobs: number of tasks at a time, one thread each.
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
        self.eer_rule: EerRule = nearest_eer if self.reference else eer_of_sorted
        self.folds = protocol_folds(len(self.people), protocol, seed=self.seed)
        self.columns = person_groups(prepared.embeddings, self.people)
        self.content = {key: _content(self.counted(key)) for key in self.encoders}
        self.outcomes: dict[str, Outcomes] = {}
        """Results so far, by stage."""
        self._cache, self._jobs = cache, jobs
        self._made_with = {
            "encsel": signature["encsel"], "libraries": signature["libraries"], "seed": self.seed,
            "people": digest(list(self.people)),
        }  # fmt: skip
        self._shared: dict[tuple[str, Key], Any] = {}

    def run(self) -> None:
        """Run all wanted stages."""
        for stage in stages().values():
            self.outcomes[stage.name] = stage.compute(self) if stage.name in self.wanted else self._skipped(stage)

    def value(self, stage: str, field: str, subject: Any) -> Any:
        """The value of an earlier stage, or None."""
        return self.outcomes[stage].get(subject, {}).get(field, Outcome(None)).value

    def of_encoders(self, stage: Stage, field: str, compute: Callable[[Key, Any], Any], **options: Any) -> Outcomes:
        """A field of every encoder; see `of` for the options."""
        return self.of(stage, field, {key: (key,) for key in self.encoders}, compute, **options)

    def of_pairs(
        self,
        stage: Stage,
        field: str,
        compute: Callable[[Pair, Any], Any],
        *,
        pairs: Sequence[Pair] | None = None,
        **options: Any,
    ) -> Outcomes:
        """A field of every pair, or of some; see `of` for the options."""
        subjects = {pair: pair for pair in (self.pairs if pairs is None else pairs)}
        return self.of(stage, field, subjects, compute, **options)

    def of(
        self,
        stage: Stage,
        field: str,
        subjects: Mapping[Any, Sequence[Key]],
        compute: Callable[[Any, Any], Any],
        *,
        shared: Callable[[Sequence[Any]], Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> Outcomes:
        """A field of every subject, from the cache or computed.

        Args:
            subjects: the encoders that each subject consists of.
            shared: makes the second argument of `compute`, once for all subjects that are not in the cache.
            more: further options that the results depend on.
        """
        kind = {**stage.fields, **stage.pair_fields}[field]
        keys = {s: self._key(stage, encoders, {"field": field, **(more or {})}) for s, encoders in subjects.items()}
        done = {s: cached for s in subjects if (cached := self._cached(kind, keys[s])) is not None}
        missing = [s for s in subjects if s not in done]
        context = shared(missing) if shared is not None and missing else None
        if missing and done:
            self.progress.note(f"{stage.name}: {len(done)} of {len(subjects)} read from the cache.")
        arguments = {s: (s, _of_encoders(context, subjects[s])) for s in missing}
        for s, outcome in self._several(stage.name, arguments, lambda *given: outcome_of(lambda: compute(*given))):
            done[s] = self._keep(kind, keys[s], outcome)
        return {s: {field: done[s]} for s in subjects}

    def of_set(self, stage: Stage, kind: Any, compute: Callable[[], Any], *, more: Mapping[str, Any]) -> Outcome:
        """One value of all encoders together."""
        key = self._key(stage, tuple(self.encoders), more)
        cached = self._cached(kind, key)
        return cached if cached is not None else self._keep(kind, key, outcome_of(compute))

    def each(self, label: str, keys: Sequence[Key], make: Callable[[Key], Any]) -> dict[Key, Any]:
        """What `make` returns for each encoder, computed once and remembered under the label until `forget`.

        Raises:
            BadCalibration: `make` failed for an encoder; raised when the value is used, not here.
        """
        missing = [key for key in keys if (label, key) not in self._shared]
        for key, outcome in self._several(label, {k: (k,) for k in missing}, lambda k: outcome_of(lambda: make(k))):
            self._shared[label, key] = outcome
        return _Outcomes({key: self._shared[label, key] for key in keys})

    def for_pairs(self, label: str, make: Callable[[Key], Any]) -> Callable[[Sequence[Pair]], dict[Key, Any]]:
        """An argument `shared` of `of_pairs`: what `make` returns for every encoder of the missing pairs."""
        return lambda pairs: self.each(label, [k for k in self.encoders if any(k in p for p in pairs)], make)

    def forget(self, label: str) -> None:
        """Free what `each` remembers."""
        self._shared = {key: value for key, value in self._shared.items() if key[0] != label}

    def remembered(self, label: str) -> dict[Key, Any]:
        """Values that `each` has under a label, without failures."""
        return {k: o.value for (name, k), o in self._shared.items() if name == label and o.value is not None}

    def counted(self, key: Key) -> Embeddings:
        """Rows of an encoder: each once, or in the reference protocol as often as the set lists it."""
        return self.encoders[key].as_listed() if self.reference else self.encoders[key]

    def centroids(self, key: Key) -> Vectors:
        """(people, dim) centroids of `rows`."""
        if ("centroids", key) not in self._shared:
            self._shared["centroids", key] = self.counted(key).centroids
        vectors: Vectors = self._shared["centroids", key]
        return vectors

    def _several(
        self, label: str, arguments: Mapping[Any, tuple[Any, ...]], function: Callable[..., Outcome]
    ) -> Iterator[tuple[Any, Outcome]]:
        """Yield each subject, a key of `arguments`, with the outcome of a function as it finishes."""
        if not arguments:
            return
        subjects = list(arguments)
        with self.progress.task(label, len(subjects)) as task:
            for i, outcome in run(((function, of_subject, {}) for of_subject in arguments.values()), self._jobs):
                task.advance()
                yield subjects[i], outcome

    def __getstate__(self) -> dict[str, Any]:
        """What tasks need on another machine: no files of media, no results, no progress."""
        state = self.__dict__ | {"outcomes": {}, "progress": Silent(), "_cache": StageCache(None)}
        state["_shared"] = {key: value for key, value in self._shared.items() if key[0] == "centroids"}
        calibration = replace(self.prepared.calibration, samples=(), embeddings=())
        embedded = replace(self.prepared.embedded, embeddings=(), skipped=())
        state["prepared"] = replace(self.prepared, calibration=calibration, embedded=embedded)
        return state

    def _key(self, stage: Stage, encoders: Sequence[Key], more: Mapping[str, Any]) -> dict[str, Any]:
        """The key of a result in the cache: everything it depends on."""
        versions = {name: metrics()[name].version for name in stage.metrics}
        return {
            **self._made_with, "stage": stage.name, "version": stage.version, "metrics": versions,
            "content": [self.content[k] for k in encoders], **more,
        }  # fmt: skip

    def _cached(self, kind: Any, key: Mapping[str, Any]) -> Outcome | None:
        """The outcome of an earlier run; None if there is none, or it is damaged."""
        return _read(kind, self._cache.get(key))

    def _keep(self, kind: Any, key: Mapping[str, Any], outcome: Outcome) -> Outcome:
        """Cache an outcome, and return it as a later run will read it, down to the order of its keys."""
        content = json.loads(canonical({"value": plain(outcome.value), "reason": outcome.reason}))
        self._cache.put(key, content)
        read = _read(kind, content)
        assert read is not None, f"{key['stage']} cannot be read back"
        return read

    def _skipped(self, stage: Stage) -> Outcomes:
        subjects: dict[str, Sequence[Any]] = {"encoder": [*self.encoders], "pair": self.pairs, "set": ["set"]}
        fields = ((subjects[stage.about], stage.fields), (self.pairs, stage.pair_fields))
        nothing: Outcome = Outcome(None, SKIPPED)
        return {s: dict.fromkeys(names, nothing) for of, names in fields if names for s in of}


class _Outcomes(dict[Key, Any]):
    """Outcomes by encoder; taking one without a value raises its reason."""

    def __getitem__(self, key: Key) -> Any:
        outcome = super().__getitem__(key)
        if outcome.reason is not None:
            raise BadCalibration(outcome.reason)
        return outcome.value


def _of_encoders(context: Any, keys: Sequence[Key]) -> Any:
    """The part of a context by encoder that belongs to some of them; any other context as it is."""
    if not isinstance(context, dict):
        return context
    return type(context)((key, dict.get(context, key)) for key in keys if key in context)


def outcome_of(compute: Callable[[], Any]) -> Outcome:
    """The value of a computation, or the message of its BadCalibration."""
    try:
        return Outcome(compute())
    except BadCalibration as error:
        return Outcome(None, str(error))


def _read(kind: Any, content: Any) -> Outcome | None:
    if not isinstance(content, dict):
        return None
    try:
        if content.get("reason") is not None:
            return Outcome(None, str(content["reason"]))
        return Outcome(decoded(kind, content["value"], "value"))
    except (Malformed, KeyError):
        return None


def _content(e: Embeddings) -> str:
    """Hash of everything in embeddings that a result can depend on."""
    vectors = hashlib.sha256(np.ascontiguousarray(e.vectors).data).hexdigest()
    columns = [(name, column.tolist()) for name, column in (("", e.labels), (" ", e.samples), *e.attributes.items())]
    return digest([e.modality, e.name, e.vectors.shape, str(e.vectors.dtype), vectors, sorted(columns), repr(e.traits)])
