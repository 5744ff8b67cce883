"""A calibration set: the same people in face and voice, checked once, joined by identity."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from encsel.core import MODALITIES, Embeddings, Modality, Sample, Skipped
from encsel.data import embedding_files as vectors
from encsel.data import layouts
from encsel.data.sampling import limit_rows, pick
from encsel.errors import BadCalibration, UsageError

MAX_SKIPPED = 0.05


@dataclass(frozen=True)
class Calibration:
    """What was found on disk, before any encoder ran.

    Attributes:
        layout: which layout was recognised, in words.
        identities: people with samples in both modalities, sorted.
        samples: media files of these people; empty when the set holds embeddings.
        embeddings: ready embeddings of these people; empty when the set holds media.
        skipped: rows of embedding files that could not be used.
        notes: what the user should know about the set, names of people left out.
        details: the names, for the user's own eyes.
    """

    root: Path
    layout: str
    identities: tuple[str, ...]
    samples: tuple[Sample, ...] = ()
    embeddings: tuple[Embeddings, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)
    details: tuple[str, ...] = field(default_factory=tuple)


def open_calibration(
    root: Path,
    *,
    identities: int | None = None,
    samples_per_identity: int | None = None,
    seed: int = 0,
    max_skipped: float = MAX_SKIPPED,
    allow_outside: bool = False,
) -> Calibration:
    """Recognise the layout of `root` and list its samples, or load its embeddings.

    Args:
        root: a folder, or a manifest CSV.
        identities: keep this many people, chosen by `seed`.
        samples_per_identity: keep at most this many samples a person and modality, chosen by `seed`.
        max_skipped: largest share of unusable rows in an embeddings file.
        allow_outside: follow paths of a manifest that lead out of its folder. Links inside it are always followed.
    Raises:
        BadCalibration: missing, unknown layout, one modality missing, no common identities, too many unusable rows, or
            a path out of the manifest's folder.
        UsageError: `identities` or `samples_per_identity` is under 1.
    """
    for option, value in (("--identities", identities), ("--samples-per-identity", samples_per_identity)):
        if value is not None and value < 1:
            raise UsageError(f"{option} is {value}; at least 1 is needed.")
    try:
        return _open(root, identities, samples_per_identity, seed, max_skipped, allow_outside)
    except OSError as error:
        raise BadCalibration(
            f"{error.filename or root} cannot be read: {error.strerror or error}. Check the path and who may read it."
        ) from error


def _open(
    root: Path, n: int | None, limit: int | None, seed: int, max_skipped: float, allow_outside: bool
) -> Calibration:
    if not root.exists():
        raise BadCalibration(f"{root} does not exist. Give the folder of a calibration set or its manifest CSV.")
    if root.is_file() and root.suffix.lower() != ".csv":
        raise BadCalibration(f"{root} is a {root.suffix or 'plain'} file; a folder or a manifest CSV is needed.")
    files = _embedding_files(root)
    if files is not None:
        return _open_embeddings(root, files, n, limit, seed, max_skipped)
    listing = layouts.recognise(root, allow_outside=allow_outside)
    if listing is None:
        raise BadCalibration(
            f"{root} has no layout that encsel knows; it holds {_glimpse(root)}. Known:", layouts.KNOWN
        )
    sides = {m: {s.identity for s in listing.samples if s.modality == m} for m in MODALITIES}
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in listing.ignored.items())
    unused = (f"Files of other kinds among the samples are not used: {kinds}.",) if kinds else ()
    common, notes, details = _join(root, sides, unused)
    kept = _choose(common, n, seed)
    chosen = set(kept)
    samples = _limit_samples([s for s in listing.samples if s.identity in chosen], limit, seed)
    return Calibration(root, listing.layout, kept, samples=tuple(samples), notes=notes, details=details)


def check_skipped(skipped: Iterable[Skipped], totals: dict[Modality, int], max_skipped: float) -> None:
    """Raise BadCalibration when more than `max_skipped` of a modality's samples were unusable."""
    by_modality: dict[Modality, list[Skipped]] = {m: [] for m in MODALITIES}
    for one in skipped:
        by_modality[one.modality].append(one)
    for modality, ones in by_modality.items():
        if len(ones) > max_skipped * totals[modality]:
            shown = "; ".join(f"{s.sample}: {s.reason}" for s in ones[:3]) + ("; ..." if len(ones) > 3 else "")
            raise BadCalibration(
                f"{len(ones)} of {totals[modality]} {modality} samples cannot be used ({shown}); at most "
                f"{100 * max_skipped:g}% may be skipped. Repair them, or allow more with --max-skipped."
            )


def _embedding_files(root: Path) -> dict[Modality, list[Path]] | None:
    """The embedding files of each modality; None when `root` is no set of embeddings."""
    if not root.is_dir() or (root / layouts.MANIFEST_NAME).is_file():
        return None
    found: dict[Modality, list[Path]] = {}
    for modality in MODALITIES:
        folder = root / f"{modality}s"
        entries = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")] if folder.is_dir() else []
        if any(p.is_dir() for p in entries):
            return None
        found[modality] = [p for p in entries if p.suffix.lower() in vectors.SUFFIXES]
    return found if any(found.values()) else None


def _open_embeddings(
    root: Path, files: dict[Modality, list[Path]], n: int | None, limit: int | None, seed: int, max_skipped: float
) -> Calibration:
    for modality, other in (("face", "voice"), ("voice", "face")):
        if not files[modality]:  # type: ignore[index]
            raise BadCalibration(
                f"{root} has {len(files[other])} embedding file(s) in {other}s/ and none in {modality}s/; "  # type: ignore[index]
                f"both are needed. Add {root / f'{modality}s'}/NAME.npz."
            )
    loaded: list[Embeddings] = []
    skipped: list[Skipped] = []
    for modality, paths in files.items():
        stems = [p.stem for p in paths]
        twice = sorted({s for s in stems if stems.count(s) > 1})
        if twice:
            raise BadCalibration(
                f"{root}/{modality}s has two files named {twice[0]}; an encoder's name is its file's. Rename one."
            )
        for path in paths:
            embeddings, unusable = vectors.read_embeddings(path, modality)
            check_skipped(unusable, {m: len(embeddings.vectors) + len(unusable) for m in MODALITIES}, max_skipped)
            loaded.append(embeddings)
            skipped.extend(unusable)
    sides = {m: set().union(*(e.identities for e in loaded if e.modality == m)) for m in MODALITIES}
    common, notes, details = _join(root, sides)
    # Of people whom some encoder lacks, a choice would leave fewer than were asked for.
    people = [set(e.identities) for e in loaded] if n is not None else []
    everywhere = [p for p in common if all(p in of_encoder for of_encoder in people)]
    kept = _choose(everywhere, n, seed)
    loaded = [e.rows(np.isin(e.labels, kept)) for e in loaded]
    if limit is not None:
        loaded = [limit_rows(e, limit, seed=seed) for e in loaded]
    return Calibration(
        root, "embeddings", kept, embeddings=tuple(loaded), skipped=tuple(skipped), notes=notes, details=details
    )


def _join(
    root: Path, sides: dict[Modality, set[str]], notes: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Identities that both sides have, sorted; `notes` with how many only one has; and their names."""
    faces, voices = sides["face"], sides["voice"]
    for modality, people in sides.items():
        if not people:
            raise BadCalibration(
                f"{root} holds no {modality} samples to read; the same people are needed in both. "
                f"Add {modality} files of a kind that encsel reads. {' '.join(notes)}".rstrip()
            )
    common = tuple(sorted(faces & voices))
    if not common:
        raise BadCalibration(
            f"No identity of {root} has both faces and voices: faces are of {_some(faces)}, voices of {_some(voices)}. "
            f"Name people alike on both sides.{_hint(faces, voices)}"
        )
    lone = {m: people - set(common) for m, people in sides.items()}
    one_sided = tuple(
        f"{len(names)} of {len(sides[m])} identities have only {m}s and are left out."
        f"{_hint(lone['face'], lone['voice'])}"
        for m, names in lone.items() if names
    )  # fmt: skip
    details = tuple(f"Only {m}s: {_some(names)}." for m, names in lone.items() if names)
    return common, (*one_sided, *notes), details


def _hint(faces: set[str], voices: set[str]) -> str:
    def plain(name: str) -> str:
        name = unicodedata.normalize("NFKC", name).casefold()
        return re.sub(r"(?<!\d)0+(?=\d)", "", name)

    alike = {plain(name) for name in faces} & {plain(name) for name in voices}
    if alike:
        return f" {len(alike)} of them differ only in letter case, leading zeros or the form of accents."
    return ""


def _choose(identities: Sequence[str], n: int | None, seed: int) -> tuple[str, ...]:
    if n is None:
        return tuple(identities)
    if n > len(identities):
        raise BadCalibration(
            f"{len(identities)} identities have both faces and voices; --identities asks for {n}. Ask for fewer."
        )
    return tuple(identities[i] for i in pick(identities, n, seed=seed))


def _limit_samples(samples: Sequence[Sample], limit: int | None, seed: int) -> list[Sample]:
    if limit is None:
        return list(samples)
    groups: dict[tuple[str, str], list[Sample]] = {}
    for s in samples:
        groups.setdefault((s.modality, s.identity), []).append(s)
    return [
        group[i]
        for (modality, identity), group in groups.items()
        for i in pick([f"{modality}/{identity}/{s.name}" for s in group], limit, seed=seed)
    ]


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f", ... ({len(ordered)} in all)" if len(ordered) > 5 else "")


def _glimpse(root: Path) -> str:
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in root.iterdir() if not p.name.startswith("."))
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "nothing"
