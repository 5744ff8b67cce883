"""Files of embeddings: reads .npz, .safetensors and .npy with .csv; writes .npz that only the owner can read."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Modality, Skipped, Traits
from encsel.errors import BadCalibration
from encsel.files import write_private
from encsel.signature import canonical

SUFFIXES = (".npz", ".safetensors", ".npy")
_LABEL_NAMES = ("labels", "identity", "label")
_ATTRIBUTE = "attribute."
_ORIGIN = "encsel"
"""Array of an .npz with the JSON of what made the vectors, so that the signature keeps it and warnings stay."""
_TEXT_KINDS = "UiubS"
_PICKLE = b"\x80"


def read_embeddings(path: Path, modality: Modality) -> tuple[Embeddings, tuple[Skipped, ...]]:
    """The distinct, finite rows of a file, and the rows that were not.

    Repeated rows of one identity (the same frame listed for several clips) are kept once. The file's name without
    suffix is the encoder's name. Arrays (rows,) of text or whole numbers become attributes; other arrays are not used.

    Raises:
        BadCalibration: not readable, pickled, not 2-D, labels missing or of another length.
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
        name.removeprefix(_ATTRIBUTE): _as_text(column, f"{where}: {name!r}")
        for name, column in arrays.items() if column.shape == (len(vectors),) and column.dtype.kind in _TEXT_KINDS
    }  # fmt: skip
    embeddings = Embeddings(
        path.stem, modality, vectors, _as_text(labels, f"{where}: 'labels'"), _as_text(samples, f"{where}: 'samples'"),
        attributes,
        {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), **made_by}, traits,
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
        return path.read_bytes()
    except OSError as error:
        raise BadCalibration(f"{path} cannot be read: {error.strerror}. Check the path.") from error


def _arrays(path: Path, content: bytes) -> dict[str, NDArray[Any]]:
    readers = {".npz": _from_npz, ".safetensors": _from_safetensors, ".npy": _from_npy}
    suffix = path.suffix.lower()
    try:
        arrays = readers[suffix](content)
    except Exception as error:  # damaged files raise many types: zlib.error, TokenError, MemoryError, ...
        if "object array" in str(error).lower() or (suffix != ".safetensors" and content.startswith(_PICKLE)):
            raise BadCalibration(
                f"{path} holds pickled objects, which are never loaded. Save plain numeric and text arrays."
            ) from error
        what = (str(error) or type(error).__name__).splitlines()[0]
        raise BadCalibration(
            f"{path} is damaged or no {path.suffix} file: {what}. Write it again, in float32."
        ) from error
    table = path.with_suffix(".csv")
    if suffix != ".npz" and table.is_file():
        arrays.update(_columns(table))
    elif suffix == ".npy":
        raise BadCalibration(f"{path} has no labels beside it; {table.name} with a column 'identity' is needed.")
    return arrays


def _from_npz(content: bytes) -> dict[str, NDArray[Any]]:
    if not content.startswith(b"PK"):  # np.load would take it for a pickle
        raise ValueError("it is no archive of named arrays")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: a for name in archive.files if isinstance(a := archive[name], np.ndarray)}


def _from_npy(content: bytes) -> dict[str, NDArray[Any]]:
    if not content.startswith(b"\x93NUMPY"):
        raise ValueError("it is no array")
    return {"embeddings": np.load(io.BytesIO(content), allow_pickle=False)}


def _from_safetensors(content: bytes) -> dict[str, NDArray[Any]]:
    import safetensors.numpy

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
    return {renamed.get(name, name): np.array([row[name].strip() for row in rows]) for name in header if name}


def _as_text(column: NDArray[Any], what: str) -> NDArray[np.str_]:
    if column.dtype.kind not in _TEXT_KINDS:
        raise BadCalibration(f"{what} is of type {column.dtype}; text or whole numbers are needed.")
    try:
        return np.char.decode(column, "utf-8") if column.dtype.kind == "S" else np.array(column.tolist(), np.str_)
    except (ValueError, SystemError) as error:  # not UTF-8; a code point that does not exist
        raise BadCalibration(f"{what} holds bytes that are not text. Save it as UTF-8 text.") from error


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
