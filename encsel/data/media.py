"""Decode a face image or voice clip from bytes, the same for every encoder."""

import io
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import SAMPLING_RATE, Clip, Image, Modality
from encsel.errors import UnusableSample, first_line
from encsel.storage.files import Refused, read_whole

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"})
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".opus"})
NEEDS_FFMPEG = frozenset({".m4a", ".mp4", ".aac", ".wma", ".webm", ".mkv", ".mov", ".avi", ".3gp", ".amr"})
MEDIA_SUFFIXES = {"face": IMAGE_SUFFIXES, "voice": AUDIO_SUFFIXES | NEEDS_FFMPEG}

# No other formats of Pillow: EPS would run Ghostscript on the file.
_IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF")

MAX_FILE_BYTES = 1 << 30
MAX_PIXELS = 50_000_000
MAX_SLOW_VALUES = 16_000_000  # of a PPM in text or with unusual levels, which Pillow decodes one by one
MAX_SCANS = 100  # of a progressive JPEG (usually 10): each decodes the whole picture, however few bytes it has
MIN_SIDE = 16
MIN_SECONDS = 0.1
MAX_SECONDS = 5.0  # longer clips are cut, as in the study
MIN_RATE, MAX_RATE = 1000, 768_000  # Hz. A header may state any rate, and 5 s at a billion Hz would exhaust the memory.
_STRIP, _BLOCK = 64, 1 << 23  # rows scaled, and values of all channels decoded, at a time; ordinary clips have fewer

_TEXT_PICTURES = (b"P1", b"P2", b"P3")
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # outside compressed data; all but the end have a length

DECODING: dict[Modality, dict[str, Any]] = {
    "face": {"version": 1, "colour": "RGB", "alpha": "over white", "orientation": "EXIF applied", "reader": "pillow"},
    "voice": {"version": 1, "rate": SAMPLING_RATE, "channels": "mean", "first_seconds": MAX_SECONDS,
              "reader": "soundfile", "resampler": "soxr HQ"},
}  # fmt: skip
"""How samples are decoded; part of the cache key and of the signature."""


def read_bytes(path: Path) -> bytes:
    """The whole file, read once so that the hashed and decoded bytes are the same; UnusableSample if it cannot be."""
    try:
        content = read_whole(path, MAX_FILE_BYTES)
    except OSError as error:
        reason = error.strerror or error
        raise UnusableSample(f"{reason}" if isinstance(error, Refused) else f"unreadable: {reason}") from error
    if not content:
        raise UnusableSample("empty file")
    return content


def decode(content: bytes, modality: Modality, suffix: str = "") -> Image | Clip:
    """`decode_face` or `decode_voice`."""
    return decode_face(content) if modality == "face" else decode_voice(content, suffix)


def decode_face(content: bytes) -> Image:
    """An upright RGB image, (height, width, 3) uint8.

    Raises:
        UnusableSample: not an image, damaged, too large (50 megapixels), too slow to decode, or a side under 16 pixels.
    """
    import PIL.Image
    import PIL.ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if content[:2] in _TEXT_PICTURES:  # Pillow's time is quadratic in the number of comments
                content = re.sub(rb"#[^\r\n]*", b"", content)
            with PIL.Image.open(io.BytesIO(content), formats=_IMAGE_FORMATS) as picture:
                _check_size(picture, content)
                return np.array(_to_rgb(PIL.ImageOps.exif_transpose(picture)))
    except (UnusableSample, MemoryError):  # lack of memory is not a fault of the sample
        raise
    except Exception as error:  # damaged files raise many types, SyntaxError and struct.error among them
        what = "too large" if isinstance(error, PIL.Image.DecompressionBombError) else "unreadable image"
        raise UnusableSample(f"{what}: {_reason(error)}") from error


def _check_size(picture: Any, content: bytes) -> None:
    """Refuse a picture that is too large or small, or takes much more time or memory than its pixels suggest."""
    width, height = picture.size
    size = f"{width}x{height} pixels"
    if width * height > MAX_PIXELS:
        raise UnusableSample(f"too large: {size}, at most {MAX_PIXELS // 10**6} megapixels")
    if min(width, height) < MIN_SIDE:
        raise UnusableSample(f"too small: {size}, at least {MIN_SIDE} a side")
    codec = picture.tile[0][0] if picture.tile else ""
    if codec in ("ppm", "ppm_plain") and width * height * len(picture.getbands()) > MAX_SLOW_VALUES:
        raise UnusableSample(f"too slow to decode: {size} in text or with unusual levels")
    if picture.format == "TIFF":
        tile = picture.tag_v2.get(_TILE_WIDTH, 1), picture.tag_v2.get(_TILE_LENGTH, 1)
        if not all(isinstance(side, int) for side in tile) or tile[0] * tile[1] > MAX_PIXELS:
            raise UnusableSample(f"too large: a tile of {tile[0]}x{tile[1]} pixels")
    if picture.format in ("JPEG", "MPO") and _n_scans(content) > MAX_SCANS:
        raise UnusableSample(f"too slow to decode: over {MAX_SCANS} scans of {size}")


def _n_scans(content: bytes) -> int:
    """Number of scans of the first picture of a JPEG, at most MAX_SCANS + 1."""
    n, at = 0, 2
    while n <= MAX_SCANS and (match := _JPEG_MARKER.search(content, at)) is not None:
        marker, at = match[0][1], match.end()
        if marker == _END_OF_IMAGE:
            break
        n += marker == _START_OF_SCAN
        at += int.from_bytes(content[at : at + 2], "big")
    return n


def _to_rgb(picture: Any) -> Any:
    import PIL.Image

    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        if not np.isfinite(values).all():
            raise UnusableSample("non-finite pixels")
        # 16-bit grey has mode I;16 or I; Pillow would clip it instead of scaling.
        top = 65535.0 if picture.mode != "F" or values.max() > 255 else 255.0 if values.max() > 1 else 1.0
        grey = np.empty(values.shape, np.uint8)
        for start in range(0, len(values), _STRIP):  # a whole large picture in float64 would take much memory
            strip = values[start : start + _STRIP].astype(np.float64)
            grey[start : start + _STRIP] = np.clip(strip * (255 / top), 0, 255).round()
        picture = PIL.Image.fromarray(grey)
    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def decode_voice(content: bytes, suffix: str = "") -> Clip:
    """The first 5 seconds, mono, at 16 kHz, (frames,) float32.

    Raises:
        UnusableSample: not audio, damaged, unsupported rate, under 0.1 s, silent, or not finite.
    """
    import soundfile
    import soxr

    if suffix.lower() in NEEDS_FFMPEG:
        raise UnusableSample(f"{suffix} needs converting: ffmpeg -i CLIP{suffix} -ac 1 -ar {SAMPLING_RATE} CLIP.wav")
    try:
        with soundfile.SoundFile(_Content(content)) as audio:
            rate = audio.samplerate
            if not MIN_RATE <= rate <= MAX_RATE:
                raise UnusableSample(f"unsupported rate: {rate} Hz, must be {MIN_RATE} to {MAX_RATE}")
            mono = _mono(audio, math.ceil(MAX_SECONDS * rate))
    except (UnusableSample, MemoryError):
        raise
    except Exception as error:
        raise UnusableSample(f"unreadable audio: {_reason(error)}") from error
    if len(mono) < MIN_SECONDS * rate:
        raise UnusableSample(f"too short: {len(mono) / rate:.3f} s, at least {MIN_SECONDS} s")
    if not mono.any():
        raise UnusableSample("silent: every value is zero")
    if rate != SAMPLING_RATE:
        mono = soxr.resample(mono, rate, SAMPLING_RATE, quality="HQ")
    if not np.isfinite(mono).all():
        raise UnusableSample("non-finite audio")
    return np.ascontiguousarray(mono[: int(MAX_SECONDS * SAMPLING_RATE)], dtype=np.float32)


def _mono(audio: Any, n_frames: int) -> NDArray[np.float32]:
    """The mean of the channels for the first `n_frames`."""
    blocks = []
    step = max(_BLOCK // audio.channels, 1)
    for start in range(0, n_frames, step):
        n = min(step, n_frames - start)
        frames = audio.read(n, dtype="float32", always_2d=True)
        with np.errstate(all="ignore"):  # infinite samples are refused later
            blocks.append(frames.mean(axis=1, dtype=np.float32))
        if len(frames) < n:
            break
    return np.concatenate(blocks)


class _Content(io.BytesIO):
    """Bytes in memory that ignore a seek to an invalid position, which damaged files ask for.

    An exception in a callback of libsndfile would be printed as a traceback and then ignored.
    """

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _reason(error: Exception) -> str:
    # Without the address of the file in memory, which differs between runs.
    text = re.sub(r"(Error opening)? ?<[^>]* object at 0x[^>]*>:? ?", "", first_line(error)).strip()
    return text or type(error).__name__
