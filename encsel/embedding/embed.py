"""Run encoders over a calibration set of media: every file is decoded once, every vector cached."""

import contextlib
import hashlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from encsel.core import MODALITIES, Embeddings, Encoder, Failure, Part, Sample, SetOptions, Skipped, Traits
from encsel.data.arrays import keep_usable
from encsel.data.calibration_set import CalibrationSet, check_skipped, too_many_skipped
from encsel.data.ffmpeg import Ffmpeg, find_ffmpeg
from encsel.data.media import decode, opened
from encsel.embedding.model_run import AHEAD_BYTES, N_THREADS, ModelRun, describe, in_order
from encsel.errors import UnusableSample
from encsel.loading.deadline import Workers
from encsel.progress import Progress, Silent, Task
from encsel.storage.signature import digest

CHUNK_BYTES = 1 << 30
"""Bytes of decoded samples held in memory for the encoders after the first."""


@dataclass(frozen=True)
class Embedded:
    """Embeddings of the encoders that ran, reasons of those that failed, skipped samples, and a hash of the content."""

    embeddings: tuple[Embeddings, ...]
    skipped: tuple[Skipped, ...]
    data_sha256: str
    failures: tuple[Failure, ...] = ()
    on_gpu: bool = False


def embed(
    calibration: CalibrationSet,
    encoders: Sequence[Encoder],
    *,
    cache: Path | None = None,
    max_skipped: float = SetOptions.max_skipped,
    batch_size: int | None = None,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> Embedded:
    """Embed a set of media with every encoder of its modality. An encoder that fails does not stop the others.

    Args:
        cache: folder of the embedding cache; None keeps nothing on disk.
        max_skipped: largest fraction of samples of a modality that no encoder can use.
        batch_size: samples per batch; None: 16, or 64 on a GPU. Halved when memory runs out.
        timeout: seconds an encoder may take to load and to embed, not counting reading files; None: no limit. An
            encoder that takes longer fails; its thread cannot be stopped and is abandoned.
    Raises:
        BadCalibration: more unusable samples than `max_skipped`.
    """
    progress = progress or Silent()
    ffmpeg = find_ffmpeg() if calibration.options.ffmpeg else None
    made: list[Embeddings] = []
    skipped: list[Skipped] = []
    failures: list[Failure] = []
    contents: list[list[str]] = []
    on_gpu = False
    for modality in MODALITIES:
        groups: dict[str, list[Encoder]] = {}
        for encoder in encoders:
            if encoder.modality == modality:
                groups.setdefault(encoder.shares or encoder.spec, []).append(encoder)
        if not groups:  # this modality comes from files of embeddings
            continue
        samples = [s for s in calibration.samples if s.modality == modality]
        how = calibration.options.clip, ffmpeg
        runs = [
            ModelRun(group, [describe(e, *how) for e in group], cache, batch_size, timeout) for group in groups.values()
        ]
        # Some models print, and stdout is for results. Once, not per call: threads would undo each other's redirection.
        with contextlib.redirect_stdout(sys.stderr), Workers(N_THREADS) as pool:
            try:
                hashes, unusable = _embed_modality(samples, runs, how, pool, progress)
            finally:
                for run in runs:  # keep finished vectors after Ctrl-C and errors
                    run.close()
        for run in runs:
            run.report(progress)
            on_gpu |= run.on_gpu
        check_skipped(unusable, len(samples), max_skipped)
        skipped.extend(unusable)
        contents.extend([modality, s.identity, h] for s, h in zip(samples, hashes, strict=True) if h)
        for run in runs:
            if run.failure is not None:
                failures.extend(Failure(modality, encoder.name, run.failure) for encoder in run.encoders)
                continue
            for i, encoder in enumerate(run.encoders):
                embeddings, refused = _assembled(run, i, samples, hashes)
                skipped.extend(refused)
                if reason := too_many_skipped(refused, len(samples), max_skipped):
                    failures.append(Failure(modality, encoder.name, reason))
                else:
                    made.append(embeddings)
    return Embedded(tuple(made), tuple(skipped), digest(sorted(contents)), tuple(failures), on_gpu)


class _Later(UnusableSample):
    """A sample must be decoded later, because waiting samples take up all the room."""


class _Room:
    """The memory of large images that wait for their turn: AHEAD_BYTES, or a single image of any size."""

    def __init__(self) -> None:
        self._lock, self._taken = threading.Lock(), dict[int, int]()

    def take(self, i: int, n_bytes: int) -> None:
        """Reserve room for sample `i`; _Later if there is not enough."""
        with self._lock:
            if self._taken and sum(self._taken.values()) + n_bytes > AHEAD_BYTES:
                raise _Later
            self._taken[i] = n_bytes

    def give_back(self, i: int) -> None:
        with self._lock:
            self._taken.pop(i, None)


def _embed_modality(
    samples: Sequence[Sample],
    runs: Sequence[ModelRun],
    how: tuple[Part, Ffmpeg | None],
    pool: Workers,
    progress: Progress,
) -> tuple[list[str], list[Skipped]]:
    """Content hash of each sample ("" if unusable), and the samples that no encoder can use.

    The first run embeds samples as they are decoded; the others take them from memory, a chunk at a time, so that only
    one model is loaded and no file is decoded twice.
    """
    hashes = [""] * len(samples)
    unusable: list[Skipped] = []
    queued: set[str] = set()
    room = _Room()

    def read(item: tuple[int, Sample], take: Callable[[int, int], None] = room.take) -> tuple[int, str, Any]:
        i, sample = item
        try:
            with opened(sample.path) as (content, content_hash):
                wanted = content_hash not in queued and any(run.wants(content_hash) for run in runs)
                options = sample.modality, sample.path.suffix, *how, partial(take, i)
                return i, content_hash, decode(content, *options) if wanted else None
        except UnusableSample as reason:
            room.give_back(i)
            return i, "", reason

    def decoded() -> Iterator[tuple[str, Any]]:
        for i, content_hash, sample in in_order(pool, read, enumerate(samples), runs[0]):
            room.give_back(i)
            if isinstance(sample, _Later):
                _, content_hash, sample = read((i, samples[i]), lambda i, n_bytes: None)
            hashes[i] = content_hash
            if isinstance(sample, UnusableSample):
                unusable.append(_skipped(samples[i], str(sample)))
            is_new = bool(content_hash) and content_hash not in queued and sample is not None
            for run, task in zip(runs, tasks, strict=True):
                if not (is_new and run.wants(content_hash)):
                    task.advance()
            if is_new:
                queued.add(content_hash)
                yield content_hash, sample

    with contextlib.ExitStack() as stack:
        label = f"{samples[0].modality}s with " if samples else ""
        tasks = [_LateTask(stack, progress, label + run.label, len(samples)) for run in runs]
        source = decoded()
        while True:
            chunk: list[tuple[str, Any]] = []
            tasks[0].begin()
            runs[0].consume(_held(source, chunk, runs[1:]), pool, tasks[0])
            runs[0].close()
            if not chunk:
                break
            for run, task in zip(runs[1:], tasks[1:], strict=True):
                task.begin()
                run.consume(chunk, pool, task)
                run.close()
        for task in tasks:
            task.begin()
    return hashes, unusable


class _LateTask(Task):
    """A task that starts when its encoder's turn comes, so that it shows the time of that encoder alone."""

    def __init__(self, stack: contextlib.ExitStack, progress: Progress, label: str, total: int) -> None:
        self._open = lambda: stack.enter_context(progress.task(label, total))
        self._task: Task | None = None
        self._n_before = 0

    def begin(self) -> None:
        if self._task is None:
            self._task = self._open()
            self._task.advance(self._n_before)

    def advance(self, n: int = 1) -> None:
        if self._task is None:
            self._n_before += n
        else:
            self._task.advance(n)


def _held(
    source: Iterator[tuple[str, Any]], chunk: list[tuple[str, Any]], runs: Sequence[ModelRun]
) -> Iterator[tuple[str, Any]]:
    """Yield samples and collect in `chunk` those that one of `runs` wants, until they have CHUNK_BYTES."""
    n_bytes = 0
    for content_hash, sample in source:
        if any(run.wants(content_hash) for run in runs):
            chunk.append((content_hash, sample))
            n_bytes += sample.nbytes
        yield content_hash, sample
        if n_bytes >= CHUNK_BYTES:
            return


def _skipped(sample: Sample, reason: str, encoder: str | None = None) -> Skipped:
    return Skipped(sample.modality, f"{sample.identity}/{sample.name}", reason, encoder)


def _assembled(
    run: ModelRun, i: int, samples: Sequence[Sample], hashes: Sequence[str]
) -> tuple[Embeddings, tuple[Skipped, ...]]:
    """The usable embeddings of encoder `i` of a run, and the samples it could not use."""
    encoder, cached = run.encoders[i], run.caches[i]
    vectors, used, refused = [], [], []
    for sample, content_hash in zip(samples, hashes, strict=True):
        if content_hash and (vector := cached.get(content_hash)) is not None:
            vectors.append(vector)
            used.append(sample)
        elif content_hash in run.refused:
            refused.append(_skipped(sample, run.refused[content_hash], encoder.name))
    made_by = dict(run.descriptions[i])
    if not encoder.is_cached:  # what made them may have changed without a trace
        made_by["vectors"] = digest([hashlib.sha256(vector.tobytes()).hexdigest() for vector in vectors])
    columns = sorted({name for s in used for name in s.attributes})
    embeddings = Embeddings(
        encoder.name,
        encoder.modality,
        np.stack(vectors) if vectors else np.empty((0, encoder.dim), np.float32),
        np.array([s.identity for s in used], dtype=np.str_),
        np.array([s.name for s in used], dtype=np.str_),
        {name: np.array([s.attributes.get(name, "") for s in used], dtype=np.str_) for name in columns},
        made_by,
        Traits(encoder.trained_on, encoder.space, (*encoder.flags, *run.remarks), encoder.licence),
    )
    embeddings, constant = keep_usable(embeddings)
    return embeddings, (*refused, *constant)
