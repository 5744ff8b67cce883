"""Hashes of fetched weights, recorded at first use and checked at every later use."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from encsel.core import Encoder, Spec
from encsel.errors import EncoderFailed, UsageError
from encsel.loading.spec import is_hub_id
from encsel.storage.files import locked, read_whole, write_public
from encsel.storage.folders import expanded, user_folder

SCHEMA = "encsel.weights/1"
NOT_RECORDED = "weight hashes not recorded"

Signing = Literal["check", "renew", "look"]  # check, and record new weights; record again in any case; do neither


class Changed(EncoderFailed):
    """The weights are not those that were signed off."""


def record_path() -> Path | None:
    """$ENCSEL_WEIGHTS, or weights.json in encsel's folder in the user's state folder; None without a home directory."""
    if named := os.environ.get("ENCSEL_WEIGHTS"):
        return expanded(named)
    folder = user_folder("state")
    return folder and folder / "weights.json"


def signed_off(spec: Spec, default: str | None, encoders: Sequence[Encoder], signing: Signing) -> tuple[Encoder, ...]:
    """Check the weights of a spec's encoders against the record; flag the encoders if they could not be recorded.

    Weights in a folder of the user are not checked: the user may change them, and their hashes are in the signature.
    `default` is the checkpoint of a spec that names none.

    Raises:
        Changed: other hashes are recorded.
        UsageError: the record is damaged.
    """
    weights = {name: sha256 for encoder in encoders for name, sha256 in encoder.weights.items()}
    if signing == "look" or not weights or not is_fetched(spec):
        return tuple(encoders)
    path = record_path()
    record = {} if path is None else _read(path)
    revision = f"@revision={spec.options['revision']}" if "revision" in spec.options else ""
    key = f"{spec.family}:{spec.checkpoint or default}{revision}"
    recorded = record.get(key)
    if recorded is None or signing == "renew":
        entry = {"revision": encoders[0].revision, "files": weights}
        if entry == recorded or (path is not None and _add(path, key, entry)):
            return tuple(encoders)
        return tuple(replace(encoder, flags=(*encoder.flags, NOT_RECORDED)) for encoder in encoders)
    if recorded["files"] != weights:
        names = weights.keys() | recorded["files"].keys()
        name = min(name for name in names if weights.get(name) != recorded["files"].get(name))
        now, before = (str(hashes.get(name, "no such file"))[:12] for hashes in (weights, recorded["files"]))
        pin = "" if recorded["revision"] in (None, encoders[0].revision) else f", pin @revision={recorded['revision']}"
        raise Changed(
            f"the weights are not those signed off in {path}: {name} was {before} and is {now} (SHA-256). "
            f"Fetch them again{pin}, or sign the new ones off: encsel encoders fetch --sign-off {spec}"
        )
    return tuple(encoders)


def is_fetched(spec: Spec) -> bool:
    """Whether a spec stands for weights from a hub, not for a folder or file of the user."""
    if spec.checkpoint is None or is_hub_id(spec.checkpoint):
        return True
    path = expanded(spec.checkpoint)
    return path is None or not path.exists()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_whole(path))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']!r}")
        record: dict[str, Any] = content["weights"]
        for entry in record.values():
            if not isinstance(entry["files"], dict) or "revision" not in entry:
                raise ValueError("an entry lacks its files or revision")
        return record
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"The record of signed-off weights {path} cannot be read ({error}). Fix it, or remove it to start again."
        ) from error


def _add(path: Path, key: str, entry: dict[str, Any]) -> bool:
    """Add an entry to the record; False if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent):  # another process may add an entry at the same time
            content = {"schema": SCHEMA, "weights": {**_read(path), key: entry}}
            write_public(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
    except OSError:
        return False
    return True
