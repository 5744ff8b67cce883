"""Run encoders over a calibration set of media, and assemble what they make: every vector is cached."""

import contextlib
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from encsel.core import MODALITIES, Embeddings, Encoder, Failure, Part, Sample, SetOptions, Skipped, Traits
from encsel.data.arrays import keep_usable
from encsel.data.calibration_set import CalibrationSet, check_skipped, too_many_skipped
from encsel.data.ffmpeg import Ffmpeg, find_ffmpeg
from encsel.embedding.model_run import ModelRun, describe
from encsel.embedding.one_pass import embed_modality, skipped
from encsel.embedding.shards import embed_on_workers
from encsel.loading.deadline import Workers
from encsel.parallel.tasks import is_distributed
from encsel.progress import Progress, Silent
from encsel.storage.signature import digest


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
    devices: Sequence[str] = (),
    progress: Progress | None = None,
) -> Embedded:
    """Embed a set of media with every encoder of its modality. An encoder that fails does not stop the others.

    Every file is decoded once or, with several devices, once for each of them.

    Args:
        cache: folder of the embedding cache; None keeps nothing on disk.
        max_skipped: largest fraction of samples of a modality that no encoder can use.
        batch_size: samples per batch; None: 16, or 64 on a GPU. Halved when memory runs out.
        timeout: seconds an encoder may take to load and to embed, not counting reading files; None: no limit. An
            encoder that takes longer fails; its thread cannot be stopped and is abandoned.
        devices: encoders of a modality run side by side on these, one at a time on each, taking turns in their order.
            Those that run in this process stay on the device that they were opened for.
    Raises:
        BadCalibration: more unusable samples than `max_skipped`.
    """
    progress = progress or Silent()
    ffmpeg = find_ffmpeg() if calibration.options.ffmpeg else None
    made: list[Embeddings] = []
    left_out: list[Skipped] = []
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
        of_devices = [_on(devices[k % len(devices)], g) if devices else g for k, g in enumerate(groups.values())]
        runs = [ModelRun(g, [describe(e, *how) for e in g], cache, batch_size, timeout) for g in of_devices]
        # Some models print, and stdout is for results. Once, not per call: threads would undo each other's redirection.
        with contextlib.redirect_stdout(sys.stderr):
            try:
                if is_distributed():
                    hashes, unusable = embed_on_workers(samples, runs, calibration.options, cache, progress)
                else:
                    parts = [runs[k :: len(devices)] for k in range(min(len(devices), len(runs)))] or [runs]
                    hashes, unusable = _embed_side_by_side(samples, parts, how, progress)
            finally:
                for run in runs:  # keep finished vectors after Ctrl-C and errors
                    run.close()
        for run in runs:
            run.report(progress)
            on_gpu |= run.on_gpu
        check_skipped(unusable, len(samples), max_skipped)
        left_out.extend(unusable)
        contents.extend([modality, s.identity, h] for s, h in zip(samples, hashes, strict=True) if h)
        for run in runs:
            if run.failure is not None:
                failures.extend(Failure(modality, encoder.name, run.failure) for encoder in run.encoders)
                continue
            for i, encoder in enumerate(run.encoders):
                embeddings, refused = _assembled(run, i, samples, hashes)
                left_out.extend(refused)
                if reason := too_many_skipped(refused, len(samples), max_skipped):
                    failures.append(Failure(modality, encoder.name, reason))
                else:
                    made.append(embeddings)
    return Embedded(tuple(made), tuple(left_out), digest(sorted(contents)), tuple(failures), on_gpu)


def _on(device: str, encoders: Sequence[Encoder]) -> list[Encoder]:
    """Encoders, to be run on a device."""
    return [e if e.runtime is None else replace(e, runtime=replace(e.runtime, device=device)) for e in encoders]


def _embed_side_by_side(
    samples: Sequence[Sample],
    parts: Sequence[Sequence[ModelRun]],
    how: tuple[Part, Ffmpeg | None],
    progress: Progress,
) -> tuple[list[str], list[Skipped]]:
    """As `embed_modality`, with each part of the runs in a thread of its own."""

    if len(parts) == 1:
        return embed_modality(samples, parts[0], how, progress)
    with Workers(len(parts)) as threads:
        futures = [threads.submit(embed_modality, samples, runs, how, progress) for runs in parts]
        results = [future.result() for future in futures]
    # A part decodes only what it wants: what one finds unusable is so for all.
    unusable = {s.sample: s for _, found in results for s in found}
    hashes = [of_parts[0] if all(of_parts) else "" for of_parts in zip(*(h for h, _ in results), strict=True)]
    return hashes, [unusable[name] for s in samples if (name := f"{s.identity}/{s.name}") in unusable]


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
            refused.append(skipped(sample, run.refused[content_hash], encoder.name))
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
