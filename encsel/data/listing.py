"""List the media files below folders, directory by directory, and keep of them only what is needed."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from encsel.core import MODALITIES, Modality, Sample, SetOptions
from encsel.data.identities import normal
from encsel.data.media import MEDIA_SUFFIXES
from encsel.data.sampling import pick
from encsel.errors import BadCalibration
from encsel.progress import Progress, watched

MAX_SAMPLES = 5_000_000  # four times the images of VoxCeleb1
_CLUTTER = frozenset({
    "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "recycler", "system volume information", "found.000",
    "__macosx", "icon\r", "network trash folder", "temporary items", "lost+found",
    "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb", "~snapshot",
})  # fmt: skip
"""Files that operating systems and network drives add, in lower case; names with a leading dot are ignored as well."""
_SUFFIX = re.compile("[.][a-z0-9]{1,5}")

Folder = tuple[Modality, Path, str, str]
"""Modality and identity of all files below a folder, and the prefix of their names: the end of the folder's path."""
Facts = Callable[[str, tuple[str, ...]], Mapping[str, str]]
"""Attributes of the samples of an identity in a folder within that of the identity."""


@dataclass(frozen=True)
class Listing:
    """Every sample of a media set, before anything is opened."""

    layout: str
    samples: tuple[Sample, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)  # number of files of other kinds, by suffix
    notes: tuple[str, ...] = ()  # remarks without names


def collect(
    layout: str,
    folders: Iterable[Folder],
    facts: Facts = lambda identity, parents: {},
    *,
    options: SetOptions,
    progress: Progress,
) -> Listing:
    """List the media files below folders.

    The samples that `options` cannot choose are left out, but one of each person: notes count all people.
    """
    folders = list(folders)
    people = _chosen(folders, options)
    limit = options.samples_per_identity
    samples: dict[tuple[Modality, str], list[Sample]] = {}
    ignored, n_files = Counter[str](), 0
    for modality, folder, identity, prefix in watched(progress, "listing folders", folders, len(folders)):
        place = f"{folder.as_posix()}/".removesuffix(prefix) or "./"
        of_person = samples.setdefault((modality, identity), [])
        for parents, names in _files_below(folder):
            n_files += len(names)
            check_number(folder, n_files)
            attributes, start = facts(identity, parents), prefix + "".join(f"{part}/" for part in parents)
            for name in names:
                if (suffix := _suffix(name)) in MEDIA_SUFFIXES[modality]:
                    of_person.append(Sample(identity, modality, place, start + name, attributes))
                else:
                    ignored[_kind_of(suffix)] += 1
        keep = 1 if people is not None and normal(identity) not in people else limit
        # Other spellings of a name are merged with it before samples are chosen.
        if keep is not None and 1 <= keep < len(of_person) and (keep == 1 != limit or normal(identity) == identity):
            kept = pick([f"{modality}/{identity}/{s.name}" for s in of_person], keep, seed=options.seed)
            of_person[:] = [of_person[i] for i in kept.tolist()]
    return Listing(layout.strip(), in_order(samples), dict(sorted(ignored.items())))


def in_order(samples: Mapping[tuple[Modality, str], Iterable[Sample]]) -> tuple[Sample, ...]:
    """Samples by modality and identity as a tuple, sorted by modality, identity and name."""
    return tuple(s for key in sorted(samples) for s in sorted(samples[key], key=lambda s: s.name))


def check_number(where: Path, n_samples: int) -> None:
    """Raise BadCalibration for too many files."""
    if n_samples > MAX_SAMPLES:
        raise BadCalibration(f"{where} lists over {MAX_SAMPLES} files, more than encsel reads. Use a smaller set.")


def _chosen(folders: Sequence[Folder], options: SetOptions) -> set[str] | None:
    """The people that `options` choose, by their normal names, from a look at one file of each; None: all."""
    if options.identities is None:
        return None
    people: dict[Modality, set[str]] = {modality: set() for modality in MODALITIES}
    for modality, folder, identity, _ in folders:
        suffixes = MEDIA_SUFFIXES[modality]
        if any(_suffix(name) in suffixes for _, names in _files_below(folder) for name in names):
            people[modality].add(normal(identity))
    complete = sorted(set.intersection(*people.values()))
    if not 1 <= options.identities < len(complete):
        return None
    return {complete[i] for i in pick(complete, options.identities, seed=options.seed).tolist()}


def _suffix(name: str) -> str:
    at = name.rfind(".")
    return name[at:].lower() if 0 < at < len(name) - 1 else ""


def _kind_of(suffix: str) -> str:
    """A suffix, for notes, which must not contain names: other text after a dot may be part of one."""
    return suffix if _SUFFIX.fullmatch(suffix) else "others" if suffix else "no suffix"


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, by name."""
    return [path for path, is_folder in entries(folder) if is_folder]


def entries(folder: Path) -> list[tuple[Path, bool]]:
    """Files and folders in a folder by name, without clutter, and whether each is a folder."""
    with os.scandir(folder) as scanned:
        found = sorted((e.name, e.path, _is_folder(e)) for e in scanned if not _is_clutter(e.name))
    return [(Path(path), is_folder) for _, path, is_folder in found]


def _files_below(folder: Path) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Names of the files in a folder and in each folder below it, and the way to that folder."""
    # Not os.walk, which recurses for every level and silently skips folders that it cannot list.
    visited: set[tuple[int, int]] = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [(os.fspath(folder), ())]
    while waiting:
        where, parents = waiting.pop()
        facts = Path(where).stat()
        if (facts.st_dev, facts.st_ino) in visited:  # a link that leads back up
            continue
        visited.add((facts.st_dev, facts.st_ino))
        names, inner = [], []
        with os.scandir(where) as scanned:
            for entry in scanned:
                if _is_clutter(entry.name):
                    continue
                if _is_folder(entry):
                    inner.append((entry.path, (*parents, entry.name)))
                else:
                    names.append(entry.name)
        if names:
            yield parents, names
        waiting += sorted(inner, reverse=True)


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # DirEntry.is_dir raises on a link to itself; Path.is_dir does not, but costs a system call per file.
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()
