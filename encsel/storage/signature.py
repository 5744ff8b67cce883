"""The signature of a result: hashes of everything that could change it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from encsel.version import __version__

LIBRARIES = ("numpy", "scipy", "scikit-learn", "scikit-image", "Pillow", "soundfile", "soxr")
"""Libraries whose version can move a value of `encsel rank`."""


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value, hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: Any) -> str:
    """JSON that is the same for equal values: sorted keys, no blanks, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def library_versions(names: Iterable[str] = LIBRARIES) -> dict[str, str | None]:
    return {name: _version(name) for name in names}


def sign(
    *,
    data: Mapping[str, Any],
    encoders: Mapping[str, Any],
    regressions: Mapping[str, str],
    metrics: Mapping[str, int],
    options: Mapping[str, Any],
    libraries: Iterable[str] = LIBRARIES,
) -> dict[str, Any]:
    """The signature as a dict; `id` is the hash of the rest."""
    parts = {
        "encsel": __version__,
        "data": dict(data),
        "encoders": dict(encoders),
        "regressions": dict(regressions),
        "metrics": dict(metrics),
        "options": dict(options),
        "libraries": library_versions(libraries),
    }
    return {**parts, "id": digest(parts)}


def signature_text(signature: Mapping[str, Any]) -> str:
    """The signature on one line, hashes cut to 8 digits."""
    cards = ",".join(f"{name}@{sha[:8]}" for name, sha in signature["regressions"].items())
    return (
        f"encsel {signature['encsel']} | data {signature['data']['sha256'][:8]} | "
        f"encoders {digest(signature['encoders'])[:8]} | {cards} | metrics {digest(signature['metrics'])[:8]} | "
        f"seed {signature['options']['seed']} | id {signature['id'][:12]}"
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
