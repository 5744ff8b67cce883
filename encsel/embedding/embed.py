"""Runs encoders over a calibration set of media: every file is decoded once, every vector cached."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from encsel.core import MODALITIES, Embeddings, Encoder, Modality, Model, Sample, SetOptions, Skipped, Traits, Vectors
from encsel.data.arrays import keep_usable
from encsel.data.calibration_set import CalibrationSet, check_skipped
from encsel.data.media import DECODING, decode, read_bytes
from encsel.errors import EncoderFailed, UnusableSample
from encsel.loading.deadline import Deadline, OutOfTime, Workers
from encsel.progress import Progress, Silent, Task
from encsel.storage.cache import EmbeddingCache
from encsel.storage.signature import digest, library_versions

BATCH_ON_CPU, BATCH_ON_GPU = 16, 64
CHUNK_BYTES = 1 << 30
"""Decoded samples held for the encoders that follow the first."""
N_THREADS = min(8, os.cpu_count() or 1)
AHEAD = 4
"""Samples read, decoded or prepared ahead of the model, per thread; a batch if that is more."""
LENGTH_STEP = 4000
"""Values of a clip: padded batches hold clips that differ by less than a quarter of a second."""
REFUSED = "the encoder could not use it"
DECODING_LIBRARIES = {"face": ("Pillow",), "voice": ("soundfile", "soxr")}

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Failure:
    """An encoder that could not be loaded or run, and why."""

    modality: Modality
    encoder: str
    reason: str


@dataclass(frozen=True)
class Embedded:
    """The embeddings of every encoder that ran, those that did not, what was skipped, and a hash of the content."""

    embeddings: tuple[Embeddings, ...]
    skipped: tuple[Skipped, ...]
    data_sha256: str
    failures: tuple[Failure, ...] = ()


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
        max_skipped: largest share of samples of a modality that may be unusable for every encoder.
        batch_size: samples a batch; None: 16, or 64 on a GPU. Halved by itself while memory runs out.
        timeout: seconds an encoder may take to load and to embed, reading of files left out; None: no limit. One that
            takes longer fails; its thread cannot be stopped and is left behind.
    Raises:
        BadCalibration: more unusable samples than that.
    """
    progress = progress or Silent()
    made: list[Embeddings] = []
    skipped: list[Skipped] = []
    failures: list[Failure] = []
    contents: list[list[str]] = []
    for modality in MODALITIES:
        groups: dict[str, list[Encoder]] = {}
        for encoder in encoders:
            if encoder.modality == modality:
                groups.setdefault(encoder.shares or encoder.spec, []).append(encoder)
        if not groups:  # this modality comes from files of embeddings
            continue
        samples = [s for s in calibration.samples if s.modality == modality]
        runs = [_Run(group, cache, batch_size, timeout) for group in groups.values()]
        # Some models print, and stdout is for results. Once, not per call: calls in threads would undo each other's.
        with contextlib.redirect_stdout(sys.stderr), Workers(N_THREADS) as pool:
            try:
                hashes, unusable = _embed_modality(samples, runs, pool, progress)
            finally:
                for run in runs:  # Ctrl-C and errors keep what was done
                    run.flush()
        for run in runs:
            run.tell(progress)
        check_skipped(unusable, len(samples), max_skipped)
        skipped.extend(unusable)
        contents.extend([modality, s.identity, h] for s, h in zip(samples, hashes, strict=True) if h)
        for run in runs:
            if run.failure is not None:
                failures.extend(Failure(modality, encoder.name, run.failure) for encoder in run.encoders)
                continue
            for encoder, shelf in zip(run.encoders, run.shelves, strict=True):
                embeddings, refused = _assemble(encoder, shelf, run.refused, samples, hashes)
                skipped.extend(refused)
                if len(refused) > max_skipped * len(samples):
                    # No names: failures are in reports. The samples themselves are in `skipped`.
                    shown = "; ".join(f"{n} {why}" for why, n in Counter(s.reason for s in refused).most_common(3))
                    reason = (
                        f"it could not use {len(refused)} of {len(samples)} samples ({shown}); at most "
                        f"{max_skipped:.0%} may be skipped. Repair them, or allow more with --max-skipped"
                    )
                    failures.append(Failure(modality, encoder.name, reason))
                else:
                    made.append(embeddings)
    return Embedded(tuple(made), tuple(skipped), digest(sorted(contents)), tuple(failures))


def describe(encoder: Encoder) -> dict[str, Any]:
    """Everything about an encoder that can change its vectors: the cache key, and its entry in the signature."""
    return {
        # The family: what users call a candidate does not change its vectors.
        "name": encoder.family,
        "modality": encoder.modality,
        "version": encoder.version,
        "dim": encoder.dim,
        "revision": encoder.revision,
        "weights": dict(encoder.weights),
        "preprocessing": dict(encoder.preprocessing),
        "decoding": DECODING[encoder.modality],
        "libraries": library_versions((*DECODING_LIBRARIES[encoder.modality], *encoder.libraries)),
    }


class _Run:
    """One model during one run: the shelf of each encoder it serves, and the model once a sample needs it."""

    def __init__(
        self, encoders: Sequence[Encoder], cache: Path | None, batch_size: int | None, timeout: float | None
    ) -> None:
        self.encoders = encoders
        self.shelves = [EmbeddingCache(cache, describe(e), e.dim) for e in encoders]
        self.refused: dict[str, str] = {}
        self.failure: str | None = None
        self.batch_size = batch_size
        self._deadline = Deadline(timeout)
        self._model: Model | None = None

    @property
    def label(self) -> str:
        return self.encoders[0].name if len(self.encoders) == 1 else f"{self.encoders[0].family} x{len(self.encoders)}"

    def wants(self, content_hash: str) -> bool:
        if self.failure is not None or content_hash in self.refused:
            return False
        return any(shelf.get(content_hash) is None for shelf in self.shelves)

    def consume(self, decoded: Iterable[tuple[str, Any]], pool: Workers, task: Task) -> None:
        """Embed decoded samples by content hash as they come; a failure is kept and what follows is passed over."""
        try:
            self._consume(decoded, pool, task)
        except OutOfTime as error:  # while samples were prepared, in threads of the pool
            self.failure = str(error)
            pool.reinforce()
            for _ in decoded:
                pass

    def _consume(self, decoded: Iterable[tuple[str, Any]], pool: Workers, task: Task) -> None:
        waiting: dict[Any, list[tuple[str, Vectors]]] = {}
        ahead = _ahead(pool, self._prepare, self._wanted(decoded), self, self._deadline.result)
        for content_hash, kind, prepared in ahead:
            if isinstance(prepared, UnusableSample):
                self.refused[content_hash] = str(prepared)
                task.advance()
                continue
            bucket = waiting.setdefault(kind, [])
            bucket.append((content_hash, prepared))
            if len(bucket) >= self._size():
                self._embed(bucket, task)
                bucket.clear()
        for bucket in waiting.values():
            if bucket:
                self._embed(bucket, task)

    def _wanted(self, decoded: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """The samples this run lacks; the model is loaded when the first one comes."""
        for content_hash, sample in decoded:
            if self.wants(content_hash):
                self._load()
                yield content_hash, sample

    def close(self) -> None:
        """Free the model; the next one may need its memory."""
        self.flush()
        self._deadline.close()
        if self._model is None:
            return
        self._model = None
        gc.collect()  # some layers of torch hold each other in circles
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def flush(self) -> None:
        for shelf in self.shelves:
            shelf.flush()

    def tell(self, progress: Progress) -> None:
        n_damaged = sum(shelf.n_damaged for shelf in self.shelves)
        if n_damaged:
            progress.note(f"{n_damaged} damaged cache files of {self.label} were dropped and made again.")
        errors = {shelf.write_error for shelf in self.shelves if shelf.write_error}
        if errors:
            progress.note(
                f"Embeddings of {self.label} were not cached: {', '.join(sorted(errors))}. Choose another --cache."
            )
        if self.failure is not None:
            progress.note(f"{self.label} failed: {self.failure}")

    def _prepare(self, item: tuple[str, Any]) -> tuple[str, Any, Vectors | UnusableSample]:
        """Content hash, what its batch has in common, and the prepared sample or why it cannot be used."""
        content_hash, sample = item
        if self._model is None or self.failure is not None:
            return content_hash, None, UnusableSample("not tried")
        try:
            prepared = self._model.prepare(sample)
            return content_hash, self._bucket(prepared), prepared
        except UnusableSample as reason:
            return content_hash, None, reason
        except (Exception, SystemExit) as error:
            self.failure = _named(error)
            return content_hash, None, UnusableSample("not tried")

    def _load(self) -> None:
        if self._model is not None:
            return
        try:
            self._model = self._deadline.call(self.encoders[0].load)
        except (Exception, SystemExit) as error:
            self.failure = _named(error)

    def _size(self) -> int:
        if self.batch_size is None:
            torch = sys.modules.get("torch")
            self.batch_size = BATCH_ON_GPU if torch is not None and torch.cuda.is_available() else BATCH_ON_CPU
        return self.batch_size

    def _bucket(self, prepared: Vectors) -> Any:
        if self.encoders[0].modality == "face" or self.encoders[0].equal_lengths:
            return np.shape(prepared) if self.encoders[0].equal_lengths else None
        # Clips of about one length go together: little padding, and the order of files does not decide the batches.
        return -(-len(prepared) // LENGTH_STEP)

    def _embed(self, batch: Sequence[tuple[str, Vectors]], task: Task) -> None:
        """Embed one batch; out of memory, go on with halves of it, here and in the batches that follow."""
        while batch and self.failure is None:
            part, rest = batch[: self._size()], batch[self._size() :]
            try:
                vectors = self._call([prepared for _, prepared in part])
            except (Exception, SystemExit) as error:
                if _is_out_of_memory(error) and len(part) > 1:
                    self.batch_size = len(part) // 2
                else:
                    self.failure = _named(error)
                continue
            usable = [bool(np.isfinite(vector).all()) for vector in vectors]
            for encoder, shelf in zip(self.encoders, self.shelves, strict=True):
                made = {h: vectors[i, encoder.tap].copy() for i, (h, _) in enumerate(part) if usable[i]}
                shelf.put({h: vector for h, vector in made.items() if shelf.get(h) is None})
            self.refused.update({h: REFUSED for i, (h, _) in enumerate(part) if not usable[i]})
            task.advance(len(part))
            batch = rest

    def _call(self, batch: list[Vectors]) -> Vectors:
        assert self._model is not None
        vectors = np.asarray(self._deadline.call(self._model.embed, batch))
        needed = (len(batch), 1 + max(e.tap for e in self.encoders), self.encoders[0].dim)
        fits = vectors.ndim == 3 and vectors.shape[::2] == needed[::2] and vectors.shape[1] >= needed[1]
        if not fits or vectors.dtype.kind != "f":
            shape = (*vectors.shape[:1], *vectors.shape[2:])
            raise EncoderFailed(
                f"it returned {vectors.dtype} of shape {shape} for {len(batch)} samples; "
                f"floats of shape ({len(batch)}, {needed[2]}) were declared. Repair the encoder."
            )
        with np.errstate(over="ignore"):  # too large for float32: infinite, and so refused
            return vectors.astype(np.float32)


def _embed_modality(
    samples: Sequence[Sample], runs: Sequence[_Run], pool: Workers, progress: Progress
) -> tuple[list[str], list[Skipped]]:
    """Content hash of each sample ("" where unusable), and the samples no encoder could use.

    The first run embeds samples as they are decoded; the others take them from memory, a chunk at a time, so that one
    model at a time is loaded and no file is decoded twice.
    """
    hashes = [""] * len(samples)
    unusable: list[Skipped] = []
    queued: set[str] = set()

    def read(item: tuple[int, Sample]) -> tuple[int, str, Any]:
        i, sample = item
        try:
            content = read_bytes(sample.path)
            content_hash = hashlib.sha256(content).hexdigest()
            wanted = content_hash not in queued and any(run.wants(content_hash) for run in runs)
            return i, content_hash, decode(content, sample.modality, sample.path.suffix) if wanted else None
        except UnusableSample as reason:
            return i, "", reason

    def decoded() -> Iterator[tuple[str, Any]]:
        for i, content_hash, found in _ahead(pool, read, enumerate(samples), runs[0]):
            hashes[i] = content_hash
            if isinstance(found, UnusableSample):
                one = samples[i]
                unusable.append(Skipped(one.modality, f"{one.identity}/{one.name}", str(found)))
            is_new = bool(content_hash) and content_hash not in queued and found is not None
            for run, task in zip(runs, tasks, strict=True):
                if not (is_new and run.wants(content_hash)):
                    task.advance()
            if is_new:
                queued.add(content_hash)
                yield content_hash, found

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


class _LateTask:
    """A task that opens when its encoder's turn comes, so that the time it tells of is that encoder's own."""

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
    source: Iterator[tuple[str, Any]], chunk: list[tuple[str, Any]], runs: Sequence[_Run]
) -> Iterator[tuple[str, Any]]:
    """Pass on what comes and keep in `chunk` what one of `runs` wants, until CHUNK_BYTES are kept."""
    n_bytes = 0
    for content_hash, sample in source:
        if any(run.wants(content_hash) for run in runs):
            chunk.append((content_hash, sample))
            n_bytes += sample.nbytes
        yield content_hash, sample
        if n_bytes >= CHUNK_BYTES:
            return


def _ahead(
    pool: Workers,
    function: Callable[[_In], _Out],
    items: Iterable[_In],
    run: _Run,
    wait: Callable[[Future[_Out]], _Out] = Future.result,
) -> Iterator[_Out]:
    """`map` over `items` in order, worked on ahead of time by the pool: at least as many as the next batch of `run`."""
    waiting: deque[Future[_Out]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > max(AHEAD * N_THREADS, run.batch_size or 0):
            yield wait(waiting.popleft())
    while waiting:
        yield wait(waiting.popleft())


def _is_out_of_memory(error: BaseException) -> bool:
    # torch on CUDA; torch on the CPU and onnxruntime; cuBLAS. They share no class.
    words = ("out of memory", "allocate memory", "alloc_failed")
    return isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in words)


def _named(error: BaseException) -> str:
    return str(error) if isinstance(error, EncoderFailed) else f"{type(error).__name__}: {error}"


def _assemble(
    encoder: Encoder,
    shelf: EmbeddingCache,
    reasons: Mapping[str, str],
    samples: Sequence[Sample],
    hashes: Sequence[str],
) -> tuple[Embeddings, tuple[Skipped, ...]]:
    used = [(s, vector) for s, h in zip(samples, hashes, strict=True) if h and (vector := shelf.get(h)) is not None]
    refused = tuple(
        Skipped(encoder.modality, f"{s.identity}/{s.name}", reasons[h], encoder.name)
        for s, h in zip(samples, hashes, strict=True)
        if h in reasons and shelf.get(h) is None
    )
    columns = sorted({name for s, _ in used for name in s.attributes})
    embeddings = Embeddings(
        encoder.name,
        encoder.modality,
        np.stack([v for _, v in used]) if used else np.empty((0, encoder.dim), np.float32),
        np.array([s.identity for s, _ in used], dtype=np.str_),
        np.array([s.name for s, _ in used], dtype=np.str_),
        {name: np.array([s.attributes.get(name, "") for s, _ in used], dtype=np.str_) for name in columns},
        describe(encoder),
        Traits(encoder.trained_on, encoder.identity_trained, encoder.space, encoder.flags),
    )
    embeddings, constant = keep_usable(embeddings)
    return embeddings, (*refused, *constant)
