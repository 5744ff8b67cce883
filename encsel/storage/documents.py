"""Documents: frozen dataclasses as JSON files with a schema and a checksum, strictly parsed; their JSON Schemas."""

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from encsel.errors import UsageError, printable
from encsel.storage import files
from encsel.storage.result import json_text
from encsel.storage.signature import digest

LARGEST_INTEGER = 2**53  # beyond it integers are not exact as floats, and nothing here counts that far


class Malformed(Exception):
    """JSON of an unexpected type, or with invalid values."""


def cards_folder() -> Path:
    """Folder of the shipped cards: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for parent in (package, package.parent):
        if (folder := parent / "pretrained_regression").is_dir():
            return folder
    raise UsageError(
        f"No folder pretrained_regression in or beside {package}. Reinstall encsel, or give the path of a card."
    )


def shipped(family: str) -> tuple[str, ...]:
    """Names of the shipped cards of a schema family (such as `encsel.card`), sorted.

    A damaged file belongs to every family, so that loading it reports the damage.
    """
    return tuple(sorted(path.stem for path in cards_folder().glob("*.json") if family_of(path) in (family, None)))


def family_of(path: Path) -> str | None:
    """The schema that a JSON file states, without its version; "" if it states none, None if it cannot be read."""
    try:
        content = _json(path)
    except (OSError, ValueError, RecursionError):
        return None
    schema = content.get("schema") if isinstance(content, dict) else None
    return schema.partition("/")[0] if isinstance(schema, str) else ""


def text_of(card: Any) -> str:
    """A card (a dataclass with `sha256`) as JSON in full precision, checksum last, newline at the end."""
    content = {**dataclasses.asdict(card), "sha256": card.sha256}
    return json_text(content, ensure_ascii=False)


def save(card: Any, path: str | Path) -> None:
    """Write a card atomically; UsageError if it cannot be written."""
    try:
        files.write_public(Path(path), text_of(card).encode())
    except OSError as error:
        raise UsageError(f"Cannot write the card to {path}: {error.strerror}. Choose another --output.") from error


def checksum(card: Any) -> str:
    """SHA-256 of the canonical JSON of a dataclass."""
    return digest(dataclasses.asdict(card))


def read(
    path: Path, kind: type, *, schema: str, what: str, names: tuple[str, ...], check: Callable[[Any], None], remedy: str
) -> Any:
    """Read a card.

    Args:
        kind, schema: dataclass of the card, and the schema that the file must state.
        what, names, remedy: kind of card, names of the shipped ones, and last sentence, for messages.
        check: function that raises Malformed for a card with invalid values.
    Raises:
        UsageError: the file is absent, damaged, edited or not such a card.
    """
    try:
        content, stated = _json(path), None
        if isinstance(content, dict):
            stated = content.get("sha256")
            content = {key: value for key, value in content.items() if key != "sha256"}
        actual = digest(content)
    except OSError as error:
        raise UsageError(
            f"Cannot read the card {path}: {error.strerror}. Give a .json file or one of: {', '.join(names)}."
        ) from error
    except (ValueError, RecursionError) as error:  # infinite numbers, too
        raise UsageError(f"The card {path} is not valid JSON ({error}). {remedy}") from error
    if not isinstance(content, dict) or "schema" not in content:
        raise UsageError(f"{path} is not a {what}: it states no schema, but {schema} is needed. {remedy}")
    if content["schema"] != schema:
        raise UsageError(
            f"{path} is a {content['schema']!r}; this command needs a {what}, {schema}. "
            "Give another file, or use the encsel that made it."
        )
    if stated != actual:
        raise UsageError(f"The card {path} was damaged or edited: its checksum does not match its content. {remedy}")
    try:
        card = decoded(kind, content, "card")
        check(card)
    except Malformed as error:
        raise UsageError(f"The card {path} is malformed: {error}. {remedy}") from error
    return card


def decoded(kind: Any, value: Any, where: str) -> Any:
    """Convert a parsed JSON value to a type made of dataclasses, tuples, mappings, literals, unions and plain values.

    Raises:
        Malformed: the value is not of that type, or has a missing or an extra key; `where` names the value.
    """
    from pydantic import ValidationError

    adapter = _adapter(kind)
    try:
        # As text, because pydantic's strict mode takes tuples and dataclasses from lists and objects only in JSON.
        text = json.dumps([value])
        json.loads(text, parse_int=_integer)
        result = adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"][1:])
        raise Malformed(f"{where}{place}: {first['msg']}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"{where}: {error}") from error
    if adapter.dump_python(result, mode="json") != [value]:  # pydantic fills in defaults
        raise Malformed(f"{where} lacks a key")
    return result[0]


def schema_of(kind: Any) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the values that `decoded` accepts for a type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        properties = {field.name: schema_of(hints[field.name]) for field in dataclasses.fields(kind)}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
            "description": (kind.__doc__ or "").strip().split("\n")[0],
        }
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [schema_of(one) for one in inner]}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is tuple and inner[1:] == (...,):
        return {"type": "array", "items": schema_of(inner[0])}
    if origin is tuple:
        fixed = [schema_of(one) for one in inner]
        return {"type": "array", "prefixItems": fixed, "minItems": len(fixed), "maxItems": len(fixed)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(inner[1])}
    plain = {float: "number", int: "integer", str: "string", bool: "boolean", types.NoneType: "null"}
    return {"type": plain[kind]} if kind in plain else {}


def check_names(names: Iterable[object], what: str) -> None:
    """Raise Malformed if a name holds control characters or the like."""
    for name in names:
        if isinstance(name, str) and printable(name) != name:
            raise Malformed(f"{what} {name!r} holds characters that cannot be printed")


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    # In a list, because pydantic takes no config for a dataclass itself; those inside inherit it.
    return TypeAdapter(list[kind], config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))


def _json(path: Path) -> Any:
    """Content of a JSON file, which must not be modified; ValueError or RecursionError if it is not JSON."""
    return _parsed(files.read_whole(path))


@functools.lru_cache(maxsize=16)
def _parsed(text: bytes) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text.decode("utf-8"), parse_constant=refuse, parse_int=_integer)


def _integer(text: str) -> int:
    number = int(text)
    if abs(number) > LARGEST_INTEGER:
        raise ValueError("an integer is out of range")
    return number
