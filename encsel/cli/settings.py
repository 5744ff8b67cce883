"""Settings from a file: `encsel.toml`, or `[tool.encsel]` of `pyproject.toml`, in the folder encsel is run in."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from encsel.errors import UsageError, nearest
from encsel.storage.files import read_whole

OWN, SHARED = "encsel.toml", "pyproject.toml"
COMMANDS = ("rank", "validate")
GATES = "gates"
MAX_BYTES = 1 << 20
PATHS = ("data", "baseline")
"""Settings that are paths, relative to the file."""


def settings(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The file and its content; None without such a file.

    Raises:
        UsageError: encsel.toml cannot be read, or is not TOML; or pyproject.toml is not, and has settings of encsel.
    """
    for name in (OWN, SHARED):
        path, raw = folder / name, b""
        try:
            raw = read_whole(path, MAX_BYTES)
            content = tomllib.loads(raw.decode("utf-8"))
        except FileNotFoundError:
            continue
        # A ValueError: not UTF-8, not TOML, or a whole number of too many digits.
        except (OSError, ValueError, RecursionError) as error:
            if name == SHARED and b"tool.encsel" not in raw:  # another tool reports it
                continue
            reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            raise UsageError(f"{path} cannot be read: {reason}. Fix it, or pass --no-config.") from error
        if name == OWN:
            return path, content
        tools = content.get("tool")
        table = tools.get("encsel") if isinstance(tools, dict) else None
        if isinstance(table, dict):
            return path, table
    return None


def options_of(command: click.Command) -> dict[str, click.Parameter]:
    """Parameters that a file may set, by long name without dashes; `data` is the argument."""
    return {text.removeprefix("--"): p for p in command.params for text in p.opts if len(text) > 2}


def defaults(path: Path, content: Mapping[str, Any], command: click.Command) -> dict[str, Any]:
    """Defaults of a command by parameter name, from the content of a file.

    Top-level keys are for both commands, those of a table named after a command for it alone, and those of `gates` are
    gates.

    Raises:
        UsageError: an unknown setting (names the nearest), one of the wrong type, or two that contradict each other.
    """
    options = options_of(command)
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in (*COMMANDS, GATES):
            values |= _default(path, options, "", key, value)
        elif not isinstance(value, dict):
            raise UsageError(f"{path}: [{key}] is {value!r}; a table is needed.")
        elif key in (command.name, GATES):
            for name, one in value.items():
                values |= _default(path, options, f"[{key}] ", name, one)
    if "cache" in content and content.get("no-cache", content.get("no_cache")) is True:
        raise UsageError(f"{path}: cache and no-cache contradict each other. Leave one out.")
    return values


def _default(path: Path, options: Mapping[str, click.Parameter], where: str, key: str, value: Any) -> dict[str, Any]:
    """One setting, checked; `where` names its table."""
    name = key.replace("_", "-")
    if name not in options:
        raise UsageError(f"{path}: {where}unknown setting {key!r}. {nearest(name, options)}")
    option = options[name]
    values = value if isinstance(value, list) else [value]
    if isinstance(option, click.Option) and option.is_flag:
        fits, needed = isinstance(value, bool), "true or false"
    elif option.multiple:
        fits, needed = all(isinstance(one, str) for one in values), "text or a list of texts"
    else:
        fits, needed = isinstance(value, str | int | float) and not isinstance(value, bool), "one value"
    if not fits:
        raise UsageError(f"{path}: {where}{key} is {value!r}; {needed} is needed.")
    if isinstance(value, bool):
        return {str(option.name): getattr(option, "flag_value", True)} if value else {}
    if option.multiple:
        return {str(option.name): values}
    return {str(option.name): str(path.parent / str(value)) if name in PATHS else value}
