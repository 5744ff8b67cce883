"""Arrays in .npz, .safetensors and .npy files, mapped into memory where they are large, and the table beside them."""

import csv
import io
import itertools
import json
import math
import mmap
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.data.arrays import check_length
from encsel.errors import BadCalibration, first_line
from encsel.rows import BLOCK_ROWS, FileMap, converted, release
from encsel.storage.files import open_ordinary, read_whole, stand_in

EMBEDDING_SUFFIXES = (".npz", ".safetensors", ".npy")
LABEL_NAMES = ("labels", "identity", "label")
SPACE = "space"  # array, column or entry of the metadata of .safetensors with the name of the joint space
MAPPED_BYTES = 4 << 20
"""Size from which files, and arrays in them, are mapped instead of read."""
MAX_BYTES = 8 << 30  # of what is read into memory: compressed arrays, text
MAX_MAPPED_BYTES = 1 << 40
_LARGE, _RATIO = 256 << 20, 200  # larger arrays may be _RATIO times their file: embeddings hardly compress, bombs do
_MAX_DIRECTORY = 4 << 20  # bytes of an archive's directory or a .safetensors header: tens of thousands of arrays
_HASHED = 16 << 20  # bytes at a time
_PICKLE = b"\x80"
_MAGIC = b"\x93NUMPY"
_TENSOR_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?", "C64": "<c8", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
    "BF16": "<u2", "F8_E5M2": "u1", "F8_E4M3": "u1",
}  # fmt: skip
"""numpy's types of the types of .safetensors, and of the codes of those that it lacks."""

Content = bytes | FileMap
Arrays = dict[str, NDArray[Any]]


class _Objects(Exception):
    """An array of Python objects, which would be unpickled."""


class _Unknown(Exception):
    """An array of a type that numpy does not have."""


class _TooLarge(Exception):
    """Arrays that would take more memory than any set of embeddings needs."""


def read_arrays(path: Path, hashed: Any) -> Arrays:
    """The arrays of a file and the columns of the table beside it; their content is added to the hash `hashed`.

    Raises:
        BadCalibration: a file that is unreadable, damaged, pickled or too large, or an .npy without a table.
    """
    readers = {".npz": _from_npz, ".safetensors": _from_safetensors, ".npy": _from_npy}
    suffix, content = path.suffix.lower(), _read(path)
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
        if suffix != ".safetensors" and content[:1] == _PICKLE:
            problem = "contains pickled objects, which are never loaded. Save plain arrays of numbers and text."
        raise BadCalibration(f"{path} {problem}") from error
    _each_part(content, hashed.update)
    table = path.with_suffix(".csv")
    if suffix != ".npz" and table.is_file():
        beside = _read(table)
        _each_part(beside, hashed.update)
        return arrays | _columns(table, beside)
    if suffix == ".npy":
        raise BadCalibration(f"{path} has no labels; put {table.name} with a column 'identity' beside it.")
    return arrays


def _read(path: Path) -> Content:
    try:
        with open_ordinary(path, MAX_MAPPED_BYTES) as file:
            is_large = os.fstat(file.fileno()).st_size >= MAPPED_BYTES
            content = FileMap(file.fileno(), 0, access=mmap.ACCESS_READ) if is_large else read_whole(path, MAX_BYTES)
    except OSError as error:
        instead = stand_in(os.fsencode(path.readlink())) if path.is_symlink() else None
        problem = f"{error.strerror}; it is {instead}" if instead else f"{error.strerror}. Check the path"
        raise BadCalibration(f"{path} cannot be read: {problem}.") from error
    if instead := stand_in(content[: 1 << 16]):
        raise BadCalibration(f"{path} is damaged or not a {path.suffix.lower()} file: it is {instead}.")
    return content


def _each_part(content: Content, use: Callable[[memoryview], Any], start: int = 0, stop: int | None = None) -> None:
    """Pass the bytes from `start` to `stop` on, _HASHED at a time."""
    view = memoryview(content)[start:stop]
    for at in range(0, len(view), _HASHED):
        use(view[at : at + _HASHED])
        release(content)


class _Reader(io.RawIOBase):
    """A file over bytes or a mapped file, which refuses to read more than `limit` bytes at once."""

    def __init__(self, content: Content, limit: int | None = None) -> None:
        self._view, self._at, self.limit = memoryview(content), 0, limit

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0, /) -> int:
        at = (0, self._at, len(self._view))[whence] + offset
        if at < 0:
            raise OSError("before the begin of the file")
        self._at = at
        return at

    def readinto(self, buffer: Any, /) -> int:
        part = self._view[self._at :][: len(buffer)]
        if self.limit is not None and len(part) > self.limit:
            raise _TooLarge(f"a directory of over {self.limit >> 20} MiB")
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def read(self, size: int | None = -1, /) -> bytes:
        n_left = max(len(self._view) - self._at, 0)
        part = bytearray(n_left if size is None or size < 0 else min(size, n_left))
        self.readinto(part)
        return bytes(part)


def _from_npz(content: Content) -> Arrays:
    file = _Reader(content, _MAX_DIRECTORY)
    with zipfile.ZipFile(file) as archive:
        file.limit = None
        members = archive.infolist()
        # zipfile returns no more bytes of a member than its directory states.
        n_bytes, n_file_bytes = sum(member.file_size for member in members), len(content)
        n_read = sum(member.file_size for member in members if not _is_mapped(content, member))
        if n_read > MAX_BYTES:
            raise _TooLarge(f"arrays of {n_read / 2**30:.3g} GiB; at most {MAX_BYTES >> 30} GiB are read")
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
                    start = _place_of(content, member) if _is_mapped(content, member) else None
                    arrays[name] = _array(name, inner, member.file_size, content, start)
    return arrays


def _is_mapped(content: Content, member: zipfile.ZipInfo) -> bool:
    """Whether the bytes of a member lie in a mapped file as they are."""
    is_stored = member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
    return isinstance(content, FileMap) and is_stored and member.file_size >= MAPPED_BYTES


def _place_of(content: Content, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin, whose checksum is right."""
    header = member.header_offset
    start = header + 30 + sum(struct.unpack("<HH", content[header + 26 : header + 30]))
    checksum = 0

    def add(part: memoryview) -> None:
        nonlocal checksum
        checksum = zlib.crc32(part, checksum)

    _each_part(content, add, start, start + member.file_size)
    if checksum != member.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {member.filename!r}")
    return start


def _from_npy(content: Content) -> Arrays:
    if content[: len(_MAGIC)] != _MAGIC:
        raise ValueError("not an array")
    start = 0 if isinstance(content, FileMap) else None
    return {"embeddings": _array("embeddings", _Reader(content), len(content), content, start)}


def _array(name: str, file: Any, n_bytes: int, content: Content, start: int | None) -> NDArray[Any]:
    """The array of this name in a file, if the shape and type in its header fit into `n_bytes`.

    numpy allocates what a header states before it reads the data. With `start`, the place of the file in a mapped
    `content`, the array lies there.
    """
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if dtype.hasobject:
        raise _Objects(name)
    fits = min(shape, default=0) >= 0 and math.prod(shape) * max(dtype.itemsize, 1) <= n_bytes
    if not fits:
        raise ValueError(f"a header states shape {str(shape)[:80]} of {str(dtype)[:40]} for {n_bytes} bytes of data")
    size = math.prod(shape) * dtype.itemsize
    if start is not None and MAPPED_BYTES <= size <= n_bytes - file.tell():
        return np.ndarray(shape, dtype, content, start + file.tell(), order="F" if is_fortran else "C")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _from_safetensors(content: Content) -> Arrays:
    start = 8 + struct.unpack("<Q", content[:8])[0]
    if _MAX_DIRECTORY < start - 8 < len(content):
        raise _TooLarge(f"a header of over {_MAX_DIRECTORY >> 20} MiB")
    if start > len(content):
        raise ValueError("it ends in its header")
    header = json.loads(content[8:start])
    metadata = header.pop("__metadata__", None) or {}
    arrays = {SPACE: np.array(metadata[SPACE])} if SPACE in metadata else {}
    end = 0
    # The tensors fill the file one after the other, as its writers make sure.
    for name, one in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = one["data_offsets"]
        if first != end or last < first:
            raise ValueError(f"the data of {name!r} do not follow those before")
        end = last
        if (read := _tensor(name, one["dtype"], one["shape"], content, start + first, last - first)) is not None:
            arrays[name] = read
    if start + end != len(content):
        raise ValueError(f"{len(content) - start} bytes of data where the header states {end}")
    return arrays


def _tensor(name: str, kind: str, shape: list[int], content: Content, start: int, n_bytes: int) -> NDArray[Any] | None:
    """A .safetensors tensor as an array; float32 for types that numpy lacks, None for types that are not read."""
    if kind not in _TENSOR_TYPES:
        if name not in ("embeddings", "samples", *LABEL_NAMES):
            return None
        raise _Unknown(f"{name!r} is of type {kind}")
    dtype = np.dtype(_TENSOR_TYPES[kind])
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != n_bytes:
        raise ValueError(f"{name!r} has {n_bytes} bytes for shape {str(shape)[:80]} of {kind}")
    stored: NDArray[Any] = np.ndarray(shape, dtype, content, start)
    if isinstance(content, FileMap) and n_bytes < MAPPED_BYTES:
        stored = stored.copy()  # so that a few labels do not hold the map
    return converted(stored, _WIDENED[kind], np.float32) if kind in _WIDENED and stored.ndim else stored


def _float8() -> NDArray[np.float32]:
    """(256,) value of each code of float8 E4M3: a sign, four bits of exponent, three of fraction, no infinity."""
    codes = np.arange(256)
    exponent, fraction = codes >> 3 & 15, codes & 7
    size = np.where(exponent > 0, np.ldexp(1 + fraction / 8, exponent - 7), np.ldexp(fraction / 8, -6))
    size[codes & 127 == 127] = np.nan
    return np.where(codes < 128, size, -size).astype(np.float32)


_FLOAT8 = _float8()

_WIDENED: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "BF16": lambda codes: (codes.astype("<u4") << 16).view("<f4"),  # the upper half of a float32
    "F8_E5M2": lambda codes: (codes.astype("<u2") << 8).view("<f2"),  # the upper half of a float16
    "F8_E4M3": lambda codes: _FLOAT8[codes],
}


def _columns(table: Path, content: Content) -> Arrays:
    """The columns of a table with a header."""
    parts: list[list[NDArray[np.str_]]] = []
    is_whole = True
    try:
        text = io.TextIOWrapper(io.BufferedReader(_Reader(content)), encoding="utf-8-sig", newline="")
        reader = csv.reader(text, strict=True)
        header = [name.strip() for name in next(reader, [])]
        names = [_RENAMED.get(name, name) for name in header]
        while rows := list(itertools.islice(filter(None, reader), BLOCK_ROWS)):
            is_whole = is_whole and all(len(row) == len(names) for row in rows)
            if is_whole:
                cells = zip(*rows, strict=True)
                parts.append([_column(f"{table}: {name!r}", c) for name, c in zip(names, cells, strict=True)])
            release(content)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadCalibration(f"{table} is not a UTF-8 CSV file: {error}. Save it as UTF-8 CSV.") from error
    if not is_whole or not any(name in names for name in LABEL_NAMES):
        raise BadCalibration(
            f"{table} has the columns {', '.join(header) or 'none'}; a column 'identity' is needed, "
            "and every row must have one cell per column. Fix it."
        )
    columns = zip(*parts, strict=True) if parts else [[np.array([], np.str_)]] * len(names)
    return {name: np.concatenate(column) for name, column in zip(names, columns, strict=True) if name}


def _column(where: str, cells: Sequence[str]) -> NDArray[np.str_]:
    check_length(max(map(len, cells)), where)
    return np.array([cell.strip() for cell in cells], np.str_)


_RENAMED = {"sample": "samples"}
