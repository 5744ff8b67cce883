"""Embedding files: read .npz, .safetensors and .npy with .csv; write .npz with mode 0600."""

import csv
import hashlib
import io
import json
import math
import os
import struct
import warnings
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Modality, Traits
from encsel.data.arrays import (
    TEXT_KINDS,
    Checked,
    as_text,
    check_length,
    checked_vectors,
    keep_usable,
    shown,
    space_of,
)
from encsel.errors import BadCalibration, first_line, printable
from encsel.storage.files import read_whole, stand_in, write_private
from encsel.storage.signature import canonical

EMBEDDING_SUFFIXES = (".npz", ".safetensors", ".npy")
_LABEL_NAMES = ("labels", "identity", "label")
_SPACE = "space"  # array, column or entry of the metadata of .safetensors with the name of the joint space
_ATTRIBUTE = "attribute."
_ORIGIN = "encsel"  # array of an .npz with the provenance and traits of the encoder as JSON
_LISTED = "encsel.listed"  # array of an .npz with `Embeddings.listed`
_PICKLE = b"\x80"
_MAGIC = b"\x93NUMPY"
_TENSOR_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?", "C64": "<c8", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip
"""numpy's types of the types of .safetensors."""

MAX_BYTES = 8 << 30  # of a file, and of its arrays in memory: 2 million rows of 1024 float32 dimensions
_LARGE, _RATIO = 256 << 20, 200  # larger arrays may be _RATIO times their file: embeddings hardly compress, bombs do
_MAX_DIRECTORY = 4 << 20  # bytes of an archive's directory or a .safetensors header: tens of thousands of arrays


def read_embeddings(path: Path, modality: Modality) -> Checked:
    """The usable rows of a file, and the rows skipped.

    The encoder is named after the file. `space`, one text, declares its joint space. Arrays (rows,) of text or whole
    numbers become attributes; other arrays are ignored. Repeated rows of an identity (a frame listed for several clips)
    are kept once. Raises BadCalibration for files that are unreadable, pickled, too large, not 2-D, without labels,
    with columns of another length, or with several spaces.
    """
    content = _read(path)
    arrays, table = _arrays(path, content)
    if "embeddings" not in arrays:
        names = ", ".join(sorted(arrays)) or "none"
        raise BadCalibration(f"{path}: the arrays are {names}; 'embeddings' (rows, dim) is needed. Add it.")
    vectors = checked_vectors(arrays.pop("embeddings"), str(path))
    rows = (len(vectors),)
    labels = next((arrays.pop(name) for name in _LABEL_NAMES if name in arrays), None)
    if labels is None:
        raise BadCalibration(f"{path}: 'labels' (rows,), the identity of each row, is missing. Add it.")
    samples = arrays.pop("samples", np.arange(len(vectors)))
    for name, column in (("labels", labels), ("samples", samples)):
        if column.shape != rows:
            raise BadCalibration(
                f"{path}: {name!r} has shape {column.shape} for {rows[0]} rows of embeddings; {rows} is needed."
            )
    made_by, traits = _origin(arrays.pop(_ORIGIN, None), path)
    space = arrays.pop(_SPACE, np.array(traits.space or ""))
    if space.size > 1 and space.shape != rows:
        raise BadCalibration(
            f"{path}: {_SPACE!r} has shape {space.shape}; it must be one text, the name of the space. Fix it."
        )
    space = as_text(space.ravel(), f"{path}: {_SPACE!r}")
    traits = replace(traits, space=space_of(space.tolist(), str(path)))
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
    labels, samples = as_text(labels, f"{path}: 'labels'"), as_text(samples, f"{path}: 'samples'")
    sha256 = hashlib.sha256(content)
    sha256.update(table)
    provenance = {"file": printable(path.name), "sha256": sha256.hexdigest(), **made_by}
    return keep_usable(
        Embeddings(printable(path.stem), modality, vectors, labels, samples, attributes, provenance, traits, listed)
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
        columns[_SPACE] = np.array(embeddings.traits.space)
    if embeddings.listed is not None:
        columns[_LISTED] = embeddings.listed
    np.savez(buffer, **columns)
    write_private(path, buffer.getvalue())


def _read(path: Path) -> bytes:
    try:
        content = read_whole(path, MAX_BYTES)
    except OSError as error:
        instead = stand_in(os.fsencode(path.readlink())) if path.is_symlink() else None
        problem = f"{error.strerror}; it is {instead}" if instead else f"{error.strerror}. Check the path"
        raise BadCalibration(f"{path} cannot be read: {problem}.") from error
    if instead := stand_in(content):
        raise BadCalibration(f"{path} is damaged or not a {path.suffix.lower()} file: it is {instead}.")
    return content


class _Objects(Exception):
    """An array of Python objects, which would be unpickled."""


class _Unknown(Exception):
    """An array of a type that numpy does not have."""


class _TooLarge(Exception):
    """Arrays that would take more memory than any set of embeddings needs."""


def _arrays(path: Path, content: bytes) -> tuple[dict[str, NDArray[Any]], bytes]:
    """The arrays of a file and the columns of the table beside it, and the content of the table."""
    readers = {".npz": _from_npz, ".safetensors": _from_safetensors, ".npy": _from_npy}
    suffix = path.suffix.lower()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of headers written by Python 2
            arrays = readers[suffix](content)
    except _TooLarge as error:
        raise BadCalibration(f"{path} is too large: {error}. Split the set, or save it as float32.") from error
    except _Unknown as error:
        raise BadCalibration(f"{path}: {error}, which is not read. Save it as float32.") from error
    except _Objects as error:
        name = str(error)
        cure = {"embeddings": "embeddings.astype('float32')", "labels": "labels.astype(str)"}.get(name)
        raise BadCalibration(
            f"{path} contains pickled objects, which are never loaded: {name!r} is an array of Python objects. "
            f"Save {cure or 'plain arrays of numbers and text'}."
        ) from error
    except MemoryError:  # not damage: the sizes are allowed
        raise
    except Exception as error:  # damaged files raise many types: zlib.error, TokenError, ...
        problem = f"is damaged or not a {path.suffix} file: {first_line(error)}. Save it again, as float32."
        if suffix != ".safetensors" and content.startswith(_PICKLE):
            problem = "contains pickled objects, which are never loaded. Save plain arrays of numbers and text."
        raise BadCalibration(f"{path} {problem}") from error
    table = path.with_suffix(".csv")
    if suffix != ".npz" and table.is_file():
        beside = _read(table)
        return arrays | _columns(table, beside), beside
    if suffix == ".npy":
        raise BadCalibration(f"{path} has no labels; put {table.name} with a column 'identity' beside it.")
    return arrays, b""


class _Archive(io.BytesIO):
    """An archive in memory that refuses to read a large directory."""

    opened = False

    def read(self, size: int | None = -1, /) -> bytes:
        n_left = len(self.getbuffer()) - self.tell()
        if not self.opened and min(n_left, n_left if size is None or size < 0 else size) > _MAX_DIRECTORY:
            raise _TooLarge(f"a directory of over {_MAX_DIRECTORY >> 20} MiB")
        return super().read(size)


def _from_npz(content: bytes) -> dict[str, NDArray[Any]]:
    file = _Archive(content)
    with zipfile.ZipFile(file) as archive:
        file.opened = True
        members = archive.infolist()
        # zipfile returns no more bytes of a member than its directory states.
        n_bytes, n_file_bytes = sum(member.file_size for member in members), len(content)
        if n_bytes > MAX_BYTES:
            raise _TooLarge(f"arrays of {n_bytes / 2**30:.3g} GiB; at most {MAX_BYTES >> 30} GiB are read")
        if n_bytes > max(_LARGE, _RATIO * n_file_bytes):
            sizes = f"{n_bytes / 2**20:.0f} MiB in a file of {n_file_bytes / 2**20:.2g} MiB"
            raise _TooLarge(f"arrays of {sizes}, over {_RATIO} times as much; embeddings hardly compress")
        arrays = {}
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("a compression that numpy does not write")
            with archive.open(member) as inner:
                if inner.read(len(_MAGIC)) == _MAGIC:
                    name = member.filename.removesuffix(".npy")
                    arrays[name] = _array(name, inner, member.file_size)
    return arrays


def _from_npy(content: bytes) -> dict[str, NDArray[Any]]:
    if not content.startswith(_MAGIC):
        raise ValueError("not an array")
    return {"embeddings": _array("embeddings", io.BytesIO(content), len(content))}


def _array(name: str, file: Any, n_bytes: int) -> NDArray[Any]:
    """The array of this name in a file, if the shape and type in its header fit into `n_bytes`.

    numpy allocates what a header states before it reads the data.
    """
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise _Objects(name)
    fits = min(shape, default=0) >= 0 and math.prod(shape) * max(dtype.itemsize, 1) <= n_bytes
    if not fits:
        raise ValueError(f"a header states shape {str(shape)[:80]} of {str(dtype)[:40]} for {n_bytes} bytes of data")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _from_safetensors(content: bytes) -> dict[str, NDArray[Any]]:
    import safetensors

    if len(content) >= 8 and _MAX_DIRECTORY < struct.unpack("<Q", content[:8])[0] < len(content):
        raise _TooLarge(f"a header of over {_MAX_DIRECTORY >> 20} MiB")
    stored = dict(safetensors.deserialize(content))
    space = _metadata(content).get(_SPACE)
    declared = {} if space is None else {_SPACE: np.array(space)}
    return declared | {name: read for name, one in stored.items() if (read := _tensor(name, one)) is not None}


def _metadata(content: bytes) -> dict[str, str]:
    """The texts in the header of a .safetensors file that safetensors has read."""
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    return dict(header.get("__metadata__") or {})


def _tensor(name: str, stored: dict[str, Any]) -> NDArray[Any] | None:
    """A .safetensors tensor as an array; float32 for types that numpy lacks, None for types that are not read."""
    kind, data, shape = stored["dtype"], bytes(stored["data"]), stored["shape"]
    if kind == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    if kind == "F8_E5M2":  # the upper half of a float16
        return (np.frombuffer(data, "u1").astype("<u2") << 8).view("<f2").astype(np.float32).reshape(shape)
    if kind == "F8_E4M3":
        return _FLOAT8[np.frombuffer(data, "u1")].reshape(shape)
    if kind not in _TENSOR_TYPES:
        if name not in ("embeddings", "samples", *_LABEL_NAMES):
            return None
        raise _Unknown(f"{name!r} is of type {kind}")
    return np.frombuffer(data, _TENSOR_TYPES[kind]).reshape(shape)


def _float8() -> NDArray[np.float32]:
    """(256,) value of each code of float8 E4M3: a sign, four bits of exponent, three of fraction, no infinity."""
    codes = np.arange(256)
    exponent, fraction = codes >> 3 & 15, codes & 7
    size = np.where(exponent > 0, np.ldexp(1 + fraction / 8, exponent - 7), np.ldexp(fraction / 8, -6))
    size[codes & 127 == 127] = np.nan
    return np.where(codes < 128, size, -size).astype(np.float32)


_FLOAT8 = _float8()


def _columns(table: Path, content: bytes) -> dict[str, NDArray[Any]]:
    try:
        text = content.decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadCalibration(f"{table} is not a UTF-8 CSV file: {error}. Save it as UTF-8 CSV.") from error
    if not any(name in header for name in _LABEL_NAMES) or any(None in row or None in row.values() for row in rows):
        raise BadCalibration(
            f"{table} has the columns {', '.join(header) or 'none'}; a column 'identity' is needed, "
            "and every row must have one cell per column. Fix it."
        )
    renamed = {"sample": "samples"}
    columns = {renamed.get(name, name): [row[name].strip() for row in rows] for name in header if name}
    for name, column in columns.items():
        check_length(max(map(len, column), default=0), f"{table}: {name!r}")
    return {name: np.array(column, dtype=np.str_) for name, column in columns.items()}


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
