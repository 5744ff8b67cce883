"""Hashes of fetched weights, recorded at their first use and checked at every later one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from encsel.core import Encoder, Spec
from encsel.errors import EncoderFailed, UsageError
from encsel.storage.files import write_public
from encsel.storage.reading import read_whole

SCHEMA = "encsel.weights/1"
NOT_RECORDED = "weight hashes not recorded"

Signing = Literal["check", "renew", "look"]
"""Check, and record what is new; record anew, whatever was recorded; neither."""


class Changed(EncoderFailed):
    """Weights are others than those signed off."""


def record_path() -> Path:
    """$ENCSEL_WEIGHTS, or encsel/weights.json in the user's state folder."""
    own = os.environ.get("ENCSEL_WEIGHTS")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "encsel" / "weights.json"


def signed_off(spec: Spec, default: str | None, encoders: Sequence[Encoder], signing: Signing) -> tuple[Encoder, ...]:
    """The encoders of a spec, when the weights they were opened from are the ones recorded.

    Weights in a folder of the user's are theirs to change and are not looked at; their hashes are in the signature.

    Args:
        default: checkpoint of a spec that names none.
    Raises:
        Changed: other hashes are recorded.
        UsageError: the record is damaged.
    """
    weights = {name: sha256 for encoder in encoders for name, sha256 in encoder.weights.items()}
    if signing == "look" or not weights or not is_fetched(spec):
        return tuple(encoders)
    path = record_path()
    record = _read(path)
    key = f"{spec.family}:{spec.checkpoint or default}"
    if "revision" in spec.options:
        key += f"@revision={spec.options['revision']}"
    known = record.get(key)
    if known is None or signing == "renew":
        entry = {"revision": encoders[0].revision, "files": weights}
        if entry == known or _recorded(path, key, entry):
            return tuple(encoders)
        return tuple(replace(encoder, flags=(*encoder.flags, NOT_RECORDED)) for encoder in encoders)
    if known["files"] != weights:
        names = sorted(set(weights) | set(known["files"]))
        name = next(name for name in names if weights.get(name) != known["files"].get(name))
        found, before = (str(of.get(name, "no such file"))[:12] for of in (weights, known["files"]))
        pin = "" if known["revision"] in (None, encoders[0].revision) else f", pin @revision={known['revision']}"
        raise Changed(
            f"the weights are not those signed off in {path}: {name} was {before} and is {found} (SHA-256). "
            f"Fetch them again{pin}, or sign the new ones off: encsel encoders fetch --sign-off {spec}"
        )
    return tuple(encoders)


def is_fetched(spec: Spec) -> bool:
    """Whether a spec means weights from a hub and not a folder or file of the user's."""
    return spec.checkpoint is None or not Path(spec.checkpoint).expanduser().exists()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_whole(path))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']!r}")
        record = content["weights"]
        for entry in record.values():
            if not isinstance(entry["files"], dict):
                raise ValueError("files are no table")
            entry["revision"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"The record of signed-off weights {path} cannot be read ({error}). Mend it, or remove it to begin anew."
        ) from error
    return dict(record)


def _recorded(path: Path, key: str, entry: dict[str, Any]) -> bool:
    """Whether the entry could be added to the record."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):  # another process may add an entry at the same time
            content = {"schema": SCHEMA, "weights": {**_read(path), key: entry}}
            write_public(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
    except OSError:  # a machine that keeps nothing: said by a flag of the encoders
        return False
    return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
