"""The result of a workflow: a frozen dataclass that can be written as a document, as a table and as rows per pair.

`encsel.reports` registers the display of each class with `show` and `rows`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encsel.errors import UsageError
from encsel.storage.files import write_private, write_public
from encsel.storage.signature import digest

FORMATS = ("table", "json", "csv", "markdown", "github", "junit")
FORMAT_OF_SUFFIX = {".json": "json", ".csv": "csv", ".md": "markdown", ".txt": "table", ".xml": "junit"}
HIDDEN: Mapping[str, bool] = {"document": False}
"""Metadata of a dataclass field that is not part of the document."""
FILE_WIDTH = 160
CHECKSUM = "sha256"
"""Key of a document's checksum. It reveals damage and edits, but is no protection against deliberate changes."""
BESIDE = (CHECKSUM, "explanation")
"""Keys that the checksum does not cover: the checksum itself, and what `rank --explain` adds."""
WITHOUT_CHECKSUM = ("0.1.", "0.2.")
"""Versions of encsel whose results may lack a checksum."""


def plain(value: Any) -> Any:
    """Convert a value for JSON: dataclasses and mappings to dicts, tuples to lists; HIDDEN fields are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if f.metadata.get("document", True)]
        return {name: plain(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def json_text(document: Any, **options: Any) -> str:
    """A document as indented JSON text, never with NaN, ending in a newline.

    "##[" is escaped in strings, because runners of CI jobs take it for a command.
    """
    return json.dumps(document, indent=2, allow_nan=False, **options).replace("##[", "#\\u0023[") + "\n"


class Edited(ValueError):
    """A document is a result, but was changed after encsel wrote it."""


def checksum(document: Mapping[str, Any]) -> str:
    """SHA-256 of a document, the same before it is written and after it is read."""
    return digest(json.loads(json.dumps({key: value for key, value in document.items() if key not in BESIDE})))


def check_intact(document: Mapping[str, Any]) -> None:
    """Raise Edited unless the checksum of a result matches, or its version wrote none."""
    if CHECKSUM not in document:
        if not str(document["signature"]["encsel"]).startswith(WITHOUT_CHECKSUM):
            raise Edited(f"it lacks the key {CHECKSUM!r}")
    elif document[CHECKSUM] != checksum(document):
        raise Edited("its checksum does not match its content")


def render(result: Result, form: str, *, width: int | None = None, colour: bool = False, wide: bool = True) -> str:
    """The result as text in one of FORMATS, or as "html"; ends in a newline.

    Args:
        width: columns of the terminal; None: 160.
        wide: show every column and note of a table, not only those that decide.
    """
    return result.to_json() if form == "json" else show(result, form, width=width, colour=colour, wide=wide)


@functools.singledispatch
def show(result: Result, form: str, *, width: int | None = None, colour: bool = False, wide: bool = True) -> str:
    """The result in any form except JSON."""
    raise UsageError(f"A {type(result).__name__} has no form {form!r}. Import encsel, which registers the reports.")


@functools.singledispatch
def rows(result: Result) -> list[dict[str, Any]]:
    """One flat row per pair: the columns of the CSV form."""
    raise UsageError(f"A {type(result).__name__} has no rows. Import encsel, which registers the reports.")


def form_of(path: Path) -> str:
    """The format of a file by its suffix.

    Raises:
        UsageError: the suffix is not one of FORMAT_OF_SUFFIX.
    """
    if form := FORMAT_OF_SUFFIX.get(path.suffix.lower()):
        return form
    raise UsageError(f"{path}: the suffix {path.suffix!r} is not one of {', '.join(FORMAT_OF_SUFFIX)}. Rename it.")


def save_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a file atomically; a private one can be read only by its owner.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        (write_private if private else write_public)(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}. Choose another place.") from error


class Result:
    """Base class of results. Two results are equal if their signatures are, which cover all that could change them."""

    @property
    def signature_id(self) -> str:
        """Hash of everything that could change the result; without a signature, of the document."""
        signature = getattr(self, "signature", None)
        return str(signature["id"]) if signature else digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The document: plain values, full precision, None where a value is missing."""
        document: dict[str, Any] = plain(self)
        return document

    def to_json(self) -> str:
        """The document as JSON text, never with NaN."""
        return json_text(self.to_dict())

    def to_frame(self) -> Any:
        """A pandas DataFrame with one row per pair.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UsageError("to_frame() needs pandas, which is not installed: pip install pandas.") from error
        return pandas.DataFrame(rows(self))

    def save(self, path: str | Path, *, private: bool = False) -> None:
        """Write the result atomically, in the format of the suffix: .json, .csv, .md, .txt or .xml.

        Args:
            private: make the file readable only by its owner.
        Raises:
            UsageError: unknown suffix, or the file cannot be written.
        """
        save_text(Path(path), render(self, form_of(Path(path)), width=FILE_WIDTH), private=private)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Result) and other.signature_id == self.signature_id

    def __hash__(self) -> int:
        return hash((type(self), self.signature_id))

    def __repr__(self) -> str:
        return render(self, "table", width=120, wide=False)

    def _repr_html_(self) -> str:
        return render(self, "html")
