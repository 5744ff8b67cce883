"""Cards as files: one frozen dataclass a file, as JSON with a schema and a checksum, read back strictly."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from encsel.errors import UsageError, printable
from encsel.storage import files
from encsel.storage.reading import read_whole


class Malformed(Exception):
    """A card's JSON that does not have the shape, or the sense, of its kind."""


def cards_folder() -> Path:
    """The folder of shipped cards: inside the installed package, else beside it in a checkout.

    Raises:
        UsageError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "pretrained_regression", package.parent / "pretrained_regression"):
        if folder.is_dir():
            return folder
    raise UsageError(
        f"No folder pretrained_regression in or beside {package}. Reinstall encsel, or give a card's path."
    )


def shipped(family: str) -> tuple[str, ...]:
    """Names of the shipped cards of a schema family (such as `encsel.card`), sorted.

    A damaged file belongs to every family, so that loading it reports the damage.
    """
    return tuple(sorted(path.stem for path in cards_folder().glob("*.json") if family_of(path) in (family, None)))


def family_of(path: Path) -> str | None:
    """The schema a JSON file states, without its version; "" when it states none, None when it cannot be read."""
    try:
        content = _json(path)
    except (OSError, ValueError, RecursionError):
        return None
    schema = content.get("schema") if isinstance(content, dict) else None
    return schema.partition("/")[0] if isinstance(schema, str) else ""


def text_of(card: Any) -> str:
    """A card, which has `sha256`, as JSON, full precision, checksum last, newline at the end."""
    content = {**dataclasses.asdict(card), "sha256": card.sha256}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def save(card: Any, path: str | Path) -> None:
    """Write the card; the file is there whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        files.write_public(Path(path), text_of(card).encode())
    except OSError as error:
        raise UsageError(f"Cannot write the card to {path}: {error.strerror}. Choose another --output.") from error


def checksum(card: Any) -> str:
    """SHA-256 of the canonical JSON of a dataclass."""
    return _checksum(dataclasses.asdict(card))


def read(
    path: Path, kind: type, *, schema: str, what: str, known: tuple[str, ...], check: Callable[[Any], None], remedy: str
) -> Any:
    """The card in a file.

    Args:
        kind: dataclass of the card.
        schema: that the file must state.
        what: such as "regression card", for messages.
        known: names to offer instead.
        check: raises Malformed for a card whose values make no sense.
        remedy: last sentence of a message.
    Raises:
        UsageError: a file that is absent, damaged, edited or no such card.
    """
    try:
        content = _json(path)
    except OSError as error:
        raise UsageError(
            f"Cannot read the card {path}: {error.strerror}. Give a .json file or one of: {', '.join(known)}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The card {path} is not valid JSON ({error}). {remedy}") from error
    if not isinstance(content, dict) or "schema" not in content:
        raise UsageError(f"{path} is no {what}: it states no schema, {schema} is needed. {remedy}")
    if content["schema"] != schema:
        raise UsageError(
            f"{path} is a {content['schema']!r}; this command needs a {what}, {schema}. "
            "Give another file, or use the encsel that made it."
        )
    stated = content.pop("sha256", None)
    try:
        found = _checksum(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The card {path} holds a number out of range ({error}). {remedy}") from error
    if stated != found:
        raise UsageError(f"The card {path} was damaged or edited: its checksum does not fit its content. {remedy}")
    try:
        card = decoded(kind, content, "card")
        check(card)
    except Malformed as error:
        raise UsageError(f"The card {path} is malformed: {error}. {remedy}") from error
    return card


def _checksum(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _json(path: Path) -> Any:
    """What the file holds; ValueError or RecursionError when that is not JSON."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(read_whole(path).decode("utf-8"), parse_constant=refuse)


def decoded(kind: Any, value: Any, where: str) -> Any:
    """`value`, as JSON has it, as the type `kind`: dataclasses, tuples, mappings, literals, unions and plain values.

    Raises:
        Malformed: it is not of that type; `where` names the place.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _fields(kind, value, where)
    if origin in (types.UnionType, typing.Union):
        for option in inner:
            with contextlib.suppress(Malformed):
                return decoded(option, value, where)
    if origin is Literal and isinstance(value, str) and value in inner:
        return value
    if origin is tuple and isinstance(value, list):
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else list(inner)
        if len(kinds) == len(value):
            return tuple(decoded(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, dict):
        return {key: decoded(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise Malformed(f"{where} is out of range") from error
    # 2**53: beyond it a count is no longer exact as a float, and no count of anything here.
    if kind in (int, str, bool, types.NoneType) and type(value) is kind and not (kind is int and abs(value) > 2**53):
        return value
    raise Malformed(f"{where} is {value!r}")


def check_names(names: Iterable[object], what: str) -> None:
    """Nothing, when all that is text can be printed as it is.

    Raises:
        Malformed: one holds control characters or the like.
    """
    for name in names:
        if isinstance(name, str) and printable(name) != name:
            raise Malformed(f"{what} {name!r} holds characters that cannot be printed")


def _fields(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise Malformed(f"{where} is {value!r}")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    if set(value) != set(names):
        unlike = sorted(set(value) ^ set(names))
        raise Malformed(f"{where} lacks or should not have {', '.join(unlike)}")
    return kind(**{name: decoded(hints[name], value[name], f"{where}.{name}") for name in names})
