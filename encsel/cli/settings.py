"""Settings from a file: `encsel.toml`, or `[tool.encsel]` of `pyproject.toml`, in the folder encsel is run in."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from encsel.errors import UsageError, nearest
from encsel.storage.files import read_whole

OWN, SHARED = "encsel.toml", "pyproject.toml"
COMMANDS = ("rank", "validate")
GATES = "gates"
MAX_BYTES = 1 << 20
PATHS = ("data", "baseline")
"""Settings that are paths, relative to the file."""


def settings(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The file and what it holds; None where there is none.

    Raises:
        UsageError: not readable, or not TOML.
    """
    for name in (OWN, SHARED):
        path = folder / name
        try:
            content = tomllib.loads(read_whole(path, MAX_BYTES).decode("utf-8"))
        except FileNotFoundError:
            continue
        # A ValueError: not UTF-8, no TOML, or a whole number of too many digits.
        except (OSError, ValueError, RecursionError) as error:
            if name == SHARED:  # another tool's business
                continue
            what = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            raise UsageError(f"{path} cannot be read: {what}. Mend it, or run elsewhere.") from error
        if name == SHARED:
            tools = content.get("tool")
            own = tools.get("encsel") if isinstance(tools, dict) else None
            if not isinstance(own, dict):
                continue
            content = own
        return path, content
    return None


@dataclass(frozen=True)
class Option:
    """What a setting is to its command.

    Attributes:
        parameter: that it gives a value to.
        kind: one value, a text or several, or true and false.
        stands_for: what the parameter is when a flag is true.
    """

    parameter: str
    kind: Literal["value", "texts", "flag"] = "value"
    stands_for: Any = True


def defaults(path: Path, content: Mapping[str, Any], command: str, known: Mapping[str, Option]) -> dict[str, Any]:
    """What a command takes for options that are not given, by the name of its parameter.

    Top-level keys are for both commands, those of a table named like a command for it alone, and those of `gates` are
    gates.

    Args:
        known: options of the command by long name without dashes in front; `data` is the argument.
    Raises:
        UsageError: an unknown setting (names the nearest), one of another kind, or two for one thing.
    """
    found: dict[str, Any] = {}
    for key, value in content.items():
        if key in COMMANDS:
            if not isinstance(value, dict):
                raise UsageError(f"{path}: [{key}] is {value!r}; a table is needed.")
            if key == command:
                found |= _checked(path, value, known, f"[{key}] ")
        elif key == GATES:
            if not isinstance(value, dict):
                raise UsageError(f"{path}: [{key}] is {value!r}; a table is needed.")
            found |= _checked(path, value, known, f"[{key}] ")
        else:
            found |= _checked(path, {key: value}, known, "")
    if "cache" in content and content.get("no-cache", content.get("no_cache")) is True:
        raise UsageError(f"{path}: cache and no-cache contradict each other. Leave one out.")
    return found


def _checked(path: Path, table: Mapping[str, Any], known: Mapping[str, Option], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name not in known:
            raise UsageError(f"{path}: {where}unknown setting {key!r}. {nearest(name, known)}")
        option = known[name]

        def refuse(needed: str, key: str = key, value: Any = value) -> UsageError:
            return UsageError(f"{path}: {where}{key} is {value!r}; {needed} is needed.")

        if option.kind == "flag":
            if not isinstance(value, bool):
                raise refuse("true or false")
            if value:
                found[option.parameter] = option.stands_for
        elif option.kind == "texts":
            values = value if isinstance(value, list) else [value]
            if not all(isinstance(one, str) for one in values):
                raise refuse("text or a list of texts")
            found[option.parameter] = values
        elif isinstance(value, bool) or not isinstance(value, str | int | float):
            raise refuse("one value")
        else:
            found[option.parameter] = str(path.parent / str(value)) if name in PATHS else value
    return found
