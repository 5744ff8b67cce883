"""One pass over the samples of a modality: every file is decoded once, whatever the number of encoders."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from encsel.core import Part, Sample, Skipped
from encsel.data.ffmpeg import Ffmpeg
from encsel.data.media import decode, opened
from encsel.embedding.model_run import AHEAD_BYTES, N_THREADS, ModelRun, in_order
from encsel.errors import UnusableSample
from encsel.loading.deadline import Workers
from encsel.progress import Progress, Task

CHUNK_BYTES = 1 << 30
"""Bytes of decoded samples held in memory for the encoders after the first."""


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


def embed_modality(
    samples: Sequence[Sample],
    runs: Sequence[ModelRun],
    how: tuple[Part, Ffmpeg | None],
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
                unusable.append(skipped(samples[i], str(sample)))
            is_new = bool(content_hash) and content_hash not in queued and sample is not None
            for run, task in zip(runs, tasks, strict=True):
                if not (is_new and run.wants(content_hash)):
                    task.advance()
            if is_new:
                queued.add(content_hash)
                yield content_hash, sample

    with Workers(N_THREADS) as pool, contextlib.ExitStack() as stack:
        label = f"{samples[0].modality}s with " if samples else ""
        tasks = [LateTask(stack, progress, label + run.label, len(samples)) for run in runs]
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


class LateTask(Task):
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


def skipped(sample: Sample, reason: str, encoder: str | None = None) -> Skipped:
    return Skipped(sample.modality, f"{sample.identity}/{sample.name}", reason, encoder)
