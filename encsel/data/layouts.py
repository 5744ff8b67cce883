"""Recognise the layout of a calibration set of media files and list its samples."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from encsel.core import MODALITIES, Modality, Sample, SetOptions
from encsel.data.arrays import check_length
from encsel.data.identities import hint, normal
from encsel.data.listing import Listing, check_number, collect, folders_in, in_order
from encsel.errors import BadCalibration, nearest, printable
from encsel.progress import Progress, Silent
from encsel.storage.files import open_ordinary, read_whole

MANIFEST_NAME = "manifest.csv"
MANIFEST_COLUMNS = ("identity", "modality", "path")
MAX_MANIFEST_BYTES = 1 << 30
MAX_META_BYTES = 64 << 20
MAX_COLUMNS = 1000
_MODALITY_WORDS: dict[str, Modality] = {"face": "face", "image": "face", "voice": "voice", "audio": "voice"}
_INNER_FOLDERS = {"face": ("face", "image"), "voice": ("voice", "audio", "wav")}
_VOXCELEB_ID = re.compile(r"id1\d{4}")
_VOXCELEB2_ID = re.compile(r"id\d{5}")
_CROP = re.compile(r"\d[.]\d")  # NAME/1.6/VIDEO/TRACK: how much larger than the face the pictures are
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_PLAIN = re.compile(r"[^./\\:~][^/\\:]*(?:/[^./\\:][^/\\:]*)*")
"""Paths that pathlib would return as they are; it takes most of the time of a line."""
_ADDRESS = re.compile(r"file:|[A-Za-z][A-Za-z0-9+.-]+://")
_MAV_VERSION = re.compile(r"v\d+")
_MAV_LANGUAGES = frozenset({"English", "Urdu", "Hindi", "German"})

LAYOUTS_HELP = f"""\
  a manifest CSV (or ROOT/{MANIFEST_NAME}) with columns {",".join(MANIFEST_COLUMNS)}[,sample][,sex,...]
  ROOT/faces/ID/** with ROOT/voices/ID/**
  ROOT/ID/{{face*,image*}}/** with ROOT/ID/{{voice*,audio*,wav*}}/**
  VoxCeleb1: ROOT/wav/id1xxxx/VIDEO/*.wav with face folders by id, or by name with vox1_meta.csv
  MAV-Celeb: ROOT/vN/{{faces,voices}}/ID/LANGUAGE/VIDEO/*
  embeddings: ROOT/faces/NAME.npz with ROOT/voices/NAME.npz (also .safetensors, or .npy with a .csv of labels;
  of a large set several shards, NAME-00001-of-00004.npz or any names in a folder ROOT/faces/NAME/)"""


Collect = Callable[..., Listing]
"""`encsel.data.listing.collect` with the options of the set."""


def recognise(
    root: Path, *, allow_outside: bool = False, options: SetOptions | None = None, progress: Progress | None = None
) -> Listing | None:
    """The samples under `root`; None if it has no known layout of media files, BadCalibration if it lacks a part.

    Args:
        options: people and samples that they cannot choose need not be listed.
    """
    manifest = root if root.is_file() else root / MANIFEST_NAME
    if manifest.is_file():
        return _manifest(manifest, allow_outside)
    listed = partial(collect, options=options or SetOptions(), progress=progress or Silent())
    known = _mav_celeb(root, listed) or _voxceleb(root, listed)
    if known is None and not all((root / f"{m}s").is_dir() for m in MODALITIES):
        _refuse_voxceleb2(root)
    return known or _by_modality(root, listed) or _by_identity(root, listed)


def _manifest(path: Path, allow_outside: bool) -> Listing:
    try:
        with io.TextIOWrapper(open_ordinary(path, MAX_MANIFEST_BYTES), encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, strict=True)
            columns = reader.fieldnames = [printable(c.strip()) for c in reader.fieldnames or ()]
            if missing := [c for c in MANIFEST_COLUMNS if c not in columns]:
                raise BadCalibration(
                    f"{path} lacks the column {', '.join(missing)}; its columns are {', '.join(columns[:8]) or 'none'}."
                    f" A manifest needs {', '.join(MANIFEST_COLUMNS)}; sample, sex, language, session, ... are "
                    "optional."
                )
            if len(columns) > MAX_COLUMNS:
                raise BadCalibration(f"{path} has {len(columns)} columns; at most {MAX_COLUMNS} are read. Remove some.")
            if repeated := sorted(c for c, n in Counter(columns).items() if c and n > 1):
                raise BadCalibration(f"{path} has the column {repeated[0]!r} twice. Rename one.")
            samples = _samples_of(path, reader, allow_outside)
    except UnicodeDecodeError as error:
        raise BadCalibration(f"{path} is not UTF-8 text. Save the manifest CSV as UTF-8.") from error
    except csv.Error as error:
        raise BadCalibration(f"{path} is not a CSV file: {error}. Save it as CSV again.") from error
    return Listing("manifest CSV", samples)


def _samples_of(path: Path, reader: csv.DictReader[str], allow_outside: bool) -> tuple[Sample, ...]:
    """The samples; repeated rows count once."""
    samples: dict[tuple[Modality, str], dict[str, Sample]] = {}
    alike: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    folder, n_samples = f"{path.parent.as_posix()}/", 0
    for row in reader:
        line = f"{path} line {reader.line_num}"
        if None in row or None in row.values():
            raise BadCalibration(f"{line} does not have as many cells as the header. Fix the line.")
        check_length(max(map(len, row.values())), line)
        cells = {name: cell.strip() for name, cell in row.items()}
        identity, word, where = (cells.pop(c) for c in MANIFEST_COLUMNS)
        is_plain = os.name != "nt" and folder != "./" and _PLAIN.fullmatch(where) is not None
        where = where if is_plain else _with_slashes(path.parent, where, line)
        name = cells.pop("sample", "") or (where if is_plain else Path(where).as_posix())
        if not identity or not where:
            raise BadCalibration(f"{line} has an empty identity or path. Fill it in, or remove the line.")
        modality = _MODALITY_WORDS.get(word.lower())
        if modality is None:
            raise BadCalibration(f"{line}: modality {word!r}. {nearest(word, MODALITIES)}")
        place = folder + where if is_plain else _place(path.parent, where, line, allow_outside).as_posix()
        attributes = {name: printable(cell) for name, cell in cells.items() if name and cell}
        attributes = alike.setdefault(tuple(attributes.items()), attributes)
        identity = sys.intern(identity)
        sample = Sample(identity, modality, folder if place == folder + name else place, name, attributes)
        of_person = samples.setdefault((modality, identity), {})
        if of_person.setdefault(name, sample).place != sample.place:
            problem = f"{identity} has two {modality} samples named {name!r}"
            raise BadCalibration(f"{line}: {problem}. Give them distinct names.")
        n_samples += of_person[name] is sample
        check_number(path, n_samples)
    if not samples:
        raise BadCalibration(f"{path} has a header but no rows. List one sample per line.")
    return in_order({key: of_person.values() for key, of_person in samples.items()})


def _with_slashes(folder: Path, where: str, line: str) -> str:
    """The path of a line; one with backslashes, as Windows writes them, with slashes if such a file exists."""
    if _ADDRESS.match(where):
        raise BadCalibration(f"{line}: {where!r} is a URL; a path is needed. Give the path of a file.")
    if os.name == "nt" or ("\\" not in where and not _WINDOWS.match(where)):
        return where
    if _WINDOWS.match(where):
        raise BadCalibration(
            f"{line}: {where!r} is an absolute Windows path, which this system cannot open. Write paths relative "
            "to the manifest's folder."
        )
    slashes = where.replace("\\", "/")
    if os.path.lexists(folder / where):
        return where
    if os.path.lexists(folder / slashes):
        return slashes
    raise BadCalibration(
        f"{line}: the path {where!r} has backslashes, as Windows writes them, and there is no file {slashes!r} either. "
        "Use / and paths relative to the manifest's folder."
    )


def _place(folder: Path, where: str, line: str, allow_outside: bool) -> Path:
    """The file that a line of the manifest in `folder` names."""
    try:
        place = Path.home() / where[2:] if where.startswith("~/") else Path(where)
    except RuntimeError as error:
        raise BadCalibration(
            f"{line}: the path {where!r} cannot be expanded: there is no home folder. "
            "Write the path in full, or set HOME."
        ) from error
    if allow_outside:
        return folder / place
    # Normalise before the check: `..` behind a link to a folder would lead elsewhere.
    place = Path(os.path.normpath(place))
    if place.anchor:  # on Windows also C:x and \x, which are not absolute
        inside = str(place).startswith(os.path.normpath(folder.absolute()).rstrip(os.sep) + os.sep)
    else:
        inside = place.parts[:1] not in ((), ("..",))
    if not inside:
        raise BadCalibration(
            f"{line}: the path {where!r} is outside the manifest's folder. "
            "Move the file into the folder, or pass --allow-outside."
        )
    return folder / place


def _by_modality(root: Path, collect: Collect) -> Listing | None:
    people = {m: folders_in(root / f"{m}s") if (root / f"{m}s").is_dir() else [] for m in MODALITIES}
    present, absent = sorted(MODALITIES, key=lambda m: not people[m])
    if not people[present]:
        return None
    if not people[absent]:
        raise BadCalibration(
            f"{root} has {present}s/ with {len(people[present])} people but no {absent}s/ID folders; "
            f"the same people are needed in both. Add {root / f'{absent}s'}/ID/."
        )
    return collect("faces/ID + voices/ID", ((m, p, p.name, "") for m in MODALITIES for p in people[m]))


def _by_identity(root: Path, collect: Collect) -> Listing | None:
    folders = [
        (modality, inner, person.name, f"{inner.name}/")
        for person in folders_in(root) for inner in folders_in(person) for modality in MODALITIES
        if inner.name.lower().startswith(_INNER_FOLDERS[modality])
    ]  # fmt: skip
    if not folders:
        return None
    present, absent = sorted(MODALITIES, key=lambda m: all(m != folder[0] for folder in folders))
    if all(folder[0] == present for folder in folders):
        raise BadCalibration(
            f"{root} has ID folders with {present}s but none with {absent}s; the same people are needed in both. "
            f"Name the inner folders {' or '.join(f'{w}*' for w in _INNER_FOLDERS[absent])}."
        )
    if len({identity for _, _, identity, _ in folders}) == 1:
        name = folders[0][2]
        raise BadCalibration(
            f"{root} has faces and voices of one person, {name}; several people are needed. "
            f"If {name} is not a person but the calibration set, use {root / name}."
        )

    def facts(identity: str, parents: tuple[str, ...]) -> dict[str, str]:
        # Names of samples begin with the folder of the modality, which recordings do not share.
        return {"session": printable("/".join(parents))} if parents else {}

    return collect("ID/faces + ID/voices", folders, facts)


def _voxceleb(root: Path, collect: Collect) -> Listing | None:
    top = folders_in(root)
    places = [place for p in (root, *top) if (place := p / "wav").is_dir()]
    voices = [p for place in places for p in folders_in(place) if _VOXCELEB_ID.fullmatch(p.name)]
    if not voices:
        return None
    ids, attributes = _voxceleb_meta(root)
    videos: dict[str, set[str]] = {}
    for p in voices:
        videos.setdefault(p.name, set()).update(video.name for video in folders_in(p))
    wanted = ids.keys() | videos.keys()
    parents = [root, *top, *(inner for p in top for inner in folders_in(p))]
    wav = {p.parent for p in voices}
    candidates = [p for parent in parents if not wav & {parent, parent.parent} for p in folders_in(parent)]
    faces = [p for p in candidates if normal(p.name) in wanted]
    if not faces:
        raise BadCalibration(
            f"{root} looks like VoxCeleb1 with {len(voices)} people in wav/, but no face folder is named by their ids"
            + (" or by a name in vox1_meta.csv." if ids else "; vox1_meta.csv, which maps names to ids, is missing.")
            + " Put faces in ROOT/faces/id1xxxx/ or ROOT/faces/NAME/ with the official vox1_meta.csv in ROOT."
        )
    folders = (
        (modality, p, ids.get(normal(p.name), p.name), f"{p.relative_to(root).as_posix()}/")
        for modality, people in zip(MODALITIES, (faces, voices), strict=True) for p in people
    )  # fmt: skip

    def facts(identity: str, parents: tuple[str, ...]) -> dict[str, str]:
        # NAME/1.6/VIDEO/TRACK/*.jpg, NAME/VIDEO/*.jpg, ID/VIDEO/*.wav: videos are named as those of the voices.
        parts = [part for part in parents if not _CROP.fullmatch(part)]
        session = next((part for part in parts if part in videos.get(identity, ())), "".join(parts[:1]))
        return attributes.get(identity, {}) | ({"session": printable(session)} if session else {})

    by_name = any(normal(p.name) in ids for p in faces)
    listing = collect(f"VoxCeleb1, faces by {'name' if by_name else 'id'}", folders, facts)
    beside, used = {p.parent for p in faces} - {root}, {*faces}
    if unknown := [p.name for parent in sorted(beside) for p in folders_in(parent) if p not in used]:
        nearly = hint(unknown, wanted)
        note = (
            f"{len(unknown)} face folders match neither a name in vox1_meta.csv nor an id in wav/, and are left "
            f"out.{nearly}"
        )
        listing = replace(listing, notes=(note,))
    return listing


def _refuse_voxceleb2(root: Path) -> None:
    """Raise BadCalibration for VoxCeleb2 as downloaded, whose clips no encoder reads."""
    for parent in (root, *folders_in(root)):
        for kind, suffix in (("aac", ".m4a"), ("mp4", ".mp4")):
            place = parent / kind
            if place.is_dir() and any(_VOXCELEB2_ID.fullmatch(p.name) for p in folders_in(place)):
                where = f"{place.relative_to(root).as_posix()}/ID/VIDEO/*{suffix}"
                raise BadCalibration(
                    f"{root} looks like VoxCeleb2 as downloaded ({where}), whose clips must be converted: "
                    f"ffmpeg -i CLIP{suffix} -ac 1 -ar 16000 CLIP.wav. Put them into ROOT/voices/ID/VIDEO/ and the "
                    "faces into ROOT/faces/ID/VIDEO/, or list both in a manifest CSV."
                )


def _voxceleb_meta(root: Path) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """VoxCeleb1 id by name, and attributes by id, from the official vox1_meta.csv in `root` or a folder in it."""
    path = next((p for folder in (root, *folders_in(root)) if (p := folder / "vox1_meta.csv").is_file()), None)
    if path is None:
        return {}, {}
    lines = read_whole(path, MAX_META_BYTES).decode("utf-8-sig", errors="replace").splitlines()
    try:
        reader = csv.DictReader(lines, delimiter="\t" if lines and "\t" in lines[0] else ",")
        header = reader.fieldnames = [cell.strip().lower() for cell in reader.fieldnames or ()]
        rows = [{name: cell.strip() for name, cell in row.items() if name and cell} for row in reader]
    except csv.Error as error:
        raise BadCalibration(f"{path} is not a CSV file: {error}. Replace it with the official file.") from error
    if not {"voxceleb1 id", "vggface1 id"} <= set(header):
        raise BadCalibration(
            f"{path} has the columns {', '.join(header[:6]) or 'none'}; the official file has VoxCeleb1 ID, "
            "VGGFace1 ID, Gender, Nationality, Set. Replace it with the official file."
        )
    ids, attributes = {}, {}
    for row in rows:
        identity, name = row.get("voxceleb1 id"), row.get("vggface1 id")
        if identity and name:
            ids[normal(name)] = identity
            facts = {"sex": row.get("gender"), "nationality": row.get("nationality")}
            attributes[identity] = {key: printable(value) for key, value in facts.items() if value}
    return ids, attributes


def _mav_celeb(root: Path, collect: Collect) -> Listing | None:
    def has_both(folder: Path) -> bool:
        return all((folder / f"{m}s").is_dir() for m in MODALITIES)

    versions = [p for p in folders_in(root) if _MAV_VERSION.fullmatch(p.name) and has_both(p)]
    if not versions and has_both(root):
        versions = [root]
    people = [
        (m, person, person.name if len(versions) == 1 else f"{version.name}/{person.name}", "")
        for version in versions for m in MODALITIES for person in folders_in(version / f"{m}s")
    ]  # fmt: skip
    languages = {p.name for _, person, *_ in people for p in folders_in(person)}
    if not languages & _MAV_LANGUAGES or (versions == [root] and not languages <= _MAV_LANGUAGES):
        return None

    def facts(identity: str, parents: tuple[str, ...]) -> dict[str, str]:
        parts = [printable(part) for part in parents]
        return {"language": parts[0], "session": parts[1]} if len(parts) >= 2 else {}

    return collect("MAV-Celeb " + " ".join(v.name for v in versions if v != root), people, facts)
