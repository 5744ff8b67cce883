"""The embedding cache: private files, written whole or not at all, verified before use.

Layout: ROOT/<encoder key>/<hash>.npz, each a batch of vectors keyed by the hash of the sample's content, named by the
hash of the encoder's key and its own bytes; ROOT/<encoder key>/encoder.json says what the key stands for. A file of
one name has one content, whichever process writes it, so they need not wait for one another.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import UsageError
from encsel.storage.files import TEMPORARY_PREFIX, sweep, write_private
from encsel.storage.signature import canonical, digest

SECRET_BYTES = 32
FLUSH_SAMPLES = 256
FLUSH_SECONDS = 2.0
_SECRET = {"name": "key of hashed names"}
_KEY = re.compile("[0-9a-f]{32}")
_BATCH = re.compile("[0-9a-f]{64}[.]npz")
_MARK = "CACHEDIR.TAG"
_MARK_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by encsel. Holds embeddings of people.\n"


def default_root() -> Path:
    """$ENCSEL_CACHE, or encsel/ in the user's cache folder."""
    own = os.environ.get("ENCSEL_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "encsel"


@dataclass(frozen=True)
class Entry:
    """What the cache holds for one encoder."""

    key: str
    encoder: str
    n_samples: int
    n_bytes: int


class Shelf:
    """The cached vectors of one encoder; `root` None keeps nothing beyond this run."""

    def __init__(self, root: Path | None, description: Mapping[str, Any], dim: int) -> None:
        self._folder = root / digest(description)[:32] if root is not None else None
        self._description, self._dim = description, dim
        self._vectors: dict[str, Vectors] = {}
        self._unsaved: list[str] = []
        self._saved_at = time.monotonic()
        self.n_damaged = 0
        self.write_error: str | None = None
        if self._folder is not None:
            self._load(self._folder)

    def get(self, content_hash: str) -> Vectors | None:
        return self._vectors.get(content_hash)

    def put(self, vectors: Mapping[str, Vectors]) -> None:
        """Keep vectors by content hash; written out now and then, and by `flush`."""
        self._vectors.update(vectors)
        self._unsaved.extend(vectors)
        if len(self._unsaved) >= FLUSH_SAMPLES or time.monotonic() - self._saved_at > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet. A disk that refuses is remembered in `write_error`, not raised."""
        if self._folder is None or not self._unsaved or self.write_error:
            return
        buffer = io.BytesIO()
        keys = np.frombuffer(b"".join(bytes.fromhex(key) for key in self._unsaved), dtype=np.uint8)
        np.savez(buffer, keys=keys.reshape(-1, 32), vectors=np.stack([self._vectors[key] for key in self._unsaved]))
        content = buffer.getvalue()
        try:
            _prepare(self._folder, self._description)
            write_private(self._folder / f"{_name(self._folder, content)}.npz", content)
        except OSError as error:
            self.write_error = f"{error.strerror or error} ({self._folder.parent})"
            return
        self._unsaved.clear()
        self._saved_at = time.monotonic()

    def _load(self, folder: Path) -> None:
        sweep(folder)
        for path in _files(folder):
            with contextlib.suppress(OSError):  # purged by another process, or not ours to touch: computed again
                if _BATCH.fullmatch(path.name):
                    batch = _verified(path, self._dim)
                    if batch is not None:
                        self._vectors.update(batch)
                    else:
                        self.n_damaged += 1
                        path.unlink()


class Results:
    """Finished pieces of long work by key, small documents each in a file of its own; `root` None keeps nothing.

    They lie in the cache beside the embeddings they were made from, and are purged with them.
    """

    NAME = "results of validate"

    def __init__(self, root: Path | None) -> None:
        self._description = {"name": self.NAME}
        self._folder = None if root is None else root / digest(self._description)[:32]
        self.write_error: str | None = None

    def get(self, key: Mapping[str, Any]) -> Any:
        """The document of a key; None when there is none, or one that is damaged."""
        if self._folder is None:
            return None
        try:
            content = json.loads((self._folder / f"{digest(key)}.json").read_bytes())
            return content["value"] if content["sha256"] == digest([digest(key), content["value"]]) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, key: Mapping[str, Any], value: Any) -> None:
        """Keep a document. A disk that refuses is remembered in `write_error`, not raised."""
        if self._folder is None or self.write_error:
            return
        try:
            _prepare(self._folder, self._description)
            # The key in the hash: a file moved to another's name is no result of that.
            text = canonical({"value": value, "sha256": digest([digest(key), value])})
            write_private(self._folder / f"{digest(key)}.json", text.encode())
        except OSError as error:
            self.write_error = f"{error.strerror or error} ({self._folder.parent})"


def entries(root: Path) -> list[Entry]:
    """What the cache holds, an entry per encoder and setting.

    Raises:
        UsageError: `root` cannot be read.
    """
    try:
        folders = sorted(p for p in root.iterdir() if _KEY.fullmatch(p.name)) if root.exists() else []
    except OSError as error:
        raise UsageError(f"The cache {root} cannot be read: {error.strerror}. Choose another.") from error
    found = []
    for folder in folders:
        description = _description(folder)
        name = str(description.get("name", "unknown")) if isinstance(description, dict) else "unknown"
        samples: set[str] = set()
        n_bytes = 0
        for path in _files(folder):
            with contextlib.suppress(OSError):  # purged by another process
                n_bytes += path.stat().st_size
                if _BATCH.fullmatch(path.name):
                    samples.update(_verified(path, None) or ())
        found.append(Entry(folder.name, name, len(samples), n_bytes))
    return found


def purge(root: Path, encoder: str | None = None) -> list[Entry]:
    """Remove everything that encsel wrote, or one encoder's vectors, and return what was removed.

    Raises:
        UsageError: `root` was not made by encsel, or cannot be removed.
    """
    found = entries(root)
    if not root.exists():
        return []
    if not _is_ours(root) and any(root.iterdir()):
        raise UsageError(f"{root} holds files but no {_MARK} of encsel; it is no encsel cache and is left alone.")
    gone = [entry for entry in found if encoder in (None, entry.encoder)]
    try:
        for entry in gone:
            shutil.rmtree(root / entry.key)
        if encoder is None:
            for path in (*root.glob(f"{TEMPORARY_PREFIX}*"), root / _MARK):
                path.unlink(missing_ok=True)
            if not any(root.iterdir()):  # what somebody else put there stays
                root.rmdir()
    except OSError as error:
        what = error.filename or root
        raise UsageError(f"{what} cannot be removed: {error.strerror}. Remove it yourself.") from error
    return gone


def secret(root: Path) -> bytes:
    """32 random bytes that are the cache's own: made at the first call, kept like all else, gone when purged.

    Raises:
        OSError: they can be neither read nor made.
    """
    folder = root / digest(_SECRET)[:32]
    path = folder / "key"
    with contextlib.suppress(FileNotFoundError):
        found = path.read_bytes()
        if found == _sealed(found[:SECRET_BYTES]):
            return found[:SECRET_BYTES]
        path.unlink()  # damaged
    _prepare(folder, _SECRET)
    own = folder / f"key-{secrets.token_hex(8)}"
    write_private(own, _sealed(secrets.token_bytes(SECRET_BYTES)))
    try:
        path.hardlink_to(own)
    except FileExistsError:  # of several processes the first one's holds
        pass
    except OSError:  # a file system without links
        own.replace(path)
    own.unlink(missing_ok=True)
    return path.read_bytes()[:SECRET_BYTES]


def _sealed(key: bytes) -> bytes:
    """As it lies on disk: with its hash, so that damage is noticed."""
    return key + hashlib.sha256(key).digest()


def _prepare(folder: Path, description: Mapping[str, Any]) -> None:
    """Make the cache and in it the folder of an encoder, and say in both what they are."""
    _make_root(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    text = canonical(description).encode()
    try:
        is_described = (folder / "encoder.json").read_bytes() == text
    except OSError:
        is_described = False
    if not is_described:
        write_private(folder / "encoder.json", text)


def _make_root(root: Path) -> None:
    root.mkdir(parents=True, mode=0o700, exist_ok=True)
    # Another process may be making the same cache at this moment; anything else is somebody's own folder. The names
    # come first: a mark that is seen among them is whole by the time it is read.
    names = _names(root)
    if _is_marked(root):
        return
    if not all(map(_KEY.fullmatch, names)) and not _holds_ours_alone(root):
        raise OSError(f"{root} holds other files; an empty or new folder is needed for the cache")
    root.chmod(root.stat().st_mode & 0o700)  # closed to others; one that its owner made read-only stays so
    write_private(root / _MARK, _MARK_TEXT.encode())


def _is_ours(root: Path) -> bool:
    return _is_marked(root) or _holds_ours_alone(root)


def _holds_ours_alone(root: Path) -> bool:
    """Whether all there is, but for a mark that is damaged, are folders of encoders, and one says whose it is."""
    names = _names(root) - {_MARK}
    return all(map(_KEY.fullmatch, names)) and any(_description(root / name) is not None for name in names)


def _names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)}


def _description(folder: Path) -> Any:
    """What a folder says it was made for; None where that does not fit its name."""
    try:
        description = json.loads((folder / "encoder.json").read_bytes())
        return description if digest(description)[:32] == folder.name else None
    except (OSError, ValueError, RecursionError):
        return None


def _is_marked(root: Path) -> bool:
    try:  # other tools' caches have a file of that name, too
        return b"Made by encsel" in (root / _MARK).read_bytes()
    except OSError:
        return False


def _files(folder: Path) -> list[Path]:
    """The files of a folder; none when it is not there or may not be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []


def _name(folder: Path, content: bytes) -> str:
    # The encoder's key in the hash: a file moved to another encoder's folder is none of that one's.
    return hashlib.sha256(folder.name.encode() + content).hexdigest()


def _verified(path: Path, dim: int | None) -> dict[str, Vectors] | None:
    """The vectors of one file by content hash; None when it is not what was written."""
    content = path.read_bytes()
    if _name(path.parent, content) != path.stem:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            keys: NDArray[np.uint8] = archive["keys"]
            vectors: Vectors = archive["vectors"]
        found = {bytes(key).hex(): vector for key, vector in zip(keys, vectors, strict=True)}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):  # a name that fits, and yet not written by encsel
        return None
    return found if dim is None or vectors.shape[1:] == (dim,) else None
