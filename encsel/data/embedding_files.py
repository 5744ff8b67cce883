"""Files of embeddings: reads .npz, .safetensors and .npy with .csv; writes .npz that only the owner can read."""

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
from encsel.errors import BadCalibration, printable
from encsel.storage.files import write_private
from encsel.storage.reading import read_whole
from encsel.storage.signature import canonical

SUFFIXES = (".npz", ".safetensors", ".npy")
_LABEL_NAMES = ("labels", "identity", "label")
_ATTRIBUTE = "attribute."
_ORIGIN = "encsel"
"""Array of an .npz with the JSON of what made the vectors, so that the signature keeps it and warnings stay."""
_TEXT_KINDS = "UiubS"
_PICKLE = b"\x80"
_MAGIC = b"\x93NUMPY"

MAX_BYTES = 8 << 30
"""Of a file, and of what its arrays take in memory: 2 million samples of 1024 float32 dimensions."""
_LARGE, _RATIO = 256 << 20, 200
"""Over so many bytes, arrays may take so many times their file: embeddings hardly compress, bombs do."""
_MAX_DIRECTORY = 4 << 20
"""Bytes of an archive's directory, or of the header of .safetensors: tens of thousands of arrays."""
MAX_NAME = 1024
"""Characters of a name of a person or sample. numpy gives every row of a column the room of its longest."""


def read_embeddings(path: Path, modality: Modality) -> tuple[Embeddings, tuple[Skipped, ...]]:
    """The distinct, finite rows of a file, and the rows that were not.

    Repeated rows of one identity (the same frame listed for several clips) are kept once. The file's name without
    suffix is the encoder's name. Arrays (rows,) of text or whole numbers become attributes; other arrays are not used.

    Raises:
        BadCalibration: not readable, pickled, too large, not 2-D, labels missing or of another length.
    """
    content = _read(path)
    arrays = _arrays(path, content)
    where = str(path)
    if "embeddings" not in arrays:
        raise BadCalibration(f"{where} has the arrays {_names(arrays)}; 'embeddings' (rows, dim) is needed. Add it.")
    vectors = arrays.pop("embeddings")
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or not vectors.size:
        raise BadCalibration(
            f"{where}: 'embeddings' has shape {vectors.shape} and type {vectors.dtype}; "
            "numbers of shape (rows, dim) are needed."
        )
    if vectors.dtype not in (np.float32, np.float64):
        with np.errstate(all="ignore"):  # beyond float32 it is not finite, and named below
            vectors = vectors.astype(np.float32)
    labels = next((arrays.pop(name) for name in _LABEL_NAMES if name in arrays), None)
    if labels is None:
        raise BadCalibration(f"{where} has no 'labels' (rows,), the identity of each row. Add them.")
    samples = arrays.pop("samples", np.arange(len(vectors)))
    for name, column in (("labels", labels), ("samples", samples)):
        if column.shape != (len(vectors),):
            raise BadCalibration(
                f"{where}: {name!r} has shape {column.shape} for {len(vectors)} rows of embeddings; "
                f"({len(vectors)},) is needed."
            )
    made_by, traits = _origin(arrays.pop(_ORIGIN, None), where)
    attributes = {
        printable(name.removeprefix(_ATTRIBUTE)): _shown(_as_text(column, f"{where}: {name!r}"))
        for name, column in arrays.items() if column.shape == (len(vectors),) and column.dtype.kind in _TEXT_KINDS
    }  # fmt: skip
    embeddings = Embeddings(
        printable(path.stem), modality, vectors,
        _as_text(labels, f"{where}: 'labels'"), _as_text(samples, f"{where}: 'samples'"), attributes,
        {"file": printable(path.name), "sha256": hashlib.sha256(content).hexdigest(), **made_by}, traits,
    )  # fmt: skip
    return keep_usable(embeddings)


def keep_usable(embeddings: Embeddings) -> tuple[Embeddings, tuple[Skipped, ...]]:
    """The rows with a label, finite, not all zero, and not a repetition within their identity; the rest, named."""
    reasons = np.select(
        [~np.isfinite(embeddings.vectors).all(axis=1), (embeddings.vectors == 0).all(axis=1), embeddings.labels == ""],
        ["non-finite values", "all zeros", "no identity"], default="",
    )  # fmt: skip
    skipped = tuple(
        Skipped(
            embeddings.modality, f"{embeddings.labels[i]}/{embeddings.samples[i]}", str(reasons[i]), embeddings.name
        )
        for i in np.flatnonzero(reasons != "")
    )
    rows = np.ascontiguousarray(embeddings.vectors)
    usable = np.flatnonzero(reasons == "")
    # By sample name: of repeated rows the same one stays, in whatever order a file lists them.
    first: dict[tuple[str, bytes], int] = {}
    for i in usable[np.argsort(embeddings.samples[usable], kind="stable")].tolist():
        content = hashlib.blake2b(rows[i].data, digest_size=16).digest()
        first.setdefault((embeddings.labels[i], content), i)
    return embeddings.rows(np.array(sorted(first.values()), dtype=np.intp)), skipped


def write_embeddings(embeddings: Embeddings, path: Path) -> None:
    """Write an .npz in the layout that `read_embeddings` reads, atomically, mode 0600."""
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
    """Arrays that would take more memory than a file of embeddings has any use for."""


def _check_size(n_bytes: int, n_file_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise _TooLarge(f"holds arrays of {n_bytes / 2**30:.3g} GiB; at most {MAX_BYTES >> 30} GiB are read")
    if n_bytes > max(_LARGE, _RATIO * n_file_bytes):
        raise _TooLarge(
            f"holds arrays of {n_bytes / 2**20:.0f} MiB in a file of {n_file_bytes / 2**20:.2g} MiB, over {_RATIO} "
            "times as much; embeddings do not compress so far"
        )


def _arrays(path: Path, content: bytes) -> dict[str, NDArray[Any]]:
    readers = {".npz": _from_npz, ".safetensors": _from_safetensors, ".npy": _from_npy}
    suffix = path.suffix.lower()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, of headers that Python 2 wrote
            arrays = readers[suffix](content)
    except _TooLarge as error:
        raise BadCalibration(f"{path} {error}. Split the set, or write the file again, in float32.") from error
    except MemoryError:  # sizes were judged before
        raise
    except Exception as error:  # damaged files raise many types: zlib.error, TokenError, ...
        if "object array" in str(error).lower() or (suffix != ".safetensors" and content.startswith(_PICKLE)):
            raise BadCalibration(
                f"{path} holds pickled objects, which are never loaded. Save plain numeric and text arrays."
            ) from error
        what = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise BadCalibration(
            f"{path} is damaged or no {path.suffix} file: {what}. Write it again, in float32."
        ) from error
    table = path.with_suffix(".csv")
    if suffix != ".npz" and table.is_file():
        arrays.update(_columns(table))
    elif suffix == ".npy":
        raise BadCalibration(f"{path} has no labels beside it; {table.name} with a column 'identity' is needed.")
    return arrays


class _Archive(io.BytesIO):
    """An archive in memory whose directory is not read when it is a large one."""

    opened = False

    def read(self, size: int | None = -1, /) -> bytes:
        n_left = len(self.getbuffer()) - self.tell()
        if not self.opened and min(n_left, n_left if size is None or size < 0 else size) > _MAX_DIRECTORY:
            raise _TooLarge(f"has a directory of over {_MAX_DIRECTORY >> 20} MiB; no set has so many arrays")
        return super().read(size)


def _from_npz(content: bytes) -> dict[str, NDArray[Any]]:
    if not content.startswith(b"PK"):  # np.load would take it for a pickle
        raise ValueError("it is no archive of named arrays")
    file = _Archive(content)
    with zipfile.ZipFile(file) as archive:
        file.opened = True
        members = archive.infolist()
        # zipfile gives no more of a member than its directory states, whatever the compressed bytes hold.
        _check_size(sum(member.file_size for member in members), len(content))
        arrays = {}
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("it is compressed in a way that numpy does not write")
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
        raise ValueError("it is no array")
    _check_header(io.BytesIO(content), len(content))
    return {"embeddings": np.load(io.BytesIO(content), allow_pickle=False)}


def _check_header(file: Any, n_bytes: int) -> None:
    """Nothing, when the array whose header `file` begins with is as long as its `n_bytes` tell.

    numpy makes the room that a header asks for before it looks at what follows.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        return  # refused with words of its own
    if any(n < 0 for n in shape) or math.prod(shape) * max(dtype.itemsize, 1) > n_bytes:
        raise ValueError(f"an array states the shape {str(shape)[:80]} of {str(dtype)[:40]} and holds {n_bytes} bytes")


def _from_safetensors(content: bytes) -> dict[str, NDArray[Any]]:
    import safetensors.numpy

    if len(content) >= 8 and _MAX_DIRECTORY < struct.unpack("<Q", content[:8])[0] < len(content):
        raise _TooLarge(f"has a header of over {_MAX_DIRECTORY >> 20} MiB; no set has so many arrays")
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
            f"{table} has the columns {', '.join(header) or 'none'}; 'identity' is needed, "
            "and a cell for each column in every row. Add what is missing."
        )
    renamed = {"sample": "samples"}
    columns = {renamed.get(name, name): [row[name].strip() for row in rows] for name in header if name}
    for name, column in columns.items():
        _check_lengths(max(map(len, column), default=0), f"{table}: {name!r}")
    return {name: np.array(column, dtype=np.str_) for name, column in columns.items()}


def _check_lengths(longest: int, what: str) -> None:
    if longest > MAX_NAME:
        raise BadCalibration(f"{what} holds a text of {longest} characters; at most {MAX_NAME} are read. Shorten it.")


def _as_text(column: NDArray[Any], what: str) -> NDArray[np.str_]:
    if column.dtype.kind not in _TEXT_KINDS:
        raise BadCalibration(f"{what} is of type {column.dtype}; text or whole numbers are needed.")
    if column.dtype.kind in "US" and column.size:
        _check_lengths(int(np.char.str_len(column).max()), what)
    try:
        return np.char.decode(column, "utf-8") if column.dtype.kind == "S" else np.array(column.tolist(), np.str_)
    except (ValueError, SystemError) as error:  # not UTF-8; a code point that does not exist
        raise BadCalibration(f"{what} holds bytes that are not text. Save it as UTF-8 text.") from error


def _shown(column: NDArray[np.str_]) -> NDArray[np.str_]:
    """Values that reports print."""
    return np.array([printable(text) for text in column.tolist()], dtype=np.str_)


def _origin(array: NDArray[Any] | None, where: str) -> tuple[dict[str, Any], Traits]:
    """What `write_embeddings` noted of the encoder; nothing for files of other makers."""
    if array is None or array.shape != () or array.dtype.kind != "U":
        return {}, Traits()
    try:
        origin = json.loads(str(array))
        traits = {**origin["traits"], "flags": tuple(origin["traits"]["flags"])}
        return {"made_by": dict(origin["made_by"])}, Traits(**traits)
    except (ValueError, KeyError, TypeError) as error:
        raise BadCalibration(f"{where}: the note on its encoder is damaged ({error}). Embed the set again.") from error


def _names(arrays: dict[str, NDArray[Any]]) -> str:
    return ", ".join(sorted(arrays)) or "none"
