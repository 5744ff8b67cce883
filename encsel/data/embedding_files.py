"""Embedding files: read .npz, .safetensors and .npy with .csv, whole or in shards; write .npz with mode 0600."""

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Modality, Traits, Vectors
from encsel.data.array_files import EMBEDDING_SUFFIXES, LABEL_NAMES, MAX_BYTES, SPACE, read_arrays
from encsel.data.arrays import TEXT_KINDS, Checked, as_text, checked_vectors, keep_usable, shown, space_of
from encsel.data.listing import entries
from encsel.errors import BadCalibration, printable
from encsel.rows import joined
from encsel.storage.files import write_private
from encsel.storage.signature import canonical

_ATTRIBUTE = "attribute."
_ORIGIN = "encsel"  # array of an .npz with the provenance and traits of the encoder as JSON
_LISTED = "encsel.listed"  # array of an .npz with `Embeddings.listed`
_SHARD = re.compile(r"(?P<name>.+)-\d{5}-of-(?P<n>\d{5})")


def read_embeddings(path: Path, modality: Modality) -> Checked:
    """The usable rows of an encoder's file or shards, and the rows skipped; arrays of large files stay mapped.

    The encoder is named after the file. `space`, one text, declares its joint space. Arrays (rows,) of text or whole
    numbers become attributes; other arrays are ignored. Repeated rows of an identity (a frame listed for several clips)
    are kept once.

    Args:
        path: a file, a folder of shards, or the first of several shards NAME-00001-of-00004.
    Raises:
        BadCalibration: a file that is unreadable, pickled, too large, not 2-D, without labels, with columns of another
            length, or with several spaces; a missing shard, or shards that do not fit together.
    """
    paths = shards_of(path)
    content = hashlib.sha256()
    shards = [_shard(one, read_arrays(one, content)) for one in paths]
    whole = shards[0] if len(shards) == 1 else _together(path, shards)
    provenance = {"file": printable(path.name), "sha256": content.hexdigest(), **whole.made_by}
    samples = np.arange(len(whole.vectors)).astype(np.str_) if whole.samples is None else whole.samples
    return keep_usable(
        Embeddings(
            name_of(path), modality, whole.vectors, whole.labels, samples, whole.attributes, provenance, whole.traits,
            whole.listed,
        )
    )  # fmt: skip


def is_of_shards(folder: Path) -> bool:
    """Whether a folder holds embedding files and the tables beside them, and nothing else."""
    read = (*EMBEDDING_SUFFIXES, ".csv")
    return bool(_files_in(folder)) and all(not inner and p.suffix.lower() in read for p, inner in entries(folder))


def name_of(path: Path) -> str:
    """The name of the encoder whose embeddings `read_embeddings` reads from a path."""
    match = _SHARD.fullmatch(path.stem)
    if path.is_dir():
        return printable((path.resolve() if path.name in ("", "..") else path).name)
    return printable(match["name"] if match else path.stem)


def sources_in(folder: Path) -> list[Path]:
    """What `read_embeddings` reads in a folder, one for each encoder: files, first shards, folders of shards."""
    found: dict[str, Path] = {}
    for path, is_folder in entries(folder):
        if is_folder and _files_in(path):
            found[f"{path.name}/"] = path
        elif not is_folder and path.suffix.lower() in EMBEDDING_SUFFIXES:
            match = _SHARD.fullmatch(path.stem)
            found.setdefault(f"{match['name']}-of-{match['n']}{path.suffix}" if match else path.name, path)
    return list(found.values())


def shards_of(path: Path) -> list[Path]:
    """The files that make up an encoder, in order; BadCalibration if one is missing."""
    if path.is_dir():
        files = _files_in(path)
        if not files:
            raise BadCalibration(f"{path} has no files of embeddings; add {', '.join(EMBEDDING_SUFFIXES)} files.")
        if len({file.suffix.lower() for file in files}) > 1 or not _SHARD.fullmatch(files[0].stem):
            return files
        numbered = shards_of(files[0])
        if extra := [file.name for file in files if file not in numbered]:
            raise BadCalibration(f"{path} has {extra[0]} beside the {len(numbered)} shards. Remove it, or rename them.")
        return numbered
    match = _SHARD.fullmatch(path.stem)
    if match is None:
        return [path]
    n = int(match["n"])
    shards = [path.with_name(f"{match['name']}-{i:05d}-of-{n:05d}{path.suffix}") for i in range(1, n + 1)]
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        raise BadCalibration(f"{missing[0]} is missing in {path.parent}; {n} shards are needed. Add it.")
    return shards


def _files_in(folder: Path) -> list[Path]:
    return [p for p, is_folder in entries(folder) if not is_folder and p.suffix.lower() in EMBEDDING_SUFFIXES]


@dataclass(frozen=True)
class _Shard:
    """What a file holds, before unusable rows are left out; no `samples`: rows have no names."""

    path: Path
    vectors: Vectors
    labels: NDArray[np.str_]
    samples: NDArray[np.str_] | None
    attributes: Mapping[str, NDArray[np.str_]]
    made_by: Mapping[str, Any]
    traits: Traits
    listed: NDArray[np.intp] | None


def _shard(path: Path, arrays: dict[str, NDArray[Any]]) -> _Shard:
    if "embeddings" not in arrays:
        names = ", ".join(sorted(arrays)) or "none"
        raise BadCalibration(f"{path}: the arrays are {names}; 'embeddings' (rows, dim) is needed. Add it.")
    vectors = checked_vectors(arrays.pop("embeddings"), str(path))
    rows = (len(vectors),)
    labels = next((arrays.pop(name) for name in LABEL_NAMES if name in arrays), None)
    if labels is None:
        raise BadCalibration(f"{path}: 'labels' (rows,), the identity of each row, is missing. Add it.")
    samples = arrays.pop("samples", None)
    for name, column in (("labels", labels), ("samples", samples)):
        if column is not None and column.shape != rows:
            raise BadCalibration(
                f"{path}: {name!r} has shape {column.shape} for {rows[0]} rows of embeddings; {rows} is needed."
            )
    made_by, traits = _origin(arrays.pop(_ORIGIN, None), path)
    space = arrays.pop(SPACE, np.array(traits.space or ""))
    if space.size > 1 and space.shape != rows:
        raise BadCalibration(
            f"{path}: {SPACE!r} has shape {space.shape}; it must be one text, the name of the space. Fix it."
        )
    space = as_text(space.ravel(), f"{path}: {SPACE!r}")
    traits = replace(traits, space=space_of(np.unique(space).tolist(), str(path)))
    listed = arrays.pop(_LISTED, None)
    if listed is not None and (
        listed.ndim != 1 or listed.dtype.kind not in "iu" or listed.size * vectors[0].nbytes > MAX_BYTES
        or not np.array_equal(np.unique(listed), np.arange(len(vectors)))
    ):  # fmt: skip
        raise BadCalibration(f"{path}: the array {_LISTED!r} is damaged. Embed the set again.")
    attributes = {
        printable(name.removeprefix(_ATTRIBUTE)): shown(as_text(column, f"{path}: {name!r}"))
        for name, column in arrays.items() if column.shape == rows and column.dtype.kind in TEXT_KINDS
    }  # fmt: skip
    labels = as_text(labels, f"{path}: 'labels'")
    samples = None if samples is None else as_text(samples, f"{path}: 'samples'")
    return _Shard(path, vectors, labels, samples, attributes, made_by, traits, listed)


def _together(path: Path, shards: Sequence[_Shard]) -> _Shard:
    """The rows of all shards as those of one file."""
    first = shards[0]
    for other in shards[1:]:
        for what, one, another in (
            ("dimensions", first.vectors.shape[1], other.vectors.shape[1]),
            ("columns", sorted(first.attributes), sorted(other.attributes)),
            ("names of samples", first.samples is not None, other.samples is not None),
            ("spaces", first.traits.space, other.traits.space),
        ):
            if one != another:
                raise BadCalibration(
                    f"{first.path} and {other.path.name} differ in {what} ({one} and {another}); the shards of an "
                    "encoder must be alike. Save them again."
                )
    listed = None
    if any(shard.listed is not None for shard in shards):
        starts = np.cumsum([0] + [len(shard.labels) for shard in shards]).tolist()
        parts = [np.arange(len(one.labels)) if one.listed is None else one.listed for one in shards]
        listed = np.concatenate([start + part for start, part in zip(starts, parts, strict=False)])
    samples = [shard.samples for shard in shards if shard.samples is not None]
    return replace(
        first,
        path=path,
        vectors=joined([shard.vectors for shard in shards]),
        labels=np.concatenate([shard.labels for shard in shards]),
        samples=np.concatenate(samples) if samples else None,
        attributes={name: np.concatenate([shard.attributes[name] for shard in shards]) for name in first.attributes},
        listed=listed,
    )


def write_embeddings(embeddings: Embeddings, path: Path) -> None:
    """Write an .npz that `read_embeddings` reads, atomically and with mode 0600."""
    buffer = io.BytesIO()
    origin = {"made_by": dict(embeddings.provenance), "traits": asdict(embeddings.traits)}
    labels, samples = embeddings.labels.astype(np.str_), embeddings.samples.astype(np.str_)
    columns: dict[str, Any] = {"embeddings": embeddings.vectors, "labels": labels, "samples": samples}
    columns |= {f"{_ATTRIBUTE}{name}": column for name, column in embeddings.attributes.items()}
    columns[_ORIGIN] = np.array(canonical(origin))
    if embeddings.traits.space is not None:
        columns[SPACE] = np.array(embeddings.traits.space)
    if embeddings.listed is not None:
        columns[_LISTED] = embeddings.listed
    np.savez(buffer, **columns)
    write_private(path, buffer.getvalue())


def _origin(array: NDArray[Any] | None, path: Path) -> tuple[dict[str, Any], Traits]:
    """Provenance and traits of the encoder as `write_embeddings` stores them; empty for other files."""
    if array is None or array.shape != () or array.dtype.kind != "U":
        return {}, Traits()

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        origin = json.loads(str(array), parse_constant=refuse)
        flags = tuple(origin["traits"].pop("flags"))
        origin["traits"].pop("identity_trained", None)  # of versions up to 0.2
        traits = Traits(**origin["traits"], flags=flags)
        if not all(isinstance(text, str) for text in (traits.trained_on, traits.space or "", traits.licence, *flags)):
            raise TypeError("a trait is not text")
        return {"made_by": dict(origin["made_by"])}, traits
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadCalibration(f"{path}: the array {_ORIGIN!r} is damaged ({error}). Embed the set again.") from error
