"""Runs encoders over a calibration set of media: every file is read and decoded once, every vector cached."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encsel.cache import Shelf
from encsel.calibration import MAX_SKIPPED, Calibration, check_skipped
from encsel.core import MODALITIES, EmbedBatch, Embeddings, EncoderFamily, Modality, Sample, Skipped, Vectors
from encsel.errors import EncoderFailed
from encsel.media import DECODING, UnusableSample, decode, read_bytes
from encsel.progress import Progress, Silent
from encsel.signature import digest
from encsel.vectors import keep_usable

BATCH = 32


@dataclass(frozen=True)
class Embedded:
    """The embeddings of every encoder asked for, what was skipped, and a hash of the content they were made from."""

    embeddings: tuple[Embeddings, ...]
    skipped: tuple[Skipped, ...]
    data_sha256: str


def embed(
    calibration: Calibration,
    families: Sequence[EncoderFamily],
    *,
    cache: Path | None = None,
    max_skipped: float = MAX_SKIPPED,
    progress: Progress | None = None,
) -> Embedded:
    """Embed a set of media with every encoder of its modality.

    Args:
        cache: folder of the embedding cache; None keeps nothing on disk.
        max_skipped: largest share of samples of a modality that may be unusable, for all or for one encoder.
    Raises:
        BadCalibration: more unusable samples than that.
        EncoderFailed: an encoder cannot be loaded or run, or returns another shape than it declares.
    """
    progress = progress or Silent()
    made: list[Embeddings] = []
    skipped: list[Skipped] = []
    contents: list[list[str]] = []
    for modality in MODALITIES:
        runs = [_Run(family, cache) for family in families if family.modality == modality]
        if not runs:  # the other modality comes from files of embeddings
            continue
        samples = [s for s in calibration.samples if s.modality == modality]
        try:
            hashes, unusable = _embed_modality(samples, runs, modality, progress)
        finally:
            for run in runs:  # Ctrl-C and errors keep what was done
                run.shelf.flush()
        for run in runs:
            _tell(run, progress)
        totals: dict[Modality, int] = dict.fromkeys(MODALITIES, len(samples))
        check_skipped(unusable, totals, max_skipped)
        skipped.extend(unusable)
        contents.extend([modality, s.identity, h] for s, h in zip(samples, hashes, strict=True) if h)
        for run in runs:
            embeddings, refused = _assemble(run, samples, hashes)
            check_skipped([*unusable, *refused], totals, max_skipped)
            made.append(embeddings)
            skipped.extend(refused)
    return Embedded(tuple(made), tuple(skipped), digest(sorted(contents)))


def describe(family: EncoderFamily) -> dict[str, Any]:
    """Everything about an encoder that can change its vectors: the cache key, and its entry in the signature."""
    return {
        "name": family.name,
        "modality": family.modality,
        "version": family.version,
        "dim": family.dim,
        "preprocessing": dict(family.preprocessing),
        "decoding": DECODING[family.modality],
    }


class _Run:
    """One encoder during one run: its cached vectors, and its model once the first sample needs it."""

    def __init__(self, family: EncoderFamily, cache: Path | None) -> None:
        self.family = family
        self.shelf = Shelf(cache, describe(family), family.dim)
        self.refused: set[str] = set()
        self._embed: EmbedBatch | None = None

    def wants(self, content_hash: str) -> bool:
        return self.shelf.get(content_hash) is None and content_hash not in self.refused

    def feed(self, decoded: dict[str, Any]) -> None:
        """Embed decoded samples by content hash, cache the vectors, remember those the encoder could not use."""
        made = dict(zip(decoded, self._call(list(decoded.values())), strict=True))
        usable = {content_hash: vector for content_hash, vector in made.items() if np.isfinite(vector).all()}
        self.shelf.put(usable)
        self.refused.update(made.keys() - usable.keys())

    def _call(self, batch: list[Any]) -> Vectors:
        name = self.family.name
        try:
            with contextlib.redirect_stdout(sys.stderr):  # some models print; stdout is for results
                if self._embed is None:
                    self._embed = self.family.load()
                vectors = np.asarray(self._embed(batch))
        except EncoderFailed:
            raise
        except Exception as error:
            raise EncoderFailed(f"The encoder {name} failed: {type(error).__name__}: {error}") from error
        if vectors.shape != (len(batch), self.family.dim) or vectors.dtype.kind != "f":
            raise EncoderFailed(
                f"The encoder {name} returned {vectors.dtype} of shape {vectors.shape} for {len(batch)} samples; "
                f"floats of shape ({len(batch)}, {self.family.dim}) were declared. Repair the encoder."
            )
        with np.errstate(over="ignore"):  # too large for float32: infinite, and so refused
            return vectors.astype(np.float32)


def _embed_modality(
    samples: Sequence[Sample], runs: Sequence[_Run], modality: Modality, progress: Progress
) -> tuple[list[str], list[Skipped]]:
    """Content hash of each sample ("" where unusable), and the samples no encoder could use."""
    hashes: list[str] = []
    unusable: list[Skipped] = []
    names = ", ".join(run.family.name for run in runs)
    with progress.task(f"{modality}s with {names}", len(samples)) as task:
        for start in range(0, len(samples), BATCH):
            pending: dict[str, Any] = {}
            for sample in samples[start : start + BATCH]:
                try:
                    content = read_bytes(sample.path)
                    content_hash = hashlib.sha256(content).hexdigest()
                    if content_hash not in pending and any(run.wants(content_hash) for run in runs):
                        pending[content_hash] = decode(content, modality, sample.path.suffix)
                    hashes.append(content_hash)
                except UnusableSample as reason:
                    hashes.append("")
                    unusable.append(Skipped(modality, f"{sample.identity}/{sample.name}", str(reason)))
            for run in runs:
                wanted = {h: decoded for h, decoded in pending.items() if run.wants(h)}
                if wanted:
                    run.feed(wanted)
            task.advance(len(samples[start : start + BATCH]))
    return hashes, unusable


def _assemble(run: _Run, samples: Sequence[Sample], hashes: Sequence[str]) -> tuple[Embeddings, tuple[Skipped, ...]]:
    family = run.family
    used = [(s, vector) for s, h in zip(samples, hashes, strict=True) if h and (vector := run.shelf.get(h)) is not None]
    refused = tuple(
        Skipped(family.modality, f"{s.identity}/{s.name}", "the encoder could not use it", family.name)
        for s, h in zip(samples, hashes, strict=True)
        if h in run.refused
    )
    columns = sorted({name for s, _ in used for name in s.attributes})
    embeddings = Embeddings(
        family.name,
        family.modality,
        np.stack([v for _, v in used]) if used else np.empty((0, family.dim), np.float32),
        np.array([s.identity for s, _ in used], dtype=np.str_),
        np.array([s.name for s, _ in used], dtype=np.str_),
        {name: np.array([s.attributes.get(name, "") for s, _ in used], dtype=np.str_) for name in columns},
        describe(family),
    )
    embeddings, constant = keep_usable(embeddings)
    return embeddings, (*refused, *constant)


def _tell(run: _Run, progress: Progress) -> None:
    if run.shelf.n_damaged:
        progress.note(f"{run.shelf.n_damaged} damaged cache files of {run.family.name} were dropped and made again.")
    if run.shelf.write_error:
        progress.note(f"Embeddings of {run.family.name} were not cached: {run.shelf.write_error}.")
