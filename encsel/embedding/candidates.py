"""Which encoders take part, and their embeddings: read from files, taken from the set, or made from media."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from encsel.core import MODALITIES, Embeddings, Encoder, Modality, Runtime, Skipped, Spec
from encsel.data.calibration_set import CalibrationSet, check_skipped
from encsel.data.embedding_files import EMBEDDING_SUFFIXES, read_embeddings
from encsel.data.sampling import limit_rows
from encsel.embedding.embed import Embedded, Failure, embed
from encsel.errors import EncoderFailed, NotHere, UsageError, nearest
from encsel.loading.registry import checked_spec, encoder_families, open_encoders
from encsel.progress import Progress, Silent
from encsel.storage.cache import cache_root
from encsel.storage.signature import digest

Names = str | Sequence[str]


@dataclass
class _Candidates:
    """What was found so far: embeddings that exist, encoders that must run, and those that cannot."""

    ready: list[Embeddings] = field(default_factory=list)
    encoders: list[Encoder] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def names(self, modality: Modality) -> list[str]:
        """Names of all candidates of a modality, those that failed included."""
        return [name for m, name in self.usable if m == modality] + [
            f.encoder for f in self.failures if f.modality == modality
        ]

    @property
    def usable(self) -> list[tuple[Modality, str]]:
        """Modality and name of every candidate that has not failed."""
        return [(e.modality, e.name) for e in self.ready] + [(e.modality, e.name) for e in self.encoders]


def embeddings_of(
    calibration: CalibrationSet,
    faces: Names = (),
    voices: Names = (),
    *,
    runtime: Runtime | None = None,
    expect_best: str | None = None,
    progress: Progress | None = None,
) -> Embedded:
    """The embeddings of every candidate encoder.

    Args:
        faces, voices: encoders, or files of embeddings; empty: those of the set, else all that can run on this machine
            without a download.
        expect_best: FACE/VOICE that must be among the candidates.
    Raises:
        UsageError: unknown encoder, two encoders of one name, or the expected pair is not a candidate.
        EncoderFailed: no encoder of a modality could be opened, loaded and run.
    """
    runtime, progress = runtime or Runtime(), progress or Silent()
    candidates = _Candidates()
    for modality, asked in zip(MODALITIES, (faces, voices), strict=True):
        wanted = [asked] if isinstance(asked, str) else list(asked)
        in_set = [e.name for e in calibration.embeddings if e.modality == modality]
        if wanted or in_set:
            _add_named(candidates, calibration, modality, list(dict.fromkeys(wanted)) or in_set, runtime, progress)
        else:
            _add_all(candidates, modality, runtime, progress)
    if expect_best is not None:
        for modality, name in zip(MODALITIES, expect_best.split("/"), strict=True):
            check_expected(expect_best, modality, name, candidates.names(modality))
    for (modality, name), count in Counter(candidates.usable).items():
        if count > 1:
            raise UsageError(
                f"Two {modality} encoders are named {name!r}. Give one a name: ...@name=NAME, or rename its file."
            )
    return _embedded(candidates, calibration, runtime, progress)


def check_expected(expected: str, modality: Modality, name: str, candidates: Sequence[str]) -> None:
    """Raise UsageError unless the encoder of an expected pair is a candidate."""
    if name not in candidates:
        raise UsageError(f"--expect-best {expected}: no {modality} encoder {name!r}. {nearest(name, candidates)}")


def check_expected_early(expected: str, calibration: CalibrationSet, faces: Names, voices: Names) -> None:
    """Raise UsageError if it is clear before any encoder is opened that the expected pair is not a candidate."""
    for modality, asked, name in zip(MODALITIES, (faces, voices), expected.split("/"), strict=True):
        in_set = [e.name for e in calibration.embeddings if e.modality == modality]
        names = []
        for one in [asked] if isinstance(asked, str) else asked:
            if Path(one).suffix.lower() in EMBEDDING_SUFFIXES:
                names.append(Path(one).stem)
            elif one in in_set:
                names.append(one)
            else:
                spec = checked_spec(one, modality)
                if spec.options.get("layer") == "all":  # its names are known once it is opened
                    return
                names.append(spec.name)
        if names or in_set:
            check_expected(expected, modality, name, names or in_set)


def _add_named(
    candidates: _Candidates,
    calibration: CalibrationSet,
    modality: Modality,
    names: Sequence[str],
    runtime: Runtime,
    progress: Progress,
) -> None:
    """Add encoders by name: files of embeddings, embeddings of the set, or specs to be opened."""
    in_set = {e.name: e for e in calibration.embeddings if e.modality == modality}
    options = calibration.options
    specs = []
    for name in names:
        if Path(name).suffix.lower() in EMBEDDING_SUFFIXES:
            embeddings, unusable = read_embeddings(Path(name), modality)
            check_skipped(unusable, len(embeddings.labels) + len(unusable), options.max_skipped)
            if options.samples_per_identity is not None:
                embeddings = limit_rows(embeddings, options.samples_per_identity, seed=options.seed)
            candidates.ready.append(embeddings)
            candidates.skipped.extend(unusable)
        elif name in in_set:
            candidates.ready.append(in_set[name])
            candidates.skipped.extend(s for s in calibration.skipped if (s.modality, s.encoder) == (modality, name))
        elif calibration.samples:
            specs.append(checked_spec(name, modality))
        else:
            where = "The calibration set" if calibration.root is None else str(calibration.root)
            raise UsageError(
                f"{where} holds embeddings, and no {modality} encoder among them is named {name!r}. "
                f"{nearest(name, in_set)}"
            )
    for spec in specs:
        try:
            candidates.encoders.extend(open_encoders(spec, runtime))
        except EncoderFailed as error:
            # Results give only the last part of a folder, by which the encoder is named as well.
            folder = spec.checkpoint or ""
            reason = str(error).replace(folder, PurePath(folder).name or folder) if folder else str(error)
            candidates.failures.append(Failure(modality, spec.name, reason))
            progress.note(f"{spec.name} failed: {error}")


def _add_all(candidates: _Candidates, modality: Modality, runtime: Runtime, progress: Progress) -> None:
    """Add every encoder of a modality that needs no download: the default when none is named."""
    absent = []
    for family in encoder_families().values():
        if family.modality == modality:
            try:
                candidates.encoders.extend(open_encoders(Spec(family.name), replace(runtime, offline=True)))
            except NotHere:
                absent.append(family.name)
            except EncoderFailed as error:
                candidates.failures.append(Failure(modality, family.name, str(error)))
                progress.note(str(error))
    if absent:
        progress.note(
            f"Not on this machine and left out: {', '.join(absent)}. Name one with --{modality} to download and use it."
        )


def _embedded(candidates: _Candidates, calibration: CalibrationSet, runtime: Runtime, progress: Progress) -> Embedded:
    """Run the encoders that must run, and join everything."""
    sources = sorted([e.modality, e.name, e.provenance["sha256"]] for e in candidates.ready)
    data = digest(sources)
    embeddings, skipped, failures = list(candidates.ready), list(candidates.skipped), list(candidates.failures)
    if candidates.encoders:
        made = embed(
            calibration, candidates.encoders, cache=cache_root(runtime.cache, progress.note),
            max_skipped=calibration.options.max_skipped, batch_size=runtime.batch_size, timeout=runtime.timeout,
            progress=progress,
        )  # fmt: skip
        embeddings.extend(made.embeddings)
        failures.extend(made.failures)
        skipped = [*candidates.skipped, *made.skipped]
        data = digest([made.data_sha256, *sources]) if sources else made.data_sha256
    for modality in MODALITIES:
        if not any(e.modality == modality for e in embeddings):
            reasons = " ".join(f"{f.encoder}: {f.reason}" for f in failures if f.modality == modality)
            raise EncoderFailed(f"No {modality} encoder could be run. {reasons}")
    return Embedded(tuple(embeddings), tuple(skipped), data, tuple(failures))
