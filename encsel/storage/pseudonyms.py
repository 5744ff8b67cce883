"""Names of people and samples as results carry them: hashed with a key that stays on this machine."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from encsel.core import Skipped
from encsel.storage.cache import secret

DIGITS = 16
"""Of a hash, hexadecimal. Two of a million names coincide with a chance of 3 in 10 million."""

_QUOTED = re.compile(r"""(?P<quote>['"])(?:file://)?~?/[^'"\n]*/(?P<name>[^'"/\n]*)(?P=quote)""")
_FOLDERS = re.compile(r"""(?:file://|(?<![\w./]))~?/(?!/)(?:[^\s/'":,;()]+/)+""")


def without_folders(text: str) -> str:
    """A message whose absolute paths are cut to their last part: where things lie on a machine tells who owns it."""
    home = str(Path.home())
    text = text.replace(f"{home}/", "~/") if len(home) > 1 else text
    return _FOLDERS.sub("", _QUOTED.sub(r"\g<quote>\g<name>\g<quote>", text))


@dataclass(frozen=True)
class Pseudonyms:
    """What stands for a name. The same name has the same hash as long as the key lives.

    Attributes:
        key: of the hashes (HMAC-SHA256). Without it a name could be found by hashing those that are likely.
        show: give the names themselves.
    """

    key: bytes | None
    show: bool = False

    def person(self, identity: str) -> str | None:
        """None without a key."""
        return self._of("person", identity)

    def people(self, identities: Sequence[str]) -> list[str]:
        """One for each; numbers in the order given where there is no key."""
        return [self.person(name) or f"p{i:05d}" for i, name in enumerate(identities, start=1)]

    def skipped(self, samples: Sequence[Skipped]) -> tuple[Skipped, ...]:
        """The same samples, their names replaced; "" without a key."""
        return tuple(replace(s, sample=self._of(f"{s.modality} sample", s.sample) or "") for s in samples)

    def _of(self, what: str, name: str) -> str | None:
        if self.show:
            return name
        if self.key is None:
            return None
        text = f"{what}\0{name}".encode("utf-8", "surrogatepass")
        return hmac.new(self.key, text, "sha256").hexdigest()[:DIGITS]


def pseudonyms(cache: Path | None, *, show: bool) -> Pseudonyms:
    """Those of a cache, whose key is made at first need; without a cache there is none.

    Raises:
        OSError: the key can be neither read nor made.
    """
    return Pseudonyms(None if show or cache is None else secret(cache), show)
