"""Folders of the user: where the cache and the record of weights are by default."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

_OLD = {"cache": ("XDG_CACHE_HOME", ".cache"), "state": ("XDG_STATE_HOME", ".local/state")}


def user_folder(kind: Literal["cache", "state"], note: Callable[[str], None] | None = None) -> Path | None:
    """encsel's folder by the platform's conventions, not necessarily there yet; None without a home directory.

    The folder of encsel 0.1 is moved there once, which `note` is told; if it cannot be moved it remains in use.
    """
    import platformdirs

    find = platformdirs.user_cache_path if kind == "cache" else platformdirs.user_state_path
    try:
        new = find("encsel", appauthor=False)
    except (RuntimeError, KeyError, ValueError):
        return None
    if not new.is_absolute():  # "~/.cache/encsel": older platformdirs where there is no home
        return None
    old = _old_folder(kind)
    if old is None or old == new:
        return new
    text = move_old(old, new)
    if text is not None and note is not None:
        note(text)
    return old if old.is_dir() and not new.is_dir() else new


def expanded(path: str | Path) -> Path | None:
    """A path with "~" replaced; None if there is no home directory to replace it with."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return None


def move_old(old: Path, new: Path) -> str | None:
    """Rename a folder unless the new one exists; a sentence saying so, None if nothing was moved."""
    try:
        if new.exists() or not old.is_dir():
            return None
        new.parent.mkdir(parents=True, exist_ok=True)
        old.rename(new)
    except OSError:
        return None
    return f"Moved {old}, which encsel 0.1 used, to {new}."


def _old_folder(kind: str) -> Path | None:
    variable, below_home = _OLD[kind]
    base = expanded(os.environ.get(variable) or f"~/{below_home}")
    return None if base is None else base / "encsel"
