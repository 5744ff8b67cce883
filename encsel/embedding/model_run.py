"""One model during one run: embeds the samples it lacks, in batches that fit the memory."""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from encsel.core import Encoder, Part, Vectors
from encsel.data.ffmpeg import Ffmpeg
from encsel.data.media import decoding
from encsel.embedding.engines import Engine, check_files, engine_of
from encsel.embedding.worker import named, out_of_memory
from encsel.errors import EncoderFailed, UnusableSample
from encsel.loading.deadline import Deadline, OutOfTime, Workers
from encsel.progress import Progress, Task
from encsel.storage.cache import EmbeddingCache
from encsel.storage.signature import library_versions

BATCH_ON_CPU, BATCH_ON_GPU = 16, 64
N_THREADS = min(8, os.cpu_count() or 1)
AHEAD = 4
"""Samples read, decoded or prepared ahead of the model, per thread; at least a batch."""
AHEAD_BYTES = 96 << 20
"""Bytes of decoded samples that wait for the model to be prepared, or for their turn."""
BATCH_BYTES = 256 << 20
"""Bytes of prepared samples that end a batch: encoders without `prepare` take images of any size."""
LENGTH_STEP = 4000
"""Clips in a padded batch differ by less than this many values, a quarter of a second."""
REFUSED = "the encoder could not use it"
N_CHECKED = 4
"""Number of samples that are embedded twice, to see whether their vectors depend on anything else; 0: none."""
TOLERANCE, COARSE = 0.01, 0.05
"""Largest relative difference of a vector between batches, in float32 and in shorter types."""
NOT_REPEATABLE = "not repeatable: the same samples give different vectors the second time"
BATCH_DEPENDENT = "dependent on its batch: a sample gives a different vector among other samples"
DECODING_LIBRARIES = {"face": ("Pillow",), "voice": ("soundfile", "soxr")}

LOGGER = logging.getLogger(__name__)
_In = TypeVar("_In")
_Out = TypeVar("_Out")


def describe(encoder: Encoder, part: Part = "first", ffmpeg: Ffmpeg | None = None) -> dict[str, Any]:
    """Everything about an encoder that can change its vectors: the cache key, and its entry in the signature."""
    return {
        # The family, because a candidate's name does not change its vectors.
        "name": encoder.family,
        "modality": encoder.modality,
        "version": encoder.version,
        "dim": encoder.dim,
        "revision": encoder.revision,
        "weights": dict(encoder.weights),
        **{part: dict(value) for part, value in (("files", encoder.files), ("code", encoder.code)) if value},
        "preprocessing": dict(encoder.preprocessing),
        "decoding": decoding(encoder.modality, part, ffmpeg),
        "libraries": library_versions((*DECODING_LIBRARIES[encoder.modality], *encoder.libraries)),
    }


class ModelRun:
    """One model during one run: the cache of each encoder it serves, and the model once a sample needs it.

    Args:
        descriptions: those of the encoders by `describe`.
        sent_from: current folder of the process that opened the encoders, if it is another one. That process has read
            the cache, so this one only writes it.
    """

    def __init__(
        self,
        encoders: Sequence[Encoder],
        descriptions: Sequence[Mapping[str, Any]],
        cache: Path | None,
        batch_size: int | None,
        timeout: float | None,
        *,
        sent_from: Path | None = None,
    ) -> None:
        self.encoders, self.descriptions = encoders, descriptions
        cache = cache if all(e.is_cached for e in encoders) else None
        self.caches = [
            EmbeddingCache(cache, d, e.dim, read=sent_from is None) for e, d in zip(encoders, descriptions, strict=True)
        ]
        self._folder = sent_from
        self.refused: dict[str, str] = {}
        self.failure: str | None = None
        self.batch_size = batch_size
        self.remarks: tuple[str, ...] = ()
        self.on_gpu = False
        self.timeout = timeout
        self._deadline = Deadline(timeout)
        self._engine: Engine | None = None
        self._is_checked = N_CHECKED == 0

    @property
    def label(self) -> str:
        return self.encoders[0].name if len(self.encoders) == 1 else f"{self.encoders[0].family} x{len(self.encoders)}"

    def wants(self, content_hash: str) -> bool:
        if self.failure is not None or content_hash in self.refused:
            return False
        return any(cached.get(content_hash) is None for cached in self.caches)

    def consume(self, decoded: Iterable[tuple[str, Any]], pool: Workers, task: Task) -> None:
        """Embed decoded samples by content hash as they come; after a failure, skip the rest."""
        try:
            self._consume(decoded, pool, task)
        except OutOfTime as error:  # while samples were prepared, in threads of the pool
            self._fail(error)
            pool.reinforce()
            for _ in decoded:
                pass

    def _consume(self, decoded: Iterable[tuple[str, Any]], pool: Workers, task: Task) -> None:
        waiting: dict[Any, list[tuple[str, Vectors]]] = {}
        wanted = self._wanted(decoded)
        ahead = in_order(pool, self._prepare, wanted, self, self._deadline.result, lambda item: item[1].nbytes)
        for content_hash, kind, prepared in ahead:
            if isinstance(prepared, UnusableSample):
                self.refused[content_hash] = str(prepared)
                task.advance()
                continue
            bucket = waiting.setdefault(kind, [])
            bucket.append((content_hash, prepared))
            if len(bucket) >= self._size() or sum(getattr(one, "nbytes", 0) for _, one in bucket) > BATCH_BYTES:
                self._embed(bucket, task)
                bucket.clear()
        for bucket in waiting.values():
            if bucket:
                self._embed(bucket, task)

    def _wanted(self, decoded: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """The samples that this run lacks; the first one loads the model."""
        for content_hash, sample in decoded:
            if self.wants(content_hash):
                if self._engine is None:
                    self._load()
                yield content_hash, sample

    def _load(self) -> None:
        encoder, started = self.encoders[0], time.monotonic()
        try:
            self._engine = engine_of(encoder, 1 + max(e.tap for e in self.encoders), N_THREADS, self._folder)
            self._deadline.call(self._engine.load)
            # A file that changed since it was hashed may not be the one that was loaded.
            check_files(encoder, self._folder)
            self.on_gpu = self._engine.on_gpu
            LOGGER.info("%s: loaded in %.1f s", self.label, time.monotonic() - started)
        except (Exception, SystemExit) as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Abandon the encoder, for the first reason: later ones may follow from it."""
        if self.failure is None:
            self.failure = named(error)
            LOGGER.debug("%s failed", self.label, exc_info=error)
            engine, self._engine = self._engine, None
            if engine is not None:
                engine.close()

    def close(self) -> None:
        """Free the model: the next one may need its memory."""
        self.flush()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        self._deadline.close()

    def flush(self) -> None:
        for cached in self.caches:
            cached.flush()

    def report(self, progress: Progress) -> None:
        """Report damaged files, failed writes and a failure."""
        if n_damaged := sum(cached.n_damaged for cached in self.caches):
            progress.note(f"{n_damaged} damaged cache files of {self.label} were removed and rebuilt.")
        if errors := {cached.write_error for cached in self.caches if cached.write_error}:
            reasons = ", ".join(sorted(errors))
            progress.note(f"Embeddings of {self.label} were not cached: {reasons}. Choose another --cache.")
        for remark in self.remarks:
            progress.note(f"{self.label}: {remark}; its embeddings are not cached.")
        if self.failure is not None:
            progress.note(f"{self.label} failed: {self.failure}", in_result=True)

    def _prepare(self, item: tuple[str, Any]) -> tuple[str, Any, Vectors | UnusableSample]:
        """Content hash, the kind of batch it belongs to, and the prepared sample or why it cannot be used."""
        content_hash, sample = item
        engine = self._engine
        if engine is None or self.failure is not None:
            return content_hash, None, UnusableSample("not tried")
        try:
            prepared = engine.prepare(sample)
            return content_hash, self._bucket(prepared), prepared
        except UnusableSample as reason:
            return content_hash, None, reason
        except (Exception, SystemExit) as error:
            self._fail(error)
            return content_hash, None, UnusableSample("not tried")

    def _size(self) -> int:
        if self.batch_size is None:
            self.batch_size = BATCH_ON_GPU if self.on_gpu else BATCH_ON_CPU
        return self.batch_size

    def _bucket(self, prepared: Vectors) -> Any:
        if self.encoders[0].modality == "face" or self.encoders[0].equal_lengths:
            return np.shape(prepared) if self.encoders[0].equal_lengths else None
        # Batch clips of similar length: little padding, and batches do not depend on the order of files.
        return -(-len(prepared) // LENGTH_STEP)

    def _embed(self, batch: Sequence[tuple[str, Vectors]], task: Task) -> None:
        """Embed one batch; if memory runs out, halve it, and the batches that follow."""
        while batch and self.failure is None:
            part, rest = batch[: self._size()], batch[self._size() :]
            samples = [prepared for _, prepared in part]
            try:
                vectors = self._call(samples)
                if not self._is_checked:
                    self._check(samples, vectors)
            except (Exception, SystemExit) as error:
                if out_of_memory(error) and len(part) > 1:
                    self.batch_size = len(part) // 2
                else:
                    self._fail(error)
                continue
            if self._engine is not None:
                self._engine.drop(samples)
            usable = [bool(np.isfinite(vector).all()) for vector in vectors]
            for encoder, cached in zip(self.encoders, self.caches, strict=True):
                made = {h: vectors[i, encoder.tap].copy() for i, (h, _) in enumerate(part) if usable[i]}
                cached.put({h: vector for h, vector in made.items() if cached.get(h) is None})
            self.refused |= {h: REFUSED for i, (h, _) in enumerate(part) if not usable[i]}
            task.advance(len(part))
            batch = rest

    def _check(self, samples: list[Any], vectors: Vectors) -> None:
        """Embed a few samples again, and one of them alone: a vector must depend only on its sample."""
        few = samples[:N_CHECKED]
        again, alone = self._call(few), self._call(few[:1])
        self._is_checked = True
        tolerance = TOLERANCE if self.encoders[0].preprocessing.get("dtype", "float32") == "float32" else COARSE
        if _differ(again, vectors[: len(few)], tolerance) or _differ(again[:1], alone, tolerance):
            repeats = not _differ(again, self._call(few), tolerance)
            self.remarks = (BATCH_DEPENDENT if repeats else NOT_REPEATABLE,)
        if self.remarks:
            # The next run must find it, too.
            self.caches = [EmbeddingCache(None, {}, e.dim) for e in self.encoders]

    def _call(self, batch: list[Any]) -> Vectors:
        if self._engine is None:
            raise EncoderFailed(self.failure or "it is closed")
        vectors = self._deadline.call(self._engine.embed, batch)
        with np.errstate(over="ignore"):  # too large for float32: becomes infinite and is refused
            return vectors.astype(np.float32)


def in_order(
    pool: Workers,
    function: Callable[[_In], _Out],
    items: Iterable[_In],
    run: ModelRun,
    wait: Callable[[Future[_Out]], _Out] = Future.result,
    size: Callable[[_In], int] = lambda item: 0,
) -> Iterator[_Out]:
    """`map` over `items` in order; the pool works ahead by at least a batch of `run`, or AHEAD_BYTES of large items."""
    waiting: deque[tuple[Future[_Out], int]] = deque()
    n_bytes = 0
    for item in items:
        waiting.append((pool.submit(function, item), size(item)))
        n_bytes += waiting[-1][1]
        del item  # else a large one stays in memory
        while len(waiting) > max(AHEAD * N_THREADS, run.batch_size or 0) or (n_bytes > AHEAD_BYTES and waiting):
            future, n = waiting.popleft()
            n_bytes -= n
            yield wait(future)
    while waiting:
        yield wait(waiting.popleft()[0])


def _differ(x: Vectors, y: Vectors, tolerance: float) -> bool:
    """Whether a vector of x differs from that of y by more than a fraction of its length; NaN equals NaN."""
    x, y = np.nan_to_num(x.astype(np.float64)), np.nan_to_num(y.astype(np.float64))
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.maximum(np.linalg.norm(x, axis=-1), np.linalg.norm(y, axis=-1))
        return bool((np.linalg.norm(x - y, axis=-1) > tolerance * lengths).any())
