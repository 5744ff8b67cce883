"""Recognise the layout of a calibration set of media files and list its samples."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from encsel.core import MODALITIES, Modality, Sample
from encsel.data.arrays import check_length
from encsel.data.media import MEDIA_SUFFIXES
from encsel.errors import BadCalibration, nearest, printable
from encsel.storage.files import read_whole

MANIFEST_NAME = "manifest.csv"
MANIFEST_COLUMNS = ("identity", "modality", "path")
MAX_MANIFEST_BYTES = 1 << 30
MAX_SAMPLES = 5_000_000
"""Four times the images of VoxCeleb1; a list of so many takes about 6 GB."""
MAX_META_BYTES = 64 << 20
MAX_COLUMNS = 1000
_CLUTTER = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})
_MODALITY_WORDS: dict[str, Modality] = {"face": "face", "image": "face", "voice": "voice", "audio": "voice"}
_INNER_FOLDERS = {"face": ("face", "image"), "voice": ("voice", "audio", "wav")}
_SUFFIX = re.compile("[.][a-z0-9]{1,5}")
_VOXCELEB_ID = re.compile(r"id1\d{4}")
_MAV_VERSION = re.compile(r"v\d+")
_MAV_LANGUAGES = frozenset({"English", "Urdu", "Hindi", "German"})

LAYOUTS_HELP = f"""\
  a manifest CSV (or ROOT/{MANIFEST_NAME}) with columns {",".join(MANIFEST_COLUMNS)}[,sample][,sex,...]
  ROOT/faces/ID/** with ROOT/voices/ID/**
  ROOT/ID/{{face*,image*}}/** with ROOT/ID/{{voice*,audio*,wav*}}/**
  VoxCeleb1: ROOT/wav/id1xxxx/VIDEO/*.wav with face folders by id, or by name with vox1_meta.csv
  MAV-Celeb: ROOT/vN/{{faces,voices}}/ID/LANGUAGE/VIDEO/*
  embeddings: ROOT/faces/NAME.npz with ROOT/voices/NAME.npz (also .safetensors, or .npy with a .csv of labels)"""


@dataclass(frozen=True)
class Listing:
    """Every sample of a media set, before anything is opened."""

    layout: str
    samples: tuple[Sample, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Number of files of other kinds among the samples, by suffix."""


def recognise(root: Path, *, allow_outside: bool = False) -> Listing | None:
    """The samples under `root`; None if it has no known layout of media files.

    Args:
        allow_outside: accept paths in a manifest that lead outside its folder.
    Raises:
        BadCalibration: the layout is recognised, but incomplete or invalid.
        OSError: a folder or the manifest cannot be read.
    """
    if root.is_file():
        return _manifest(root, allow_outside)
    if (root / MANIFEST_NAME).is_file():
        return _manifest(root / MANIFEST_NAME, allow_outside)
    attempts: tuple[Callable[[Path], Listing | None], ...] = (_mav_celeb, _voxceleb, _by_modality, _by_identity)
    return next((listing for attempt in attempts if (listing := attempt(root)) is not None), None)


def _manifest(path: Path, allow_outside: bool) -> Listing:
    try:
        text = io.TextIOWrapper(io.BytesIO(read_whole(path, MAX_MANIFEST_BYTES)), encoding="utf-8-sig", newline="")
        reader = csv.DictReader(text, strict=True)
        columns = reader.fieldnames = [printable(c.strip()) for c in reader.fieldnames or ()]
        _check_columns(path, columns)
        samples = _samples_of(path, reader, allow_outside)
    except UnicodeDecodeError as error:
        raise BadCalibration(f"{path} is not UTF-8 text. Save the manifest CSV as UTF-8.") from error
    except csv.Error as error:
        raise BadCalibration(f"{path} is not a CSV file: {error}. Save it as CSV again.") from error
    return _listing("manifest CSV", samples)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [c for c in MANIFEST_COLUMNS if c not in columns]
    if missing:
        present = ", ".join(columns[:8]) or "none"
        raise BadCalibration(
            f"{path} lacks the column {', '.join(missing)}; its columns are {present}. "
            f"A manifest needs {', '.join(MANIFEST_COLUMNS)}; sample, sex, language, session, ... are optional."
        )
    repeated = sorted(c for c, n in Counter(columns).items() if c and n > 1)
    if repeated:
        raise BadCalibration(f"{path} has the column {repeated[0]!r} twice. Rename one.")
    if len(columns) > MAX_COLUMNS:
        raise BadCalibration(f"{path} has {len(columns)} columns; at most {MAX_COLUMNS} are read. Remove some.")


def _samples_of(path: Path, reader: csv.DictReader[str], allow_outside: bool) -> Iterable[Sample]:
    """The samples in order of rows; repeated rows count once."""
    samples: dict[tuple[str, Modality, str], Sample] = {}
    for row in reader:
        line = f"{path} line {reader.line_num}"
        if None in row or None in row.values():
            raise BadCalibration(f"{line} does not have as many cells as the header. Fix the line.")
        check_length(max(map(len, row.values())), line)
        identity, word, where = (row[c].strip() for c in MANIFEST_COLUMNS)
        if not identity or not where:
            raise BadCalibration(f"{line} has an empty identity or path. Fill it in, or remove the line.")
        modality = _MODALITY_WORDS.get(word.lower())
        if modality is None:
            raise BadCalibration(f"{line}: modality {word!r}. {nearest(word, ('face', 'voice'))}")
        name = row.get("sample", "").strip() or Path(where).as_posix()
        attributes = {
            k: printable(v.strip()) for k, v in row.items() if k not in ("", *MANIFEST_COLUMNS, "sample") and v.strip()
        }
        try:
            place = _place(path.parent, where, allow_outside)
        except RuntimeError as error:  # of Path.home
            raise BadCalibration(
                f"{line}: the path {where!r} cannot be expanded: there is no home folder. "
                "Write the path in full, or set HOME."
            ) from error
        if place is None:
            raise BadCalibration(
                f"{line}: the path {where!r} leads out of the manifest's folder. "
                "Move the file into the folder, or pass --allow-outside."
            )
        sample = Sample(identity, modality, place, name, attributes)
        key = (identity, modality, name)
        if samples.setdefault(key, sample).path != sample.path:
            raise BadCalibration(
                f"{line}: {identity} has two {modality} samples named {name!r}. Give them distinct names."
            )
        _check_number(path, len(samples))
    if not samples:
        raise BadCalibration(f"{path} has a header but no rows. List one sample per line.")
    return samples.values()


def _check_number(where: Path, n_samples: int) -> None:
    if n_samples > MAX_SAMPLES:
        raise BadCalibration(f"{where} lists over {MAX_SAMPLES} files, the most that are read. Use a smaller set.")


def _place(folder: Path, where: str, allow_outside: bool) -> Path | None:
    """The file that a manifest in `folder` names; None if it is outside and must not be.

    Raises:
        RuntimeError: no home folder for "~/".
    """
    place = Path.home() / where[2:] if where.startswith("~/") else Path(where)
    if allow_outside:
        return folder / place
    # Normalise before the check: `..` behind a link to a folder would lead elsewhere.
    place = Path(os.path.normpath(place))
    if place.is_absolute():
        inside = str(place).startswith(os.path.normpath(folder.absolute()).rstrip(os.sep) + os.sep)
    else:
        inside = place.parts[:1] not in ((), ("..",))
    return folder / place if inside else None


def _by_modality(root: Path) -> Listing | None:
    folders = {m: root / f"{m}s" for m in MODALITIES}
    with_people = {m: _folders(folder) for m, folder in folders.items() if folder.is_dir()}
    if not any(with_people.values()):
        return None
    for modality, other in (("face", "voice"), ("voice", "face")):
        if not with_people.get(modality):  # type: ignore[call-overload]
            raise BadCalibration(
                f"{root} has {other}s/ with {len(with_people[other])} people but no {modality}s/ID folders; "  # type: ignore[index]
                f"the same people are needed in both. Add {root / f'{modality}s'}/ID/."
            )
    return _collect("faces/ID + voices/ID", ((m, p, p.name, "") for m in MODALITIES for p in with_people[m]))


def _by_identity(root: Path) -> Listing | None:
    folders: list[tuple[Modality, Path, str, str]] = []
    for person in _folders(root):
        for inner in _folders(person):
            for modality in MODALITIES:
                if inner.name.lower().startswith(_INNER_FOLDERS[modality]):
                    folders.append((modality, inner, person.name, f"{inner.name}/"))
    present = {modality for modality, *_ in folders}
    if not present:
        return None
    if len(present) == 1:
        (only,) = present
        other = "voice" if only == "face" else "face"
        raise BadCalibration(
            f"{root} has ID folders with {only}s but none with {other}s; the same people are needed in both. "
            f"Name the inner folders {' or '.join(f'{w}*' for w in _INNER_FOLDERS[other])}."
        )
    identities = {identity for _, _, identity, _ in folders}
    if len(identities) == 1:
        (name,) = identities
        raise BadCalibration(
            f"{root} has faces and voices of one person, {name}; several people are needed. "
            f"If {name} is not a person but the calibration set, use {root / name}."
        )
    return _collect("ID/faces + ID/voices", folders)


def _voxceleb(root: Path) -> Listing | None:
    voices = _voxceleb_people(root)
    if not voices:
        return None
    meta = _voxceleb_meta(root)
    name_to_id = {facts["name"]: identity for identity, facts in meta.items()}
    voice_ids = {p.name for p in voices}
    parents = [root, *_folders(root), *(inner for p in _folders(root) for inner in _folders(p))]
    wav = {p.parent for p in voices}
    candidates = [p for parent in parents if not wav & {parent, parent.parent} for p in _folders(parent)]
    faces = [p for p in candidates if p.name in voice_ids or p.name in name_to_id]
    if not faces:
        raise BadCalibration(
            f"{root} looks like VoxCeleb1 with {len(voices)} people in wav/, but no face folder is named by their ids"
            + (" or by a name in vox1_meta.csv." if meta else "; vox1_meta.csv, which maps names to ids, is missing.")
            + " Put faces in ROOT/faces/id1xxxx/ or ROOT/faces/NAME/ with the official vox1_meta.csv in ROOT."
        )
    folders = [
        *(("face", p, name_to_id.get(p.name, p.name), f"{p.relative_to(root).as_posix()}/") for p in faces),
        *(("voice", p, p.name, f"{p.relative_to(root).as_posix()}/") for p in voices),
    ]

    def facts(identity: str, inner: Path) -> dict[str, str]:
        attributes = {k: v for k, v in meta.get(identity, {}).items() if k != "name"}
        return {**attributes, "session": printable(inner.parent.name)} if inner.parent.name else attributes

    by_name = any(p.name in name_to_id for p in faces)
    return _collect(f"VoxCeleb1, faces by {'name' if by_name else 'id'}", folders, facts)  # type: ignore[arg-type]


def _voxceleb_people(root: Path) -> list[Path]:
    """Person folders in wav/, DEV/wav/, ... of `root`."""
    places = [root / "wav", *(p / "wav" for p in _folders(root))]
    return [p for place in places if place.is_dir() for p in _folders(place) if _VOXCELEB_ID.fullmatch(p.name)]


def _voxceleb_meta(root: Path) -> dict[str, dict[str, str]]:
    """Name and attributes by VoxCeleb1 id, from the official vox1_meta.csv in `root` or a folder in it."""
    path = next((p for folder in (root, *_folders(root)) if (p := folder / "vox1_meta.csv").is_file()), None)
    if path is None:
        return {}
    lines = read_whole(path, MAX_META_BYTES).decode("utf-8-sig", errors="replace").splitlines()
    try:
        rows = list(csv.reader(lines, delimiter="\t" if lines and "\t" in lines[0] else ","))
    except csv.Error as error:
        raise BadCalibration(f"{path} is not a CSV file: {error}. Replace it with the official file.") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    wanted = ("voxceleb1 id", "vggface1 id")
    if any(column not in header for column in wanted):
        raise BadCalibration(
            f"{path} has the columns {', '.join(header[:6]) or 'none'}; the official file has VoxCeleb1 ID, "
            "VGGFace1 ID, Gender, Nationality, Set. Replace it with the official file."
        )
    meta = {}
    for cells in rows[1:]:
        row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        if all(row.get(column) for column in wanted):
            attributes = {"sex": row.get("gender"), "nationality": row.get("nationality")}
            meta[row[wanted[0]]] = {"name": row[wanted[1]], **{k: printable(v) for k, v in attributes.items() if v}}
    return meta


def _mav_celeb(root: Path) -> Listing | None:
    versions = [p for p in _folders(root) if _MAV_VERSION.fullmatch(p.name) and _has_both(p)]
    if not versions and _has_both(root):
        versions = [root]
    people = [
        (m, person, person.name if len(versions) == 1 else f"{version.name}/{person.name}", "")
        for version in versions for m in MODALITIES for person in _folders(version / f"{m}s")
    ]  # fmt: skip
    languages = {p.name for _, person, *_ in people for p in _folders(person)}
    if not languages & _MAV_LANGUAGES or (versions == [root] and not languages <= _MAV_LANGUAGES):
        return None

    def facts(identity: str, inner: Path) -> dict[str, str]:
        parts = inner.parts
        return {"language": printable(parts[0]), "session": printable(parts[1])} if len(parts) >= 3 else {}

    return _collect("MAV-Celeb " + " ".join(v.name for v in versions if v != root), people, facts)


def _has_both(folder: Path) -> bool:
    return all((folder / f"{m}s").is_dir() for m in MODALITIES)


def _collect(
    layout: str,
    folders: Iterable[tuple[Modality, Path, str, str]],
    facts: Callable[[str, Path], dict[str, str]] = lambda identity, inner: {},
) -> Listing:
    """List the media files below folders of (modality, folder, identity, prefix of the sample name)."""
    samples, ignored = [], Counter[str]()
    n_files = 0
    for modality, folder, identity, prefix in folders:
        for path in _files_below(folder):
            n_files += 1
            _check_number(folder, n_files)
            if path.suffix.lower() in MEDIA_SUFFIXES[modality]:
                inner = path.relative_to(folder)
                samples.append(Sample(identity, modality, path, prefix + inner.as_posix(), facts(identity, inner)))
            else:
                # Notes must not contain names, and other text behind a dot may be part of one.
                suffix = path.suffix.lower()
                ignored[suffix if _SUFFIX.fullmatch(suffix) else "others" if suffix else "no suffix"] += 1
    return _listing(layout.strip(), samples, ignored)


def _listing(layout: str, samples: Iterable[Sample], ignored: Mapping[str, int] | None = None) -> Listing:
    ordered = sorted(samples, key=lambda s: (s.modality, s.identity, s.name))
    return Listing(layout, tuple(ordered), dict(sorted((ignored or {}).items())))


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if not _is_clutter(e.name) and _is_folder(e))


def _files_below(folder: Path) -> Iterator[Path]:
    # Not os.walk, which recurses for every level and silently skips folders that it cannot list.
    visited, waiting = set(), [str(folder)]
    while waiting:
        where = waiting.pop()
        facts = Path(where).stat()
        if (facts.st_dev, facts.st_ino) in visited:  # a link that leads back up
            continue
        visited.add((facts.st_dev, facts.st_ino))
        with os.scandir(where) as scanned:
            entries = sorted((e for e in scanned if not _is_clutter(e.name)), key=lambda e: e.name)
        folders = []
        for entry in entries:
            if _is_folder(entry):
                folders.append(entry.path)
            else:
                yield Path(entry.path)
        waiting += reversed(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # DirEntry.is_dir raises on a link to itself; Path.is_dir does not, but costs a system call per file.
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name in _CLUTTER
