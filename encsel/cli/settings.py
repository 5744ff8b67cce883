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
READ = ("data", "baseline")
"""Settings that are paths of what is read, relative to the file."""
WRITTEN = ("output", "report", "scores", "matcher", "cache")
"""Settings that are paths of what is written, in the folder of the file."""
COMMAND_LINE_ONLY = ("allow-pickle", "allow-outside", "show-names", "scheduler")
"""Options that widen what is trusted or disclosed: a scheduler gets the embeddings, and answers with pickles.

Whoever runs encsel decides that, not the author of the file.
"""


def settings(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The file and its content; None if no file has settings.

    Raises:
        UsageError: a file of either name cannot be read or is not TOML, or both have settings. It is not ignored,
            because it may hold a gate.
    """
    own, shared = (_content(folder / name) for name in (OWN, SHARED))
    tools = (shared or {}).get("tool")
    table = tools.get("encsel") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise UsageError(
            f"{folder / SHARED}: tool.encsel is {table!r}; a table is needed. Fix it, or pass --no-config."
        )
    if own is not None and table is not None:
        raise UsageError(
            f"{folder / OWN} and {folder / SHARED} both contain settings for encsel. Keep one, or pass --no-config."
        )
    if own is not None:
        return folder / OWN, own
    return None if table is None else (folder / SHARED, table)


def _content(path: Path) -> dict[str, Any] | None:
    """A TOML file; None if there is none."""
    try:
        return tomllib.loads(read_whole(path, MAX_BYTES).decode("utf-8"))
    # A ValueError: not UTF-8, not TOML, or a whole number of too many digits.
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            return None
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise UsageError(f"{path} cannot be read: {reason}. Fix it, or pass --no-config.") from error


def options_of(command: click.Command) -> dict[str, click.Parameter]:
    """Parameters that a file may set, by long name without dashes; `data` is the argument."""
    return {text.removeprefix("--"): p for p in command.params for text in p.opts if len(text) > 2}


def defaults(path: Path, content: Mapping[str, Any], command: click.Command) -> dict[str, Any]:
    """Defaults of a command by parameter name, from the content of a file.

    Top-level keys are for both commands, those of a table named after a command for it alone, and those of `gates` are
    gates.

    Raises:
        UsageError: an unknown setting (names the nearest), one of the wrong type, two that contradict each other, one
            that is allowed on the command line only, or an output path outside the folder of the file.
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
    if name in COMMAND_LINE_ONLY:
        raise UsageError(
            f"{path}: {where}{key} is allowed on the command line only. Remove it, and pass --{name} there."
        )
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
        given = getattr(option, "flag_value", True)
        # A plain flag's value is True in click 8.1 and a sentinel, which would leave the flag off, in later ones.
        return {str(option.name): given if isinstance(given, str) else True} if value else {}
    if name in READ:
        values = [path.parent / str(one) for one in values]
    elif name in WRITTEN:
        values = [_inside(path, str(one), f"{where}{key}") for one in values]
    if option.multiple:
        return {str(option.name): list(map(str, values))}
    return {str(option.name): str(values[0]) if name in (*READ, *WRITTEN) else value}


def _inside(path: Path, value: str, what: str) -> Path:
    """An output path, checked to be inside the folder of the file, links resolved."""
    place, folder = path.parent / value, path.parent.resolve()
    try:
        if not value:
            raise ValueError("it is empty")
        resolved = place.expanduser().resolve()
        # Folders of a report or a cache may be links.
        inner = resolved.iterdir() if resolved.is_dir() else ()
        places = (resolved, *(one.resolve() for one in inner if one.is_symlink()))
        is_inside = all(one.is_relative_to(folder) for one in places)
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, nobody's home, a NUL
        raise UsageError(f"{path}: {what} is {value!r}, which is not a usable path ({error}). Correct it.") from error
    if not is_inside:
        raise UsageError(
            f"{path}: {what} is {value!r}, which is outside the folder of the file. Choose a path inside it, or pass "
            f"--{what.split()[-1].replace('_', '-')} on the command line."
        )
    return place
