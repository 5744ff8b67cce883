"""The embedding cache: private files, written whole or not at all, verified before use.

Layout: ROOT/<encoder key>/<hash>.npz holds a batch of vectors by the hash of each sample's content, and is named by the
hash of the encoder's key and its own bytes; ROOT/<encoder key>/encoder.json describes the encoder. A file name implies
its content, whichever process writes it, so processes need not wait for one another.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import UsageError
from encsel.storage.files import TEMPORARY_PREFIX, locked, sweep, write_private
from encsel.storage.folders import expanded, user_folder
from encsel.storage.signature import canonical, digest

NO_PLACE = "There is no folder for the cache: give one with --cache or $ENCSEL_CACHE."

SECRET_BYTES = 32
FLUSH_SAMPLES, FLUSH_SECONDS = 256, 2.0
_SECRET = {"name": "key of hashed names"}
_KEY = re.compile("[0-9a-f]{32}")
_BATCH = re.compile("[0-9a-f]{64}[.]npz")
_FILE = re.compile("encoder[.]json|key|[0-9a-f]{64}[.](npz|json)")
_MARK = "CACHEDIR.TAG"
_KEYS = "# Keys: 2\n"
"""Line in the mark of a cache: the version of the keys of its entries. Entries with earlier keys are not read."""
_MARK_TEXT = f"Signature: 8a477f597d28d172789f06886806bc55\n# Made by encsel. Holds embeddings of people.\n{_KEYS}"
_OTHERS_MAY_WRITE = 0o022


def cache_root(cache: str | Path | None, note: Callable[[str], None] | None = None) -> Path | None:
    """Folder for `cache` (a folder, "default" or None); None if nothing is kept, or there is no usable folder.

    The default is $ENCSEL_CACHE, or encsel's folder in the user's cache folder. `note` is called with one sentence if
    there is no usable folder, the folder belongs to another user or was moved from where encsel 0.1 had it, or entries
    are no longer used.

    Raises:
        UsageError: a cache that was named belongs to another user, or others may write into it.
    """
    tell = note or (lambda text: None)
    if cache is None:
        return None
    named = (os.environ.get("ENCSEL_CACHE") or None) if cache == "default" else cache
    root = user_folder("cache", tell) if named is None else expanded(named)
    if root is None:
        tell(NO_PLACE)
        return None
    try:
        _check_owner(root)
    except UsageError as error:
        if named is not None:
            raise
        tell(str(error))  # HOME is another user's, as `sudo` may leave it
        return None
    if note is not None and _is_marked(root) and _KEYS.encode() not in (root / _MARK).read_bytes():
        note(f"Embeddings in {root} made before encsel 0.3 are no longer used; `encsel cache purge` removes them.")
        with contextlib.suppress(OSError):
            write_private(root / _MARK, _MARK_TEXT.encode())
    return root


def _check_owner(root: Path) -> None:
    """Raise UsageError if the content of a cache may be another user's."""
    try:
        facts = root.stat()
    except OSError:  # absent, or not to be entered: writing it will say so
        return
    what = ""
    if hasattr(os, "geteuid") and facts.st_uid != os.geteuid():
        what = "belongs to another user"
    elif os.name != "nt" and facts.st_mode & _OTHERS_MAY_WRITE and _is_marked(root):
        what = "can be written by other users"
    if what:
        raise UsageError(f"The cache {root} {what}. Give another one with --cache, or pass --no-cache.")


@dataclass(frozen=True)
class Entry:
    """What the cache holds for one encoder and setting."""

    key: str
    encoder: str
    n_samples: int
    n_bytes: int


class _Store:
    """A folder of the cache, made by the first write; a failure is stored in `write_error`, not raised."""

    def __init__(self, root: Path | None, description: Mapping[str, Any]) -> None:
        self._description = description
        self._folder = None if root is None else root / digest(description)[:32]
        self.write_error: str | None = None

    def _write(self, folder: Path, name: str, content: bytes) -> None:
        try:
            _prepare(folder, self._description)
            write_private(folder / name, content)
        except OSError as error:
            self.write_error = f"{error.strerror or error} ({folder.parent})"


class EmbeddingCache(_Store):
    """The cached vectors of one encoder; if `root` is None they are kept for this run only.

    Without `read`, what is on disk is not looked at: another process knows that the vectors to come are not there.
    """

    def __init__(self, root: Path | None, description: Mapping[str, Any], dim: int, *, read: bool = True) -> None:
        super().__init__(root, description)
        self._dim = dim
        self._vectors: dict[str, Vectors] = {}
        self._places: dict[str, list[Path]] = {}  # files that state they hold a vector, not verified yet
        self._read: set[Path] = set()
        self._reading = threading.Lock()
        self._unsaved: list[str] = []
        self._saved_at = time.monotonic()
        self.n_damaged = 0
        if self._folder is not None and read:
            sweep(self._folder)
            for path in _files(self._folder):
                if _BATCH.fullmatch(path.name):
                    for key in self._keys(path):
                        self._places.setdefault(key, []).append(path)

    def get(self, content_hash: str) -> Vectors | None:
        """The vector of a sample; None if it is not cached, or damaged."""
        if content_hash not in self._vectors and content_hash in self._places:
            with self._reading:  # several threads ask
                for path in self._places.pop(content_hash, ()):
                    if path not in self._read:
                        self._read.add(path)
                        self._load(path)
        return self._vectors.get(content_hash)

    def put(self, vectors: Mapping[str, Vectors]) -> None:
        """Add vectors by content hash; they are written from time to time, and by `flush`."""
        self._vectors.update(vectors)
        self._unsaved.extend(vectors)
        if len(self._unsaved) >= FLUSH_SAMPLES or time.monotonic() - self._saved_at > FLUSH_SECONDS:
            self.flush()

    def add(self, vectors: Mapping[str, Vectors]) -> None:
        """Add vectors by content hash that another process has written."""
        self._vectors.update(vectors)

    def flush(self) -> None:
        """Write what is not on disk yet."""
        if self._folder is None or not self._unsaved or self.write_error:
            return
        buffer = io.BytesIO()
        keys = np.frombuffer(b"".join(bytes.fromhex(key) for key in self._unsaved), dtype=np.uint8)
        np.savez(buffer, keys=keys.reshape(-1, 32), vectors=np.stack([self._vectors[key] for key in self._unsaved]))
        content = buffer.getvalue()
        self._write(self._folder, f"{_name(self._folder, content)}.npz", content)
        self._unsaved.clear()
        self._saved_at = time.monotonic()

    def _keys(self, path: Path) -> list[str]:
        """Content hashes in a file, without reading its vectors; a damaged file is removed."""
        try:
            file = path.open("rb")
        except OSError:  # purged by another process, or not ours to touch
            return []
        try:
            with file, np.load(file, allow_pickle=False) as archive:
                return [bytes(key).hex() for key in archive["keys"]]
        except Exception:  # damaged archives raise many types
            self._remove(path)
            return []

    def _load(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # purged by another process, or not ours to touch: compute it again
            batch = _verified(path, self._dim)
            self._vectors.update(batch or {})
            if batch is None:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        self.n_damaged += 1
        with contextlib.suppress(OSError):
            path.unlink()


class StageCache(_Store):
    """Results of finished stages by key, a small document each; if `root` is None nothing is kept."""

    NAME = "results of validate"
    VERSION = 2  # version of the documents; those of other versions are counted and purged, but not read

    def __init__(self, root: Path | None) -> None:
        super().__init__(root, {"name": self.NAME, "version": self.VERSION})

    def get(self, key: Mapping[str, Any]) -> Any:
        """The document of a key; None if there is none or it is damaged."""
        if self._folder is None:
            return None
        try:
            content = json.loads((self._folder / f"{digest(key)}.json").read_bytes())
            return content["value"] if content["sha256"] == digest([digest(key), content["value"]]) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, key: Mapping[str, Any], value: Any) -> None:
        """Write a document."""
        if self._folder is not None and not self.write_error:
            # The hash covers the key, so a renamed file does not pass for another result.
            text = canonical({"value": value, "sha256": digest([digest(key), value])})
            self._write(self._folder, f"{digest(key)}.json", text.encode())


def entries(root: Path) -> list[Entry]:
    """Contents of the cache; UsageError if it cannot be read."""
    try:
        folders = sorted(p for p in root.iterdir() if _is_ours(p)) if root.exists() else []
    except OSError as error:
        raise UsageError(f"The cache {root} cannot be read: {error.strerror}. Choose another folder.") from error
    listed = []
    for folder in folders:
        samples: set[str] = set()
        n_bytes = 0
        for path in _files(folder):
            with contextlib.suppress(OSError):  # purged by another process
                n_bytes += path.stat().st_size
                if _BATCH.fullmatch(path.name):
                    samples.update(_verified(path, None) or ())
        listed.append(Entry(folder.name, str(_description(folder).get("name", "unknown")), len(samples), n_bytes))
    return listed


def purge(root: Path, encoder: str | None = None) -> list[Entry]:
    """Remove and return what encsel wrote, or one encoder's entries; UsageError if that fails or `root` is no cache."""
    listed = entries(root)
    if not root.exists():
        return []
    if not _is_marked(root) and not _holds_ours_alone(root) and any(root.iterdir()):
        raise UsageError(
            f"{root} holds files but no {_MARK} of encsel: it is not an encsel cache and was left unchanged."
        )
    removed = [entry for entry in listed if encoder in (None, entry.encoder)]
    try:
        for entry in removed:
            shutil.rmtree(root / entry.key)
        if encoder is None:
            for path in (*root.glob(f"{TEMPORARY_PREFIX}*"), root / _MARK):
                path.unlink(missing_ok=True)
            if not any(root.iterdir()):  # files of others stay
                root.rmdir()
    except OSError as error:
        raise UsageError(
            f"{error.filename or root} cannot be removed: {error.strerror}. Remove it yourself."
        ) from error
    return removed


def secret(root: Path) -> bytes:
    """32 random bytes, made by the first call and purged with the cache; OSError if they cannot be written."""
    folder = root / digest(_SECRET)[:32]
    path = folder / "key"
    _prepare(folder, _SECRET)
    with locked(folder):  # another process may make it at the same time
        content = path.read_bytes() if path.exists() else b""
        key, stated = content[:SECRET_BYTES], content[SECRET_BYTES:]
        if len(key) < SECRET_BYTES or stated != hashlib.sha256(key).digest():  # absent or damaged
            key = secrets.token_bytes(SECRET_BYTES)
            write_private(path, key + hashlib.sha256(key).digest())
    return path.read_bytes()[:SECRET_BYTES]


def _prepare(folder: Path, description: Mapping[str, Any]) -> None:
    """Make the cache and the folder of an encoder in it, each with a file that describes it."""
    root = folder.parent
    root.mkdir(parents=True, mode=0o700, exist_ok=True)
    # Another process may be making the same cache; any other folder with files belongs to somebody else. List the names
    # first: a mark that is among them is complete by the time it is read.
    names = _names(root)
    if not _is_marked(root):
        if names and not _holds_ours_alone(root):
            raise OSError(f"{root} holds other files; the cache needs an empty or new folder")
        root.chmod(root.stat().st_mode & 0o700)  # close it to others; keep it read-only if its owner made it so
        write_private(root / _MARK, _MARK_TEXT.encode())
    folder.mkdir(mode=0o700, exist_ok=True)
    if not _description(folder):
        write_private(folder / "encoder.json", canonical(description).encode())


def _holds_ours_alone(root: Path) -> bool:
    """Whether the folder holds only folders of encoders and a damaged mark."""
    names = _names(root) - {_MARK}
    return all(_is_ours(root / name) for name in names) and any(_description(root / name) for name in names)


def _is_ours(folder: Path) -> bool:
    """Whether encsel made a folder of the cache: by its description, or, if that is damaged, by the names in it."""
    if not _KEY.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    if _description(folder):
        return True
    names = _names(folder) - {".encsel-lock"}
    return all(_FILE.fullmatch(name) and not (folder / name).is_dir() for name in names)


def _names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)}


def _description(folder: Path) -> dict[str, Any]:
    """Description of the encoder of a folder; empty if it does not match the folder's name."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        description = json.loads((folder / "encoder.json").read_bytes())
        if isinstance(description, dict) and digest(description)[:32] == folder.name:
            return description
    return {}


def _is_marked(root: Path) -> bool:
    try:  # caches of other tools have a file of this name, too
        return b"Made by encsel" in (root / _MARK).read_bytes()
    except OSError:
        return False


def _files(folder: Path) -> list[Path]:
    """Files of a folder; empty if it is absent or not readable."""
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.is_file())
    return []


def _name(folder: Path, content: bytes) -> str:
    # The hash covers the encoder's key, so a file moved to the folder of another encoder is not used there.
    return hashlib.sha256(folder.name.encode() + content).hexdigest()


def _verified(path: Path, dim: int | None) -> dict[str, Vectors] | None:
    """Vectors of one file by content hash; None if it is damaged."""
    content = path.read_bytes()
    if _name(path.parent, content) != path.stem:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            keys: NDArray[np.uint8] = archive["keys"]
            vectors: Vectors = archive["vectors"]
        batch = {bytes(key).hex(): vector for key, vector in zip(keys, vectors, strict=True)}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):  # the name matches, but encsel did not write it
        return None
    return batch if dim is None or vectors.shape[1:] == (dim,) else None
