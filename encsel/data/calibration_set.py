"""A calibration set: the same identities in face and voice, checked and joined."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import MODALITIES, PARTS, Embeddings, Failure, Modality, Sample, SetOptions, Skipped
from encsel.data import layouts
from encsel.data.arrays import Checked, checked_embeddings, with_normal_labels
from encsel.data.embedding_files import read_embeddings, shards_of, sources_in
from encsel.data.identities import hint, normal, some, twins
from encsel.data.listing import entries
from encsel.data.media import MEDIA_SUFFIXES
from encsel.data.sampling import limit_rows, pick, pick_each
from encsel.errors import BadCalibration, UsageError, nearest
from encsel.progress import Progress, Silent, watched


@dataclass(frozen=True)
class CalibrationSet:
    """Media files (`samples`) or ready embeddings of the same identities in face and voice."""

    root: Path | None  # folder or manifest CSV; None for arrays in memory
    layout: str  # name of the layout on disk, "embeddings" or "arrays"
    identities: tuple[str, ...] = ()  # those with samples in both modalities, sorted
    samples: tuple[Sample, ...] = ()
    embeddings: tuple[Embeddings, ...] = ()
    skipped: tuple[Skipped, ...] = ()  # unusable rows of the embeddings
    failures: tuple[Failure, ...] = ()  # encoders with too many unusable rows, whose embeddings are left out
    notes: tuple[str, ...] = ()  # remarks without names, for results
    details: tuple[str, ...] = ()  # the names behind the notes, for the user only
    options: SetOptions = field(default_factory=SetOptions)  # how identities and samples were chosen

    def __str__(self) -> str:
        return "The calibration set" if self.root is None else str(self.root)

    @classmethod
    def from_path(
        cls, path: str | Path, options: SetOptions | None = None, *, progress: Progress | None = None
    ) -> CalibrationSet:
        """List the media files of a folder or manifest CSV, or read its embedding files.

        Raises:
            BadCalibration: no such path, unknown layout, one modality missing, no common identities, too many unusable
                rows, fewer identities than asked for, or a path outside the folder of the manifest.
            UsageError: `identities` or `samples_per_identity` below 1.
        """
        options, root = options or SetOptions(), Path(path)
        try:
            return _open(root, options, progress or Silent()).restricted(options)
        except OSError as error:
            raise BadCalibration(
                f"{error.filename or root} cannot be read: {error.strerror or error}. Check the path and permissions."
            ) from error

    @classmethod
    def from_arrays(
        cls, faces: Mapping[str, Any], voices: Mapping[str, Any], options: SetOptions | None = None
    ) -> CalibrationSet:
        """Check and join embeddings in memory, with the rules for embedding files.

        Args:
            faces, voices: by name of the encoder, a tuple (embeddings, identities) or (embeddings, identities,
                columns). Embeddings are a (rows, dim) array-like of numbers; identities a (rows,) array-like of text
                or whole numbers (list, array, pandas Series or categorical). `columns` maps names of attributes such
                as "sex" or "session" to (rows,) array-likes; "samples" holds the names of the samples, and "space" is
                one text, the name of the joint space of the encoder.
        Raises:
            BadCalibration: wrong shape or type, missing identities, or any reason listed for `from_path`.
            UsageError: not such tuples, or `identities` or `samples_per_identity` below 1.

        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> identities = ["ann", "ann", "bob", "bob"]
        >>> calibration = CalibrationSet.from_arrays(
        ...     faces={"facenet": (rng.normal(size=(4, 8)), identities, {"sex": ["f", "f", "m", "m"]})},
        ...     voices={"ecapa": (rng.normal(size=(3, 5)), ["bob", "ann", "cleo"])},
        ... )
        >>> calibration.identities
        ('ann', 'bob')
        >>> [embeddings.vectors.shape for embeddings in calibration.embeddings]
        [(4, 8), (2, 5)]
        """
        options = options or SetOptions()
        checked = []
        for modality, side in zip(MODALITIES, (faces, voices), strict=True):
            for name, given in side.items():
                match given:
                    case (_, _) | (_, _, object(keys=_)):
                        checked.append(checked_embeddings(name, modality, *given))
                    case _:
                        raise UsageError(
                            f"{modality}s[{name!r}] must be a tuple (embeddings, identities) or (embeddings, "
                            "identities, columns), with a mapping for columns."
                        )
        return _of_embeddings(cls(None, "arrays"), checked, options).restricted(options)

    def restricted(self, options: SetOptions) -> CalibrationSet:
        """The identities and samples chosen by the options; raises if there are too few, or the set is restricted."""
        n, limit, seed = options.identities, options.samples_per_identity, options.seed
        if options.clip not in PARTS:
            raise UsageError(f"No part of a clip is named {options.clip!r}. {nearest(options.clip, PARTS)}")
        for option, value in (("--identities", n), ("--samples-per-identity", limit)):
            if value is not None and value < 1:
                raise UsageError(f"{option} is {value}; it must be at least 1.")
        before = (self.options.identities, self.options.samples_per_identity, self.options.seed)
        if before[:2] != (None, None):
            if (n or before[0], limit or before[1], seed) != before:
                raise UsageError(
                    "The calibration set was already restricted with identities={}, samples_per_identity={}, seed={}. "
                    "Use the same values, or restrict the whole set.".format(*before)
                )
            return replace(self, options=replace(options, identities=before[0], samples_per_identity=before[1]))
        chosen = self
        if n is not None:
            # Only identities that every encoder has, so that n are left.
            complete = sorted(set(self.identities).intersection(*(e.identities for e in self.embeddings)))
            if n > len(complete):
                raise BadCalibration(
                    f"{len(complete)} identities have both faces and voices; --identities is {n}. Ask for fewer."
                )
            chosen = self._of([complete[i] for i in pick(complete, n, seed=seed)])
        samples, embeddings = chosen.samples, chosen.embeddings
        if limit is not None:
            numbers: dict[tuple[Modality, str], int] = {}
            group = [numbers.setdefault((s.modality, s.identity), len(numbers)) for s in samples]

            def keys(at: NDArray[np.intp]) -> Iterable[str]:
                return (f"{s.modality}/{s.identity}/{s.name}" for s in (chosen.samples[i] for i in at.tolist()))

            kept = pick_each(np.array(group, np.intp), keys, limit, seed=seed)
            samples = tuple(samples[i] for i in kept.tolist())
            embeddings = tuple(limit_rows(e, limit, seed=seed) for e in embeddings)
        return replace(chosen, samples=samples, embeddings=embeddings, options=options)

    def _of(self, identities: Sequence[str]) -> CalibrationSet:
        """The set with these identities alone."""
        chosen = set(identities)
        samples = tuple(s for s in self.samples if s.identity in chosen)
        rows = tuple(e.of_people(chosen) for e in self.embeddings)
        return replace(self, identities=tuple(identities), samples=samples, embeddings=rows)


def too_many_skipped(skipped: Sequence[Skipped], n_samples: int, max_skipped: float) -> str | None:
    """The reason why an encoder that skipped these samples fails, without names; None if they are few enough."""
    if len(skipped) <= max_skipped * n_samples:
        return None
    shown = "; ".join(f"{n} {why}" for why, n in Counter(s.reason for s in skipped).most_common(3))
    return (
        f"it could not use {len(skipped)} of {n_samples} samples ({shown}); at most {100 * max_skipped:g}% may be "
        "skipped. Fix them, or raise --max-skipped"
    )


def check_skipped(skipped: Sequence[Skipped], n_samples: int, max_skipped: float) -> None:
    """Raise BadCalibration if more than the fraction `max_skipped` of a modality's samples are unusable."""
    if len(skipped) > max_skipped * n_samples:
        examples = "; ".join(f"{s.sample}: {s.reason}" for s in skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
        raise BadCalibration(
            f"{len(skipped)} of {n_samples} {skipped[0].modality} samples cannot be used ({examples}); at most "
            f"{100 * max_skipped:g}% may be skipped. Fix them, or raise --max-skipped."
        )


def _open(root: Path, options: SetOptions, progress: Progress) -> CalibrationSet:
    if not root.exists():
        raise BadCalibration(f"{root} does not exist. Give the folder of a calibration set or its manifest CSV.")
    if root.is_file() and root.suffix.lower() != ".csv":
        raise BadCalibration(f"{root} is a {root.suffix or 'plain'} file; a folder or a manifest CSV is needed.")
    files = _embedding_files(root)
    if files is not None:
        present, absent = sorted(MODALITIES, key=lambda m: not files[m])
        unread = _unread(root, files)
        if not files[absent]:
            n = len(files[present])
            there = f"{n} embedding file(s) in {present}s/ and none in {absent}s/" if n else "no embedding files"
            raise BadCalibration(
                f"{root} has {there}; both modalities are needed. "
                f"Add {root / f'{absent}s'}/NAME.npz. {' '.join(unread)}".rstrip()
            )
        sources = [(path, modality) for modality, paths in files.items() for path in paths]
        checked = (
            read_embeddings(*source) for source in watched(progress, "reading embeddings", sources, len(sources))
        )
        return _of_embeddings(CalibrationSet(root, "embeddings", details=unread), checked, options)
    listing = layouts.recognise(root, allow_outside=options.allow_outside, options=options, progress=progress)
    if listing is None:
        names = {p.name + ("/" if p.is_dir() else "") for p in root.iterdir() if not p.name.startswith(".")}
        raise BadCalibration(
            f"{root} has an unknown layout; it contains {some(names) or 'nothing'}. Known:", layouts.LAYOUTS_HELP
        )
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in listing.ignored.items())
    notes = (*([f"Files of other kinds are ignored: {kinds}."] if kinds else []), *listing.notes)
    return _joined(CalibrationSet(root, listing.layout, samples=listing.samples, notes=notes))


def _embedding_files(root: Path) -> dict[Modality, list[Path]] | None:
    """The embedding files of each modality; None if `root` is not a set of embeddings."""
    if not root.is_dir() or (root / layouts.MANIFEST_NAME).is_file():
        return None
    others = []  # folders that hold files, none of them media
    folders: dict[Modality, list[Path]] = {}
    for modality in MODALITIES:
        folder = root / f"{modality}s"
        inside = entries(folder) if folder.is_dir() else []
        folders[modality] = [p for p, is_folder in inside if is_folder]
        if inside and not any(p.suffix.lower() in MEDIA_SUFFIXES[modality] for p, _ in inside):
            others.append(folder)
    if all(any(map(_has_media, of_one)) for of_one in folders.values()):
        return None  # embeddings beside media of both modalities are not the set
    files = {m: sources_in(folder) if (folder := root / f"{m}s").is_dir() else [] for m in MODALITIES}
    if any(folders.values()):
        return files if all(files.values()) else None
    # Two folders of files of another kind, such as .pt, are a set of embeddings that cannot be read.
    return files if any(files.values()) or len(others) == len(MODALITIES) else None


def _has_media(folder: Path) -> bool:
    suffixes = frozenset[str]().union(*MEDIA_SUFFIXES.values())
    return any(Path(name).suffix.lower() in suffixes for _, _, names in os.walk(folder) for name in names)


def _unread(root: Path, files: Mapping[Modality, Sequence[Path]]) -> tuple[str, ...]:
    """A note that names files beside the embedding files that are not read, if there are any."""
    used = {shard for paths in files.values() for path in paths for shard in (path, *shards_of(path))}
    read = used | {path.with_suffix(".csv") for path in used}
    folders = [folder for modality in files if (folder := root / f"{modality}s").is_dir()]
    others = [p.relative_to(root).as_posix() for folder in folders for p, _ in entries(folder) if p not in read]
    if not others:
        return ()
    return (
        f"Other files and folders are not used: {some(others)}; save arrays embeddings and labels with numpy.savez.",
    )


def _of_embeddings(empty: CalibrationSet, checked: Iterable[Checked], options: SetOptions) -> CalibrationSet:
    embeddings: list[Embeddings] = []
    skipped: list[Skipped] = []
    failures: list[Failure] = []
    unusable_of: dict[Modality, tuple[Sequence[Skipped], int]] = {}
    for one, unusable in checked:
        n_rows = len(one.labels) + len(unusable)
        if reason := too_many_skipped(unusable, n_rows, options.max_skipped):
            failures.append(Failure(one.modality, one.name, reason))
            unusable_of[one.modality] = unusable, n_rows
        else:
            embeddings.append(one)
            skipped += unusable
    named = Counter([(e.modality, e.name) for e in embeddings] + [(f.modality, f.encoder) for f in failures])
    for (modality, name), count in named.items():
        if count > 1:
            raise BadCalibration(f"{empty} has two {modality} encoders (files) named {name}. Rename one.")
    for modality, (refused, n_rows) in unusable_of.items():
        if all(e.modality != modality for e in embeddings):
            check_skipped(refused, n_rows, options.max_skipped)
    found = replace(empty, embeddings=tuple(embeddings), skipped=tuple(skipped), failures=tuple(failures))
    return _joined(found)


def _joined(whole: CalibrationSet) -> CalibrationSet:
    """The set without identities that have only one modality, with notes about them and about spellings of names."""
    whole = _with_normal_names(whole)
    sides: dict[Modality, set[str]] = {m: set() for m in MODALITIES}
    for sample in whole.samples:
        sides[sample.modality].add(sample.identity)
    for one in whole.embeddings:
        sides[one.modality].update(one.identities)
    faces, voices = sides["face"], sides["voice"]
    for modality, people in sides.items():
        if not people:
            raise BadCalibration(
                f"{whole} has no usable {modality} samples; the same identities are needed in both modalities. "
                f"Add {modality} samples. {' '.join(whole.notes)}".rstrip()
            )
    common = sorted(faces & voices)
    if not common:
        raise BadCalibration(
            f"{whole} has no identity with both faces and voices: faces are of {some(faces)}, voices of "
            f"{some(voices)}. Use the same names in both modalities.{hint(faces, voices)}"
        )
    nearly = hint(faces - voices, voices - faces)
    alone = [(m, len(people), people - set(common)) for m, people in sides.items() if len(people) > len(common)]
    notes = [f"{len(names)} of {n} identities have only {m}s and are left out.{nearly}" for m, n, names in alone]
    details = [f"Only {m}s: {some(names)}." for m, _, names in alone]
    if apart := twins(common):
        differ = (
            "differ only in letter case, leading zeros or the form of dots and blanks, and count as different people"
        )
        notes.append(f"The names of {sum(map(len, apart))} identities {differ}.")
        details.append(f"{some(map(' and '.join, apart))} {differ}.")
    return replace(whole._of(common), notes=(*notes, *whole.notes), details=(*details, *whole.details))


def _with_normal_names(whole: CalibrationSet) -> CalibrationSet:
    """The set with every identity in its normal form, and a note about those that were spelled in several ways."""
    written = {s.identity for s in whole.samples}.union(*(e.identities for e in whole.embeddings))
    spellings: dict[str, list[str]] = {}
    for name in sorted(written):
        spellings.setdefault(normal(name), []).append(name)
    if written == spellings.keys():
        return whole
    samples: dict[tuple[Modality, str, str], Sample] = {}
    for s in whole.samples:
        identity, name, place = normal(s.identity), s.name, s.place
        if (s.modality, identity, name) in samples:  # two folders of one person
            name, place = f"{s.identity}/{name}", str(s.path)
        samples[s.modality, identity, name] = replace(s, identity=identity, name=name, place=place)
    joined = [" and ".join(map(repr, names)) for names in spellings.values() if len(names) > 1]
    note = f"{len(joined)} identities are spelled in several ways (blanks, Unicode form of accents) and were merged."
    return replace(
        whole, samples=tuple(samples[key] for key in sorted(samples)),
        embeddings=tuple(with_normal_labels(e) for e in whole.embeddings),
        notes=(*whole.notes, *([note] if joined else [])),
        details=(*whole.details, *([f"Joined: {some(joined)}."] if joined else [])),
    )  # fmt: skip
