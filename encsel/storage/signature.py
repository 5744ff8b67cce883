"""The signature of a result: hashes of everything that could change it."""

import contextlib
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
    """Versions of packages; None for those that are not installed."""
    versions: dict[str, str | None] = dict.fromkeys(names)
    for name in versions:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def sign(*, libraries: Iterable[str] = LIBRARIES, **parts: Mapping[str, Any]) -> dict[str, Any]:
    """The signature as a dict: `data`, `encoders`, `regressions`, `metrics` and `options`; `id` is the hash of all."""
    signature = {"encsel": __version__, **parts, "libraries": library_versions(libraries)}
    return {**signature, "id": digest(signature)}


def signature_text(signature: Mapping[str, Any]) -> str:
    """The signature on one line, hashes cut to 8 digits."""
    cards = ",".join(f"{name}@{sha[:8]}" for name, sha in signature["regressions"].items())
    return (
        f"encsel {signature['encsel']} | data {signature['data']['sha256'][:8]} | "
        f"encoders {digest(signature['encoders'])[:8]} | {cards} | metrics {digest(signature['metrics'])[:8]} | "
        f"seed {signature['options']['seed']} | id {signature['id'][:12]}"
    )
