"""The user's folders: default locations of the cache and the record of weights."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

_OLD = {"cache": ("XDG_CACHE_HOME", ".cache"), "state": ("XDG_STATE_HOME", ".local/state")}


def user_folder(kind: Literal["cache", "state"], note: Callable[[str], None] = lambda text: None) -> Path | None:
    """encsel's folder by the platform's conventions, which may not exist yet; None without a home directory.

    The folder of encsel 0.1 is moved there once, with a note; if it cannot be moved it remains in use.
    """
    import platformdirs

    find = platformdirs.user_cache_path if kind == "cache" else platformdirs.user_state_path
    try:
        new = find("encsel", appauthor=False)
    except (RuntimeError, KeyError, ValueError):
        return None
    if not new.is_absolute():  # "~/.cache/encsel": older platformdirs where there is no home
        return None
    variable, below_home = _OLD[kind]
    base = expanded(os.environ.get(variable) or f"~/{below_home}")
    if base is None or (old := base / "encsel") == new:
        return new
    with contextlib.suppress(OSError):
        if old.is_dir() and not new.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
            note(f"Moved {old}, which encsel 0.1 used, to {new}.")
    return old if old.is_dir() and not new.is_dir() else new


def expanded(path: str | Path) -> Path | None:
    """A path with "~" replaced; None if there is no home directory to replace it with."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return None
