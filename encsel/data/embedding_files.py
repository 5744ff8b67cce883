"""Embedding files: read .npz, .safetensors and .npy with .csv; write .npz with mode 0600."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import struct
import warnings
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Modality, Skipped, Traits
from encsel.data.arrays import TEXT_KINDS, as_text, check_length, checked_vectors, keep_usable, shown
from encsel.errors import BadCalibration, first_line, printable
from encsel.storage.files import read_whole, write_private
from encsel.storage.signature import canonical

EMBEDDING_SUFFIXES = (".npz", ".safetensors", ".npy")
_LABEL_NAMES = ("labels", "identity", "label")
_ATTRIBUTE = "attribute."
_ORIGIN = "encsel"
"""Array of an .npz with the provenance and traits of the encoder as JSON, for signatures and warnings."""
_PICKLE = b"\x80"
_MAGIC = b"\x93NUMPY"

MAX_BYTES = 8 << 30
"""Largest file, and largest total of its arrays in memory: 2 million rows of 1024 float32 dimensions."""
_LARGE, _RATIO = 256 << 20, 200
"""Arrays over _LARGE bytes may take _RATIO times the size of their file: embeddings hardly compress, bombs do."""
_MAX_DIRECTORY = 4 << 20
"""Bytes of the directory of an archive or the header of .safetensors: tens of thousands of arrays."""


def read_embeddings(path: Path, modality: Modality) -> tuple[Embeddings, tuple[Skipped, ...]]:
    """The usable rows of a file, and the rows skipped.

    The encoder is named after the file. Arrays (rows,) of text or whole numbers become attributes; other arrays are
    ignored. Repeated rows of an identity (a frame listed for several clips) are kept once.

    Raises:
        BadCalibration: not readable, pickled, too large, not 2-D, no labels, or columns of another length.
    """
    content = _read(path)
    arrays = _arrays(path, content)
    if "embeddings" not in arrays:
        names = ", ".join(sorted(arrays)) or "none"
        raise BadCalibration(f"{path}: the arrays are {names}; 'embeddings' (rows, dim) is needed. Add it.")
    vectors = checked_vectors(arrays.pop("embeddings"), str(path))
    labels = next((arrays.pop(name) for name in _LABEL_NAMES if name in arrays), None)
    if labels is None:
        raise BadCalibration(f"{path}: 'labels' (rows,), the identity of each row, is missing. Add it.")
    samples = arrays.pop("samples", np.arange(len(vectors)))
    for name, column in (("labels", labels), ("samples", samples)):
        if column.shape != (len(vectors),):
            raise BadCalibration(
                f"{path}: {name!r} has shape {column.shape} for {len(vectors)} rows of embeddings; "
                f"({len(vectors)},) is needed."
            )
    made_by, traits = _origin(arrays.pop(_ORIGIN, None), path)
    attributes = {
        printable(name.removeprefix(_ATTRIBUTE)): shown(as_text(column, f"{path}: {name!r}"))
        for name, column in arrays.items() if column.shape == (len(vectors),) and column.dtype.kind in TEXT_KINDS
    }  # fmt: skip
    embeddings = Embeddings(
        printable(path.stem), modality, vectors,
        as_text(labels, f"{path}: 'labels'"), as_text(samples, f"{path}: 'samples'"), attributes,
        {"file": printable(path.name), "sha256": hashlib.sha256(content).hexdigest(), **made_by}, traits,
    )  # fmt: skip
    return keep_usable(embeddings)


def write_embeddings(embeddings: Embeddings, path: Path) -> None:
    """Write an .npz that `read_embeddings` reads, atomically and with mode 0600."""
    buffer = io.BytesIO()
    columns: dict[str, Any] = {f"{_ATTRIBUTE}{name}": column for name, column in embeddings.attributes.items()}
    columns[_ORIGIN] = np.array(
        canonical({"made_by": dict(embeddings.provenance), "traits": asdict(embeddings.traits)})
    )
    np.savez(
        buffer, embeddings=embeddings.vectors, labels=embeddings.labels.astype(np.str_),
        samples=embeddings.samples.astype(np.str_), **columns,
    )  # fmt: skip
    write_private(path, buffer.getvalue())


def _read(path: Path) -> bytes:
    try:
        return read_whole(path, MAX_BYTES)
    except OSError as error:
        raise BadCalibration(f"{path} cannot be read: {error.strerror}. Check the path.") from error


class _TooLarge(Exception):
    """Arrays that would take more memory than any set of embeddings needs."""


def _check_size(n_bytes: int, n_file_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise _TooLarge(f"arrays of {n_bytes / 2**30:.3g} GiB; at most {MAX_BYTES >> 30} GiB are read")
    if n_bytes > max(_LARGE, _RATIO * n_file_bytes):
        raise _TooLarge(
            f"arrays of {n_bytes / 2**20:.0f} MiB in a file of {n_file_bytes / 2**20:.2g} MiB, over {_RATIO} "
            "times as much; embeddings hardly compress"
        )


def _arrays(path: Path, content: bytes) -> dict[str, NDArray[Any]]:
    readers = {".npz": _from_npz, ".safetensors": _from_safetensors, ".npy": _from_npy}
    suffix = path.suffix.lower()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of headers written by Python 2
            arrays = readers[suffix](content)
    except _TooLarge as error:
        raise BadCalibration(f"{path} is too large: {error}. Split the set, or save it as float32.") from error
    except MemoryError:  # not damage: the sizes are allowed
        raise
    except Exception as error:  # damaged files raise many types: zlib.error, TokenError, ...
        if "object array" in str(error).lower() or (suffix != ".safetensors" and content.startswith(_PICKLE)):
            raise BadCalibration(
                f"{path} contains pickled objects, which are never loaded. Save plain arrays of numbers and text."
            ) from error
        raise BadCalibration(
            f"{path} is damaged or not a {path.suffix} file: {first_line(error)}. Save it again, as float32."
        ) from error
    table = path.with_suffix(".csv")
    if suffix != ".npz" and table.is_file():
        arrays.update(_columns(table))
    elif suffix == ".npy":
        raise BadCalibration(f"{path} has no labels; put {table.name} with a column 'identity' beside it.")
    return arrays


class _Archive(io.BytesIO):
    """An archive in memory that refuses to read a large directory."""

    opened = False

    def read(self, size: int | None = -1, /) -> bytes:
        n_left = len(self.getbuffer()) - self.tell()
        if not self.opened and min(n_left, n_left if size is None or size < 0 else size) > _MAX_DIRECTORY:
            raise _TooLarge(f"a directory of over {_MAX_DIRECTORY >> 20} MiB")
        return super().read(size)


def _from_npz(content: bytes) -> dict[str, NDArray[Any]]:
    if not content.startswith(b"PK"):  # np.load would unpickle it
        raise ValueError("not an archive of named arrays")
    file = _Archive(content)
    with zipfile.ZipFile(file) as archive:
        file.opened = True
        members = archive.infolist()
        # zipfile returns no more bytes of a member than its directory states.
        _check_size(sum(member.file_size for member in members), len(content))
        arrays = {}
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("a compression that numpy does not write")
            with archive.open(member) as inner:
                if inner.read(len(_MAGIC)) != _MAGIC:
                    continue
            with archive.open(member) as inner:
                _check_header(inner, member.file_size)
            with archive.open(member) as inner:
                arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(inner, allow_pickle=False)
    return arrays


def _from_npy(content: bytes) -> dict[str, NDArray[Any]]:
    if not content.startswith(_MAGIC):
        raise ValueError("not an array")
    _check_header(io.BytesIO(content), len(content))
    return {"embeddings": np.load(io.BytesIO(content), allow_pickle=False)}


def _check_header(file: Any, n_bytes: int) -> None:
    """Check that the shape and type at the beginning of `file` fit into its `n_bytes`.

    numpy allocates what a header states before it reads the data.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        return  # refused as a pickle later
    if any(n < 0 for n in shape) or math.prod(shape) * max(dtype.itemsize, 1) > n_bytes:
        raise ValueError(f"a header states shape {str(shape)[:80]} of {str(dtype)[:40]} for {n_bytes} bytes of data")


def _from_safetensors(content: bytes) -> dict[str, NDArray[Any]]:
    import safetensors.numpy

    if len(content) >= 8 and _MAX_DIRECTORY < struct.unpack("<Q", content[:8])[0] < len(content):
        raise _TooLarge(f"a header of over {_MAX_DIRECTORY >> 20} MiB")
    return dict(safetensors.numpy.load(content))


def _columns(table: Path) -> dict[str, NDArray[Any]]:
    try:
        text = _read(table).decode("utf-8-sig")
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
    try:
        origin = json.loads(str(array))
        traits = {**origin["traits"], "flags": tuple(origin["traits"]["flags"])}
        return {"made_by": dict(origin["made_by"])}, Traits(**traits)
    except (ValueError, KeyError, TypeError) as error:
        raise BadCalibration(f"{path}: the array {_ORIGIN!r} is damaged ({error}). Embed the set again.") from error
