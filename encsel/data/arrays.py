"""Checked embeddings from arrays, whether in memory or read from a file."""

import hashlib
import numbers
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Modality, Skipped, Traits, Vectors
from encsel.data.identities import normal, some
from encsel.errors import BadCalibration, UsageError, first_line, printable
from encsel.rows import blocks, converted, equal_rows, is_mapped
from encsel.storage.signature import canonical

Checked = tuple[Embeddings, tuple[Skipped, ...]]  # the usable rows of one encoder, and the rows skipped
MAX_NAME = 1024  # characters of a name or an attribute: numpy pads every row of a column to the longest
TEXT_KINDS = "UiubS"  # kinds of numpy types that are read as text: names and whole numbers


def checked_embeddings(name: str, modality: Modality, vectors: Any, identities: Any, columns: Any = ()) -> Checked:
    """Check arrays in memory; see `CalibrationSet.from_arrays` for what is accepted and what is raised."""
    where = f"{modality}s[{name!r}]"
    if not isinstance(name, str) or not name or "/" in name:
        raise UsageError(f"{where}: the name of an encoder must be text without slashes. Rename it.")
    array = checked_vectors(_as_array(vectors, where), where)
    n = len(array)
    labels = _text_column(identities, n, f"{where}: the identities")
    columns = dict(columns)
    samples = _text_column(columns.pop("samples", range(n)), n, f"{where}: 'samples'")
    space = columns.pop("space", "")
    in_rows = [space] * n if isinstance(space, str) else space
    space = space_of(_text_column(in_rows, n, f"{where}: 'space'", optional=True).tolist(), where)
    attributes = {
        printable(str(key)): shown(_text_column(column, n, f"{where}: {key!r}", optional=True))
        for key, column in columns.items()
    }
    names = [labels.tolist(), samples.tolist(), {key: column.tolist() for key, column in attributes.items()}]
    content = hashlib.sha256()
    for _, block in blocks(array):
        content.update(np.ascontiguousarray(block).data)
    content.update(canonical([array.dtype.str, array.shape, names, *([space] if space else [])]).encode())
    provenance, traits = {"sha256": content.hexdigest()}, Traits(space=space)
    if not is_mapped(array):
        array = array.copy()  # what the caller does with the array changes nothing
    return keep_usable(Embeddings(printable(name), modality, array, labels, samples, attributes, provenance, traits))


def checked_vectors(vectors: NDArray[Any], where: str) -> Vectors:
    """(rows, dim) float32 or float64, perhaps not finite; BadCalibration if it is empty, not 2-D, or not numeric."""
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or not vectors.size:
        raise BadCalibration(
            f"{where}: the embeddings have shape {vectors.shape} and type {vectors.dtype}; "
            "numbers of shape (rows, dim) are needed."
            + (" Save it as float32: numpy has no bfloat16 and no float8." if vectors.dtype.kind == "V" else "")
        )
    if vectors.dtype in (np.float32, np.float64):
        return vectors
    with np.errstate(all="ignore"):  # overflow gives inf, which `keep_usable` reports
        return converted(vectors, lambda block: block.astype(np.float32), np.float32)


def keep_usable(embeddings: Embeddings) -> Checked:
    """Skip rows that are not finite, all zero or without identity; keep repetitions within an identity once."""
    if not embeddings.vectors.flags.c_contiguous:
        vectors = embeddings.vectors
        embeddings = replace(embeddings, vectors=converted(vectors, np.ascontiguousarray, vectors.dtype))
    labels, samples = embeddings.labels, embeddings.samples
    reasons = np.full(len(labels), "", "U17")
    nameless = np.char.strip(np.array(embeddings.identities, np.str_)) == ""
    if nameless.any():
        reasons[nameless[embeddings.owners]] = "no identity"
    for i, fault in _faults(embeddings.vectors).items():
        reasons[i] = fault
    skipped = tuple(
        Skipped(embeddings.modality, f"{labels[i]}/{samples[i]}", str(reasons[i]), embeddings.name)
        for i in np.flatnonzero(reasons != "").tolist()
    )
    is_usable = reasons == ""
    same_as = np.arange(len(labels))
    # Rows of the same bytes have the same hash: with the owner in it, only those of one identity.
    keys = embeddings.row_hashes + embeddings.owners.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for where in equal_rows(embeddings.vectors, keys):
        # The first by sample name, so that the repetition that is kept does not depend on the order of rows.
        same_as[where] = min((i for i in where if is_usable[i]), key=lambda i: (samples[i], i), default=-1)
    usable = np.flatnonzero(is_usable)
    is_kept = np.zeros(len(labels), bool)
    is_kept[same_as[usable]] = True
    kept = np.flatnonzero(is_kept)
    distinct = embeddings.rows(kept)
    if distinct.listed is None and len(kept) < len(usable):
        distinct = replace(distinct, listed=np.searchsorted(kept, same_as[usable]))
    return distinct, skipped


def _faults(x: Vectors) -> dict[int, str]:
    """What is wrong with rows that are not finite or all zero."""
    faults = {}
    for start, block in blocks(x):
        with np.errstate(all="ignore"):
            squares = np.einsum("ij,ij->i", block, block)
        # Squares of finite numbers may also overflow, or vanish.
        for i in np.flatnonzero(~np.isfinite(squares) | (squares == 0)).tolist():
            if not np.isfinite(block[i]).all():
                faults[start + i] = "non-finite values"
            elif not block[i].any():
                faults[start + i] = "all zeros"
    return faults


def with_normal_labels(embeddings: Embeddings) -> Embeddings:
    """The embeddings with the normal form of every identity; rows that then repeat within one are dropped."""
    names = [normal(name) for name in embeddings.identities]
    if names == [*embeddings.identities]:
        return embeddings
    return keep_usable(replace(embeddings, labels=np.array(names, np.str_)[embeddings.owners]))[0]


def as_text(column: NDArray[Any], where: str) -> NDArray[np.str_]:
    """An array of text, bytes or whole numbers as text; BadCalibration for other types, invalid UTF-8, long cells."""
    if column.dtype.kind not in TEXT_KINDS:
        raise BadCalibration(
            f"{where}: the type is {column.dtype}; text or whole numbers are needed. Save it with .astype(int) or "
            ".astype(str)."
        )
    if column.dtype.kind in "US" and column.size:
        check_length(int(np.char.str_len(column).max()), where)
    try:
        if column.dtype.kind == "S":
            return np.char.decode(column, "utf-8")
        parts = [np.array(block.tolist(), np.str_) for _, block in blocks(column)]
    except (ValueError, SystemError) as error:  # SystemError: a code point that does not exist
        raise BadCalibration(f"{where}: some bytes are not text. Save it as UTF-8 text.") from error
    return np.concatenate(parts) if parts else np.array([], np.str_)


def space_of(cells: Iterable[str], where: str) -> str | None:
    """The joint space named by cells of text, printable; None if all are empty, BadCalibration for several."""
    names = {normal(cell) for cell in set(cells)} - {""}
    if len(names) > 1:
        raise BadCalibration(
            f"{where}: 'space' has {len(names)} values ({some(names)}); an encoder has one joint space, or none. Give "
            "one value, or rename 'space' if it is about something else."
        )
    return printable(names.pop()) if names else None


def check_length(longest: int, where: str) -> None:
    """Raise BadCalibration if the longest cell of a column has over MAX_NAME characters."""
    if longest > MAX_NAME:
        raise BadCalibration(f"{where} has a cell of {longest} characters; at most {MAX_NAME} are read. Shorten it.")


def shown(column: NDArray[np.str_]) -> NDArray[np.str_]:
    """The column with unprintable characters escaped, for reports."""
    codes = column.view(np.uint32).reshape(len(column), -1) if column.size else np.zeros((0, 0), np.uint32)
    is_end = codes == 0
    if (is_end | (codes >= ord(" ")) & (codes <= ord("~"))).all() and not (is_end[:, :-1] & ~is_end[:, 1:]).any():
        return column
    return np.array([printable(text) for text in column.tolist()], dtype=np.str_)


def _text_column(values: Any, n_rows: int, where: str, *, optional: bool = False) -> NDArray[np.str_]:
    """(n_rows,) text of a list, array, pandas Series or categorical; `optional` reads missing values as empty."""
    cells = _as_array(values, where, dtype=object)
    if cells.shape != (n_rows,):
        raise BadCalibration(f"{where}: shape {cells.shape} for {n_rows} rows of embeddings; ({n_rows},) is needed.")
    texts = []
    for row, cell in enumerate(cells.tolist()):
        is_nan = isinstance(cell, numbers.Real) and cell != cell
        missing = cell is None or is_nan or type(cell).__name__ in ("NAType", "NaTType")
        text = "" if optional and missing else _text(cell)
        if text is None:
            kind = f"of type {type(cell).__name__} ({str(cell)[:80]}); text or whole numbers are needed"
            problem = f"missing ({cell}). Drop rows without a value" if missing else kind
            raise BadCalibration(f"{where}: row {row} is {problem}.")
        texts.append(text)
    check_length(max(map(len, texts), default=0), where)
    return np.array(texts, dtype=np.str_)


def _as_array(values: Any, where: str, dtype: Any = None) -> NDArray[Any]:
    try:
        return np.asarray(values, dtype=dtype)
    except (RuntimeError, TypeError, ValueError) as error:  # ragged lists, tensors on a GPU
        raise BadCalibration(f"{where} cannot be read as an array: {first_line(error)}. Pass a numpy array.") from error


def _text(cell: Any) -> str | None:
    """The text of a name or a whole number; None for anything else."""
    if isinstance(cell, str | bool | np.bool_):
        return str(cell)
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "surrogateescape")
    # Whole floats too: a column of numbers is often read as floats.
    whole = isinstance(cell, numbers.Integral) or (isinstance(cell, numbers.Real) and float(cell).is_integer())
    return str(int(cell)) if whole else None
