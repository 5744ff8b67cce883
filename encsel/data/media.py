"""Read and decode face images and voice clips, the same for every encoder."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from encsel.core import SAMPLING_RATE, Clip, Image, Modality, Part
from encsel.data.clips import AUDIO_SUFFIXES, MAX_SECONDS, MIN_SECONDS, NEEDS_FFMPEG, decode_voice
from encsel.data.ffmpeg import Ffmpeg
from encsel.data.images import IMAGE_SUFFIXES, MIN_SIDE, decode_face
from encsel.errors import UnusableSample
from encsel.storage.files import ANNEX_POINTER, Refused, open_ordinary

__all__ = [
    "DECODING", "MAX_SECONDS", "MEDIA_SUFFIXES", "MIN_SECONDS", "MIN_SIDE", "decode", "decode_face", "decode_voice",
    "decoding", "opened", "read_bytes",
]  # fmt: skip

MEDIA_SUFFIXES: Mapping[Modality, frozenset[str]] = {"face": IMAGE_SUFFIXES, "voice": AUDIO_SUFFIXES | NEEDS_FFMPEG}
"""Files of these suffixes are samples in every layout of folders; a manifest may name others."""
MAX_FILE_BYTES = 1 << 30
_IN_MEMORY = 8 << 20  # larger files are read from disk as they are decoded
_BLOCK = 1 << 20

DECODING: dict[Modality, dict[str, Any]] = {
    "face": {"version": 2, "colour": "RGB", "alpha": "over white", "orientation": "EXIF applied", "reader": "pillow"},
    "voice": {"version": 2, "rate": SAMPLING_RATE, "channels": "mean", "seconds": MAX_SECONDS,
              "reader": "soundfile", "resampler": "soxr HQ"},
}  # fmt: skip
"""How samples are decoded; part of the cache key and of the signature."""


def decoding(modality: Modality, part: Part = "first", ffmpeg: Ffmpeg | None = None) -> dict[str, Any]:
    """Description of the decoding of a modality with these options."""
    if modality == "face":
        return DECODING["face"]
    return DECODING["voice"] | {"clip": part} | ({"ffmpeg": ffmpeg.version} if ffmpeg else {})


def read_bytes(path: Path) -> bytes:
    """The whole file; UnusableSample if it cannot be read."""
    with opened(path) as (content, _):
        if isinstance(content, bytes):
            return content
        content.seek(0)
        return content.read()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[bytes | BinaryIO, str]]:
    """A sample and its SHA-256: its bytes or, if it is large, an open file that is read while it is decoded.

    Raises:
        UnusableSample: it cannot be read, is empty or too large, or changes while it is in use.
    """
    try:
        with open_ordinary(path, MAX_FILE_BYTES) as file:
            before = os.fstat(file.fileno())
            content: bytes | BinaryIO = file.read(min(before.st_size, _IN_MEMORY) + 1)
            assert isinstance(content, bytes)
            if len(content) > before.st_size:  # it grows, or is one of /proc
                content += file.read(_IN_MEMORY)
            if len(content) <= _IN_MEMORY:
                if not content:
                    raise UnusableSample("empty file")
                yield content, hashlib.sha256(content).hexdigest()
                return
            sha256, n_bytes = hashlib.sha256(content), len(content)
            del content
            while part := file.read(_BLOCK):
                sha256.update(part)
                n_bytes += len(part)
                if n_bytes > MAX_FILE_BYTES:
                    raise UnusableSample(f"too large: over {MAX_FILE_BYTES >> 20} MiB")
            yield file, sha256.hexdigest()
            after = os.fstat(file.fileno())
            # What was hashed must be what was decoded.
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or n_bytes != after.st_size:
                raise UnusableSample("it changed while it was read")
    except OSError as error:
        if _is_in_annex(path):
            raise UnusableSample(ANNEX_POINTER) from error
        reason = error.strerror or error
        raise UnusableSample(f"{reason}" if isinstance(error, Refused) else f"unreadable: {reason}") from error


def _is_in_annex(path: Path) -> bool:
    """Whether a path is a link to a file that git-annex has not fetched."""
    try:
        return "annex/objects/" in path.readlink().as_posix()
    except (OSError, ValueError):
        return False


def decode(
    content: bytes | BinaryIO,
    modality: Modality,
    suffix: str = "",
    part: Part = "first",
    ffmpeg: Ffmpeg | None = None,
    admit: Callable[[int], None] = lambda n_bytes: None,
) -> Image | Clip:
    """`decode_face` or `decode_voice`."""
    return decode_face(content, admit) if modality == "face" else decode_voice(content, suffix, part, ffmpeg)
