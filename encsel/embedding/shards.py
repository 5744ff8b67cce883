"""Embed on the workers of a cluster: a task is one encoder and one shard of the samples that the cache lacks.

Workers read the samples, write vectors to the cache and send them back, because a file server may show new files late.
A shard whose worker is lost is embedded again, as a whole, by another one.
"""

import contextlib
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from encsel.core import Encoder, Model, Sample, SetOptions, Skipped, Vectors
from encsel.data.ffmpeg import find_ffmpeg
from encsel.data.media import opened
from encsel.embedding.model_run import N_THREADS, ModelRun, describe
from encsel.embedding.one_pass import LateTask, embed_modality, skipped
from encsel.errors import UnusableSample, UsageError, first_line
from encsel.loading.deadline import Workers
from encsel.parallel.calls import Call, pickled
from encsel.parallel.tasks import run
from encsel.progress import Progress, Silent
from encsel.storage.cache import NO_PLACE

SHARD = 2048
"""Samples in a task: a model is loaded for each, and all of it is lost with its worker."""

_REMEDY = "Write it to a file that all workers see, and name it py:FILE.py:NAME."


@dataclass(frozen=True)
class _Order:
    """How a worker embeds with the encoders that share one model. `folder` is where relative paths start from."""

    encoders: tuple[Encoder, ...]
    descriptions: tuple[Mapping[str, Any], ...]
    options: SetOptions
    cache: Path
    batch_size: int | None
    timeout: float | None
    folder: Path


@dataclass(frozen=True)
class _Embedded:
    """What became of a shard.

    Attributes:
        unusable: reason by position in the shard, of samples that no encoder can use.
        hashes: content hashes of the others that have vectors.
        vectors: (hashes, dim) of each encoder.
        refused: reason by content hash, of samples that these encoders cannot use.
    """

    unusable: dict[int, str]
    hashes: tuple[str, ...]
    vectors: tuple[Vectors, ...]
    refused: dict[str, str]
    remarks: tuple[str, ...]
    failure: str | None
    write_error: str | None
    on_gpu: bool


def embed_on_workers(
    samples: Sequence[Sample], runs: Sequence[ModelRun], options: SetOptions, cache: Path | None, progress: Progress
) -> tuple[list[str], list[Skipped]]:
    """As `embed_modality`. The time limit of an encoder is for each shard.

    Raises:
        UsageError: there is no folder for the cache, or the cluster is lost.
    """
    if cache is None:
        raise UsageError(f"Workers need a cache that all of them see. {NO_PLACE}")
    hashes, reasons = _hashed(samples, progress)
    # Equal files are embedded once, but a suffix can decide how a clip is decoded.
    first: dict[tuple[str, str], int] = {}
    for i, content_hash in enumerate(hashes):
        if content_hash:
            first.setdefault((content_hash, samples[i].path.suffix), i)
    places: list[tuple[int, int, list[int]]] = []

    def calls() -> Iterator[Call]:
        for number, one in enumerate(runs):
            wanted = [i for i in first.values() if one.wants(hashes[i])]
            tasks[number].advance(len(samples) - len(wanted))
            order = _order(one, options, cache) if wanted else b""
            for k, start in enumerate(range(0, len(wanted), SHARD)):
                if one.failure is not None:
                    break
                indices = wanted[start : start + SHARD]
                places.append((number, k, indices))
                tasks[number].begin()
                yield _embed_shard, (order, [_sent(samples[i]) for i in indices], [hashes[i] for i in indices]), {}

    undecodable: dict[tuple[str, str], str] = {}
    told: dict[int, list[tuple[int, _Embedded]]] = {}
    with contextlib.ExitStack() as stack:
        label = f"{samples[0].modality}s with " if samples else ""
        tasks = [LateTask(stack, progress, label + one.label, len(samples)) for one in runs]
        for position, embedded in run(calls(), gpu=any(e.runtime is not None for one in runs for e in one.encoders)):
            number, k, indices = places[position]
            one = runs[number]
            for j, reason in embedded.unusable.items():
                i = indices[j]
                undecodable[hashes[i], samples[i].path.suffix] = reason
            for cached, vectors in zip(one.caches, embedded.vectors, strict=False):  # none after a failure
                cached.add(dict(zip(embedded.hashes, vectors, strict=True)))
                cached.write_error = cached.write_error or embedded.write_error
            one.refused |= embedded.refused
            one.on_gpu |= embedded.on_gpu
            told.setdefault(number, []).append((k, embedded))
            one.failure = one.failure or embedded.failure
            tasks[number].advance(len(indices))
        for task in tasks:
            task.begin()
    for number, results in told.items():
        # What the first shard says that says anything, whichever finished first.
        ordered = [embedded for _, embedded in sorted(results, key=lambda result: result[0])]
        runs[number].remarks = next((e.remarks for e in ordered if e.remarks), ())
        runs[number].failure = next((e.failure for e in ordered if e.failure), None)
    for i, sample in enumerate(samples):
        if reason := undecodable.get((hashes[i], sample.path.suffix)):
            hashes[i], reasons[i] = "", reason
    return hashes, [skipped(samples[i], reasons[i]) for i in sorted(reasons)]


def _order(one: ModelRun, options: SetOptions, cache: Path) -> bytes:
    """The order for a run, pickled; if that is not possible, the run fails."""
    # What is opened again in a process of its own need not be sent.
    encoders = tuple(e if e.runtime is None else replace(e, load=_not_sent) for e in one.encoders)
    order = _Order(
        encoders, tuple(one.descriptions), options, cache.absolute(), one.batch_size, one.timeout, Path.cwd()
    )
    try:
        return pickled(order)
    except Exception as error:  # pickling raises many types
        one.failure = f"it cannot be sent to a worker ({type(error).__name__}: {first_line(error)}). {_REMEDY}"
        return b""


def _not_sent() -> Model:
    raise AssertionError("it runs in a process of its own")


def _sent(sample: Sample) -> Sample:
    return Sample(sample.identity, sample.modality, str(sample.path.absolute()), sample.name)


def _hashed(samples: Sequence[Sample], progress: Progress) -> tuple[list[str], dict[int, str]]:
    """Content hash of each sample ("" if it cannot be read), and the reasons of those that cannot, by position."""
    hashes, reasons = [""] * len(samples), dict[int, str]()
    shards = [range(start, min(start + SHARD, len(samples))) for start in range(0, len(samples), SHARD)]
    with progress.task(f"reading {samples[0].modality}s" if samples else "reading", len(samples)) as task:
        calls: Iterator[Call] = ((_hash_shard, ([samples[i].path.absolute() for i in shard],), {}) for shard in shards)
        for position, results in run(calls):
            for i, (content_hash, reason) in zip(shards[position], results, strict=True):
                hashes[i] = content_hash
                if reason is not None:
                    reasons[i] = reason
            task.advance(len(results))
    return hashes, reasons


# --- On a worker


def _hash_shard(paths: Sequence[Path]) -> list[tuple[str, str | None]]:
    """Content hash of each file, or the reason why it cannot be read."""

    def one(path: Path) -> tuple[str, str | None]:
        try:
            with opened(path) as (_, content_hash):
                pass
            return content_hash, None
        except UnusableSample as reason:
            return "", str(reason)

    with Workers(N_THREADS) as pool:
        return [future.result() for future in [pool.submit(one, path) for path in paths]]


def _embed_shard(sent: bytes, samples: Sequence[Sample], expected: Sequence[str]) -> _Embedded:
    """Embed samples, whose content hashes are `expected`, and write the vectors to the cache."""
    try:
        order: _Order = pickle.loads(sent)
    except Exception as error:  # it is in a module that is not here
        return _failed(f"a worker cannot open it ({type(error).__name__}: {first_line(error)}). {_REMEDY}")
    how = order.options.clip, find_ffmpeg() if order.options.ffmpeg else None
    for encoder, description in zip(order.encoders, order.descriptions, strict=True):
        if (here := describe(encoder, *how)) != description:
            return _failed(_difference(here, description))
    one = ModelRun(
        order.encoders, order.descriptions, order.cache, order.batch_size, order.timeout, sent_from=order.folder
    )
    try:
        hashes, unusable = embed_modality(samples, [one], how, Silent())
    finally:
        one.close()
    if one.failure is not None:
        return _failed(one.failure)
    reason_of = {s.sample: s.reason for s in unusable}
    reasons = {
        j: reason_of.get(f"{sample.identity}/{sample.name}", "it changed while it was read")
        for j, sample in enumerate(samples)
        if hashes[j] != expected[j]
    }
    made = tuple(h for h in dict.fromkeys(hashes) if h and one.caches[0].get(h) is not None)
    vectors = tuple(np.array([cached.get(h) for h in made], np.float32) for cached in one.caches)
    errors = (cached.write_error for cached in one.caches if cached.write_error)
    return _Embedded(reasons, made, vectors, one.refused, one.remarks, None, next(errors, None), one.on_gpu)


def _failed(reason: str) -> _Embedded:
    return _Embedded({}, (), (), {}, (), reason, None, False)


def _difference(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """Say what differs between two descriptions of one encoder: versions of libraries or of ffmpeg."""
    facts = [{**d["libraries"], "ffmpeg": d["decoding"].get("ffmpeg")} for d in (here, there)]
    differing = [f"{key} {facts[0].get(key)} instead of {value}" for key, value in facts[1].items()
                 if facts[0].get(key) != value]  # fmt: skip
    return f"a worker has {', '.join(differing)}. Install the same versions everywhere."
