"""Names of people and samples in results: hashed with a key that stays on this machine."""

import contextlib
import hmac
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from encsel.core import Skipped
from encsel.storage.cache import secret

DIGITS = 16  # Hexadecimal digits of a hash. Among a million names two coincide with a probability of 3 in 10 million.

_ON_WINDOWS = r"(?:(?<!\w)[A-Za-z]:[\\/]|\\\\|~\\)"
_QUOTED = re.compile(
    rf"""(?P<quote>['"])(?:(?:file://)?~?/[^'"\n]*/|{_ON_WINDOWS}[^'"\n]*[\\/])(?P<name>[^'"/\n]*)(?P=quote)"""
)
_FOLDERS = re.compile(
    rf"""(?:file://|(?<![\w./]))~?/(?!/)(?:[^\s/'":,;()]+/)+|{_ON_WINDOWS}(?:[^\s\\/'":,;()]+[\\/]+)+"""
)


def without_folders(text: str) -> str:
    """Shorten absolute paths in a message to their last part, because folders often contain a user's name."""
    with contextlib.suppress(RuntimeError):  # no home directory
        home = str(Path.home())
        text = text.replace(home + os.sep, f"~{os.sep}") if len(home) > 1 else text
    return _FOLDERS.sub("", _QUOTED.sub(r"\g<quote>\g<name>\g<quote>", text))


@dataclass(frozen=True)
class Pseudonyms:
    """Replacements for names, or with `show` the names. A name has the same hash as long as the key exists."""

    key: bytes | None  # key of the hashes (HMAC-SHA256); without one, likely names could be hashed and compared
    show: bool = False

    def person(self, identity: str) -> str | None:
        """Hash of a person's name; None without a key."""
        return self._hash("person", identity)

    def people(self, identities: Sequence[str]) -> list[str]:
        """Hashes of names; numbers in the order given without a key."""
        return [self.person(name) or f"p{i:05d}" for i, name in enumerate(identities, start=1)]

    def skipped(self, samples: Sequence[Skipped]) -> tuple[Skipped, ...]:
        """The samples with their names hashed, None without a key."""
        return tuple(replace(s, sample=self._hash(f"{s.modality} sample", s.sample or "")) for s in samples)

    def _hash(self, what: str, name: str) -> str | None:
        if self.show:
            return name
        if self.key is None:
            return None
        text = f"{what}\0{name}".encode("utf-8", "surrogatepass")
        return hmac.new(self.key, text, "sha256").hexdigest()[:DIGITS]


def pseudonyms(cache: Path | None, *, show: bool) -> Pseudonyms:
    """Pseudonyms with the key of a cache, made at first use (OSError if that fails); without a cache, no key."""
    return Pseudonyms(None if show or cache is None else secret(cache), show)
