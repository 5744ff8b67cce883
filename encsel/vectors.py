"""Files of embeddings: reads .npz, .safetensors and .npy with .csv; writes .npz that only the owner can read."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Modality, Skipped
from encsel.errors import BadCalibration
from encsel.files import write_private

SUFFIXES = (".npz", ".safetensors", ".npy")
_LABEL_NAMES = ("labels", "identity", "label")
_ATTRIBUTE = "attribute."


def read_embeddings(path: Path, modality: Modality) -> tuple[Embeddings, tuple[Skipped, ...]]:
    """The distinct, finite rows of a file, and the rows that were not.

    Repeated rows of one identity (the same frame listed for several clips) are kept once. The file's name without
    suffix is the encoder's name.

    Raises:
        BadCalibration: not readable, pickled, not 2-D, labels missing or of another length.
    """
    content = _read(path)
    arrays = _arrays(path, content)
    where = str(path)
    if "embeddings" not in arrays:
        raise BadCalibration(f"{where} has the arrays {_names(arrays)}; 'embeddings' (rows, dim) is needed.")
    vectors = arrays.pop("embeddings")
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or not vectors.size:
        raise BadCalibration(
            f"{where}: 'embeddings' has shape {vectors.shape} and type {vectors.dtype}; "
            "numbers of shape (rows, dim) are needed."
        )
    if vectors.dtype not in (np.float32, np.float64):
        vectors = vectors.astype(np.float32)
    labels = next((arrays.pop(name) for name in _LABEL_NAMES if name in arrays), None)
    if labels is None:
        raise BadCalibration(f"{where} has no 'labels' (rows,), the identity of each row. Add them.")
    columns = {"labels": labels, **arrays}
    for name, column in columns.items():
        if column.ndim != 1 or len(column) != len(vectors):
            raise BadCalibration(
                f"{where}: {name!r} has shape {column.shape} for {len(vectors)} rows of embeddings; "
                f"({len(vectors)},) is needed."
            )
    text = {name: _as_text(column, f"{where}: {name!r}") for name, column in columns.items()}
    names = text.pop("samples", None)
    embeddings = Embeddings(
        path.stem, modality, vectors, text.pop("labels"),
        np.arange(len(vectors)).astype(np.str_) if names is None else names,
        {name.removeprefix(_ATTRIBUTE): column for name, column in text.items()},
        {"file": path.name, "sha256": hashlib.sha256(content).hexdigest()},
    )  # fmt: skip
    return keep_usable(embeddings)


def keep_usable(embeddings: Embeddings) -> tuple[Embeddings, tuple[Skipped, ...]]:
    """The rows that are finite, not all zero, and not a repetition within their identity; the rest, named."""
    finite = np.asarray(np.isfinite(embeddings.vectors).all(axis=1))
    usable = finite & embeddings.vectors.any(axis=1)
    skipped = tuple(
        Skipped(
            embeddings.modality,
            f"{embeddings.labels[i]}/{embeddings.samples[i]}",
            "all zeros" if finite[i] else "non-finite values",
            embeddings.name,
        )
        for i in np.flatnonzero(~usable)
    )
    rows = np.ascontiguousarray(embeddings.vectors)
    first: dict[tuple[str, bytes], int] = {}
    for i in np.flatnonzero(usable).tolist():
        first.setdefault((embeddings.labels[i], rows[i].tobytes()), i)
    return embeddings.rows(np.fromiter(first.values(), dtype=np.intp, count=len(first))), skipped


def write_embeddings(embeddings: Embeddings, path: Path) -> None:
    """Write an .npz in the layout that `read_embeddings` reads, atomically, mode 0600."""
    buffer = io.BytesIO()
    attributes: dict[str, Any] = {f"{_ATTRIBUTE}{name}": column for name, column in embeddings.attributes.items()}
    np.savez(
        buffer, embeddings=embeddings.vectors, labels=embeddings.labels.astype(np.str_),
        samples=embeddings.samples.astype(np.str_), **attributes,
    )  # fmt: skip
    write_private(path, buffer.getvalue())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCalibration(f"{path} cannot be read: {error.strerror}.") from error


def _arrays(path: Path, content: bytes) -> dict[str, NDArray[Any]]:
    readers = {".npz": _from_npz, ".safetensors": _from_safetensors, ".npy": _from_npy}
    try:
        arrays = readers[path.suffix.lower()](content)
    except (ValueError, EOFError, KeyError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if "pickle" in str(error).lower() or "object array" in str(error).lower():
            raise BadCalibration(
                f"{path} holds pickled objects, which are never loaded. Save plain numeric and text arrays."
            ) from error
        raise BadCalibration(f"{path} is damaged or no {path.suffix} file: {str(error).splitlines()[0]}") from error
    table = path.with_suffix(".csv")
    if path.suffix.lower() != ".npz" and table.is_file():
        arrays.update(_columns(table))
    elif path.suffix.lower() == ".npy":
        raise BadCalibration(f"{path} has no labels beside it; {table.name} with a column 'identity' is needed.")
    return arrays


def _from_npz(content: bytes) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array, not an archive of named arrays")
        return {name: archive[name] for name in archive.files}


def _from_npy(content: bytes) -> dict[str, NDArray[Any]]:
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("it is an archive, not one array")
    return {"embeddings": array}


def _from_safetensors(content: bytes) -> dict[str, NDArray[Any]]:
    import safetensors
    import safetensors.numpy

    try:
        return dict(safetensors.numpy.load(content))
    except (safetensors.SafetensorError, TypeError) as error:
        raise ValueError(str(error)) from error


def _columns(table: Path) -> dict[str, NDArray[Any]]:
    try:
        rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadCalibration(f"{table} is not a UTF-8 CSV file: {error}.") from error
    header = [name for name in (rows[0] if rows else {}) if name is not None]
    if not any(name in header for name in _LABEL_NAMES) or any(None in row or None in row.values() for row in rows):
        raise BadCalibration(
            f"{table} has the columns {', '.join(header) or 'none'}; 'identity' is needed, "
            "and a cell for each column in every row."
        )
    renamed = {"sample": "samples"}
    return {renamed.get(name, name): np.array([row[name] for row in rows]) for name in header}


def _as_text(column: NDArray[Any], what: str) -> NDArray[np.str_]:
    if column.dtype.kind == "S":
        try:
            return np.char.decode(column, "utf-8")
        except UnicodeDecodeError as error:
            raise BadCalibration(f"{what} holds bytes that are not UTF-8 text. Save it as text.") from error
    if column.dtype.kind not in "Uiub":
        raise BadCalibration(f"{what} is of type {column.dtype}; text or whole numbers are needed.")
    return column.astype(np.str_)


def _names(arrays: dict[str, NDArray[Any]]) -> str:
    return ", ".join(sorted(arrays)) or "none"
