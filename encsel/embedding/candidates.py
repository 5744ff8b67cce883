"""Which encoders take part, and their embeddings: read from files, taken from the set, or made from media."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from encsel.core import MODALITIES, Embeddings, Encoder, Failure, Modality, Runtime, Skipped, Spec
from encsel.data.arrays import with_normal_labels
from encsel.data.calibration_set import CalibrationSet, too_many_skipped
from encsel.data.embedding_files import EMBEDDING_SUFFIXES, is_of_shards, name_of, read_embeddings
from encsel.data.ffmpeg import find_ffmpeg
from encsel.data.sampling import limit_rows
from encsel.embedding.embed import Embedded, embed
from encsel.errors import BadCalibration, EncoderFailed, NotHere, UsageError, nearest
from encsel.loading.functions import FunctionEncoder, as_function, from_python
from encsel.loading.registry import checked_spec, encoder_families, open_encoders
from encsel.loading.spec import is_hub_id, namesake
from encsel.progress import Progress, Silent
from encsel.storage.cache import cache_root
from encsel.storage.signature import digest

Names = str | Callable[..., Any] | FunctionEncoder | Sequence[str | Callable[..., Any] | FunctionEncoder]
"""Encoders by name, files of embeddings, and Python functions or torch modules, in a FunctionEncoder or alone."""


def embeddings_of(
    calibration: CalibrationSet,
    faces: Names = (),
    voices: Names = (),
    *,
    runtime: Runtime | None = None,
    expect_best: str | None = None,
    progress: Progress | None = None,
    check: Callable[[int, int], None] | None = None,
) -> Embedded:
    """The embeddings of every candidate encoder.

    Args:
        faces, voices: encoders, or files of embeddings; empty: those of the set, else all that can run without a
            download.
        expect_best: FACE/VOICE that must be among the candidates.
        check: called with the numbers of face and voice encoders before any of them runs.
    Raises:
        UsageError: unknown encoder, two encoders with the same name, or the expected pair is not a candidate.
        EncoderFailed: no encoder of a modality could be opened, loaded and run.
    """
    runtime, progress = runtime or Runtime(), progress or Silent()
    if calibration.options.ffmpeg and calibration.samples:  # before anything is downloaded
        find_ffmpeg()
    candidates = _Candidates(calibration, runtime, progress)
    for modality, asked in zip(MODALITIES, (faces, voices), strict=True):
        names = _listed(asked) or _names_in(calibration, modality)
        if names:
            candidates.add_named(modality, names)
        else:
            candidates.add_all(modality)
    usable = [(e.modality, e.name) for e in candidates.ready] + [(e.modality, e.name) for e in candidates.encoders]
    if expect_best is not None:
        failed = [*candidates.failures, *candidates.unusable]
        named = [*usable, *((f.modality, f.encoder) for f in failed)]
        for modality, name in zip(MODALITIES, expect_best.split("/"), strict=True):
            check_expected("--expect-best", expect_best, modality, name, [n for m, n in named if m == modality])
    for (modality, name), count in Counter(usable).items():
        if count > 1:
            raise UsageError(
                f"Two {modality} encoders are named {name!r}. Give one a name: ...@name=NAME, or rename its file."
            )
    if check is not None:
        check(*(sum(m == modality for m, _ in usable) for modality in MODALITIES))
    return candidates.embedded()


def _names_in(calibration: CalibrationSet, modality: Modality) -> list[str]:
    """Encoders whose embeddings the set holds, those that failed last."""
    return [
        *(e.name for e in calibration.embeddings if e.modality == modality),
        *(f.encoder for f in calibration.failures if f.modality == modality),
    ]


def names_embeddings(text: str) -> bool:
    """Whether a text names a file of embeddings or, by a path, a folder of shards, and no encoder."""
    path = Path(text)
    if path.suffix.lower() in EMBEDDING_SUFFIXES:
        return True
    try:
        return "/" in text.replace(os.sep, "/") and not is_hub_id(text) and path.is_dir() and is_of_shards(path)
    except OSError:  # a folder that cannot be read
        return False


def _listed(names: Names) -> list[Any]:
    """Each of them once."""
    listed: list[Any] = []
    for name in names if isinstance(names, Sequence) and not isinstance(names, str) else [names]:
        if name not in listed:
            listed.append(name)
    return listed


def check_expected(option: str, expected: str, modality: Modality, name: str, candidates: Sequence[str]) -> None:
    """Raise UsageError unless the encoder of the pair that an option names is a candidate."""
    if name not in candidates:
        raise UsageError(f"{option} {expected}: no {modality} encoder {name!r}. {nearest(name, candidates)}")


def check_asked(calibration: CalibrationSet, faces: Names, voices: Names, pairs: Mapping[str, str | None]) -> None:
    """Raise UsageError, before any encoder is opened, if an encoder does not exist or a pair is malformed.

    Args:
        pairs: FACE/VOICE by the option that names it, or None.
    """
    candidates = [_asked_for(calibration, m, asked) for m, asked in zip(MODALITIES, (faces, voices), strict=True)]
    for option, pair in pairs.items():
        if pair is None:
            continue
        if len(names := pair.split("/")) != 2:
            raise UsageError(f"{option} is {pair!r}; a pair is needed, as FACE/VOICE.")
        for modality, name, known in zip(MODALITIES, names, candidates, strict=True):
            if known:
                check_expected(option, pair, modality, name, known)


def _asked_for(calibration: CalibrationSet, modality: Modality, asked: Names) -> list[str]:
    """The names of the candidates of a modality; empty if they are not known before these are opened."""
    in_set, names, certain = _names_in(calibration, modality), [], True
    for given in _listed(asked):
        if not isinstance(given, str):  # its name is known when it is opened
            certain = False
        elif names_embeddings(given):
            names.append(name_of(Path(given)))
        elif given in in_set:
            names.append(given)
        elif calibration.samples:
            spec = checked_spec(given, modality)
            names.append(spec.name)
            certain = certain and spec.options.get("layer") != "all"
        else:
            raise UsageError(_not_in(calibration, modality, given))
    return (names or in_set) if certain else []


def _not_in(calibration: CalibrationSet, modality: Modality, name: str) -> str:
    return (
        f"{calibration.root or 'The calibration set'} holds embeddings, and no {modality} encoder among them is named "
        f"{name!r}. {nearest(name, _names_in(calibration, modality))}"
    )


@dataclass
class _Candidates:
    """The candidates so far: existing embeddings, encoders that must run, and failures."""

    calibration: CalibrationSet
    runtime: Runtime
    progress: Progress
    ready: list[Embeddings] = field(default_factory=list)
    encoders: list[Encoder] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    unusable: list[Failure] = field(default_factory=list)

    @property
    def opening(self) -> Runtime:
        """The runtime to open encoders with, which are moved to other devices later."""
        return replace(self.runtime, device=self.runtime.devices[0])

    def add_named(self, modality: Modality, names: Sequence[Any]) -> None:
        """Add encoders: files of embeddings, embeddings of the set, specs to open, functions."""
        calibration, options = self.calibration, self.calibration.options
        in_set = {e.name: e for e in calibration.embeddings if e.modality == modality}
        failed = {f.encoder: f for f in calibration.failures if f.modality == modality}
        specs = []
        for name in names:
            if not isinstance(name, str):
                self.add_function(modality, name)
            elif names_embeddings(name):
                embeddings, unusable = read_embeddings(Path(name), modality)
                n_rows = len(embeddings.labels) + len(unusable)
                if reason := too_many_skipped(unusable, n_rows, options.max_skipped):
                    self.add_unusable(Failure(modality, embeddings.name, reason))
                    continue
                embeddings = with_normal_labels(embeddings)
                if options.samples_per_identity is not None:
                    embeddings = limit_rows(embeddings, options.samples_per_identity, seed=options.seed)
                self.ready.append(embeddings)
                self.skipped.extend(unusable)
            elif name in in_set:
                self.ready.append(in_set[name])
                self.skipped.extend(s for s in calibration.skipped if (s.modality, s.encoder) == (modality, name))
            elif name in failed:
                self.add_unusable(failed[name])
            elif calibration.samples:
                specs.append(checked_spec(name, modality))
                if note := namesake(specs[-1], modality):
                    self.progress.note(note)
            else:
                raise UsageError(_not_in(calibration, modality, name))
        if not specs:
            return
        # Weights are downloaded and hashed.
        with self.progress.task(f"opening {modality} encoders", len(specs)) as task:
            for spec in specs:
                self.add_spec(modality, spec)
                task.advance()

    def add_spec(self, modality: Modality, spec: Spec) -> None:
        """Open the encoders of a spec."""
        try:
            self.encoders.extend(open_encoders(spec, self.opening))
        except EncoderFailed as error:
            # Results contain only the last part of a folder, as the name of the encoder does.
            folder = "" if spec.checkpoint is None or is_hub_id(spec.checkpoint) else spec.checkpoint
            reason = str(error).replace(folder, PurePath(folder).name or folder) if folder else str(error)
            self.failures.append(Failure(modality, spec.name, reason))
            self.progress.note(f"{spec.name} failed: {error}", in_result=True)

    def add_function(self, modality: Modality, given: Any) -> None:
        """Add a function that was given from Python."""
        if not self.calibration.samples:
            raise UsageError(
                f"{self.calibration.root or 'The calibration set'} holds embeddings, so a function has no samples to "
                "run on."
            )
        try:
            self.encoders.append(from_python(given, modality, self.opening))
        except EncoderFailed as error:
            self.failures.append(Failure(modality, as_function(given, "").name or type(given).__name__, str(error)))
            self.progress.note(str(error), in_result=True)

    def add_unusable(self, failure: Failure) -> None:
        """Leave embeddings out and say why."""
        self.unusable.append(failure)
        self.progress.note(f"{failure.encoder} failed: {failure.reason}", in_result=True)

    def add_all(self, modality: Modality) -> None:
        """Add every encoder of a modality that needs no download, the default if none is named."""
        absent = []
        for family in encoder_families():
            if family.modality == modality and family.has_default:
                try:
                    spec = Spec(family.name, modality=modality)
                    self.encoders.extend(open_encoders(spec, replace(self.opening, offline=True)))
                except NotHere:
                    absent.append(family.name)
                except EncoderFailed as error:
                    self.failures.append(Failure(modality, family.name, str(error)))
                    self.progress.note(str(error), in_result=True)
        if absent:
            self.progress.note(
                f"Not on this machine and left out: {', '.join(absent)}. Name one with --{modality} to download and "
                "use it."
            )

    def embedded(self) -> Embedded:
        """Run the encoders that must run, and collect all embeddings."""
        sources = sorted([e.modality, e.name, e.provenance["sha256"]] for e in self.ready)
        data = digest(sources)
        embeddings, skipped, failures = list(self.ready), list(self.skipped), [*self.failures, *self.unusable]
        on_gpu = False
        if self.encoders:
            made = embed(
                self.calibration, self.encoders, cache=cache_root(self.runtime.cache, self.progress.note),
                max_skipped=self.calibration.options.max_skipped, batch_size=self.runtime.batch_size,
                timeout=self.runtime.timeout, devices=self.runtime.devices, progress=self.progress,
            )  # fmt: skip
            embeddings += made.embeddings
            failures += made.failures
            skipped += made.skipped
            on_gpu = made.on_gpu
            data = digest([made.data_sha256, *sources]) if sources else made.data_sha256
        for modality in MODALITIES:
            if not any(e.modality == modality for e in embeddings):
                failed = [f for f in failures if f.modality == modality]
                reasons = " ".join(f"{f.encoder}: {f.reason}" for f in failed)
                if failed and all(f in self.unusable for f in failed):
                    raise BadCalibration(f"No {modality} embeddings can be used. {reasons}")
                raise EncoderFailed(f"No {modality} encoder could be run. {reasons}")
        return Embedded(tuple(embeddings), tuple(skipped), data, tuple(failures), on_gpu)
