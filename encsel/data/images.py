"""Decode a face image: upright RGB, 8 bits, over white."""

import contextlib
import io
import os
import re
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from encsel.core import Image
from encsel.data.image_repairs import (
    JPEG_START,
    PNG_START,
    has_end_marker,
    has_large_texts,
    n_scans,
    with_end_marker,
    without_large_texts,
    without_leading_text,
)
from encsel.data.memory import DECODING_MEMORY
from encsel.errors import UnusableSample, reason_of
from encsel.storage.files import stand_in

IMAGE_SUFFIXES = frozenset(
    {
        ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
        ".pbm", ".pnm", ".pfm", ".gif",
    }
)  # fmt: skip
"""Suffixes that Pillow knows for the formats that are read."""
# No other formats of Pillow: EPS would run Ghostscript on the file.
_IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF")

MAX_PIXELS = 50_000_000
MAX_IMAGE_BYTES = 400 << 20  # 50 megapixels of 8 bytes
MAX_SLOW_VALUES = 16_000_000  # of a PPM in text or with unusual levels, which Pillow decodes one by one (about 8 s)
MAX_SCANS = 100  # of a progressive JPEG (usually 10): each decodes the whole picture, however few bytes it has
MIN_SIDE = 16
MIN_LEVELS = 32
"""A picture of more than 8 bits that would be left with fewer grey levels than this, of 256, is stretched."""
_STRIP = 1 << 20  # pixels converted at a time; ordinary pictures have fewer

_TEXT_PICTURES = (b"P1", b"P2", b"P3")
_TILE_WIDTH, _TILE_LENGTH, _BITS, _SAMPLE_FORMAT = 322, 323, 258, 339
_ORIENTATION = 0x0112
_TOPS = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
"""Largest values of pictures of real numbers from 0 to 1, and of 8, 10, 12, 14 and 16 bits."""
# Byte orders of Pillow's raw modes: N is that of this machine.
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def decode_face(content: bytes | BinaryIO, admit: Callable[[int], None] = lambda n_bytes: None) -> Image:
    """An upright RGB image, (height, width, 3) uint8.

    Args:
        content: the file, or an open file on disk.
        admit: called with the size of the image before it is decoded; may raise UnusableSample.
    Raises:
        UnusableSample: not an image, damaged, too large (50 megapixels), too slow to decode, or a side under 16 pixels.
    """
    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(content, bytes):
                return _decoded(content, admit)
            size = content.seek(0, os.SEEK_END)
            if size > MAX_IMAGE_BYTES:
                raise UnusableSample(f"too large: {size >> 20} MiB, at most {MAX_IMAGE_BYTES >> 20} for an image")
            with DECODING_MEMORY.reserved(2 * size + _memory_of(content)):
                content.seek(0)
                return _decoded(content.read(), admit, is_reserved=True)
    except (UnusableSample, MemoryError):  # lack of memory is not a fault of the sample
        raise
    except Exception as error:  # damaged files raise many types, SyntaxError and struct.error among them
        what = "too large" if isinstance(error, PIL.Image.DecompressionBombError) else "unreadable image"
        raise UnusableSample(f"{what}: {reason_of(error)}") from error


def _decoded(content: bytes, admit: Callable[[int], None], *, is_reserved: bool = False) -> Image:
    if text := stand_in(content):
        raise UnusableSample(text)
    content = without_leading_text(content)
    if content[:2] in _TEXT_PICTURES:  # Pillow's time is quadratic in the number of comments
        content = re.sub(rb"#[^\r\n]*", b"", content)
    if content.startswith(PNG_START) and has_large_texts(content):
        content = without_large_texts(content)
    if content.startswith(JPEG_START) and not has_end_marker(content):
        whole = with_end_marker(content, lambda jpeg: zlib.crc32(_pixels(jpeg, is_reserved).data))
        if whole is None:
            raise UnusableSample("unreadable image: the JPEG is truncated")
        content = whole
    return _pixels(content, is_reserved, admit)


def _pixels(content: bytes, is_reserved: bool, admit: Callable[[int], None] = lambda n_bytes: None) -> Image:
    import PIL.Image

    with PIL.Image.open(io.BytesIO(content), formats=_IMAGE_FORMATS) as picture:
        _check_size(picture, content)
        memory = contextlib.nullcontext() if is_reserved else DECODING_MEMORY.reserved(_memory(picture))
        with memory:
            admit(3 * picture.width * picture.height)
            is_wide = _is_wide(picture)
            picture.load()
            image, view = _empty(picture)
            if is_wide and _is_dark(picture):
                _fill_from_wide(view, picture, content)
            elif picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
                _fill_from_numbers(view, picture)
            else:
                for rows, strip in _strips(picture):
                    view[rows] = _rgb(strip)
            return image


def _memory_of(file: BinaryIO) -> int:
    """Bytes that decoding a file takes; all of the budget if Pillow cannot tell without reading the whole file."""
    import PIL.Image

    file.seek(8)
    if file.read(4) == b"WEBP":
        return DECODING_MEMORY.n_bytes
    file.seek(0)
    try:
        return _memory(PIL.Image.open(file, formats=_IMAGE_FORMATS))
    except Exception:  # a reason follows when it is decoded
        return DECODING_MEMORY.n_bytes


def _memory(picture: Any) -> int:
    """Bytes that decoding takes, by measurement: Pillow's pixels, the result, and buffers of the format."""
    n_pixels = picture.size[0] * picture.size[1]
    stored = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}.get(picture.mode, 4)
    # What a format's decoder holds, until the result takes its place.
    held = {"WEBP": 12, "TIFF": 8, "JPEG": 6, "MPO": 6}.get(picture.format, 0)
    if held == 6 and not picture.info.get("progressive"):
        held = 0
    held += stored if _is_wide(picture) else 0  # read a second time if it is dark
    return int(n_pixels * (stored + max(3, held)) + 80 * min(n_pixels, _STRIP))


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
    if picture.format in ("JPEG", "MPO") and n_scans(content, MAX_SCANS) > MAX_SCANS:
        raise UnusableSample(f"too slow to decode: over {MAX_SCANS} scans of {size}")


def _empty(picture: Any) -> tuple[Image, Image]:
    """An image to be filled, and the view of it that has the rows and columns of the file, by EXIF orientation."""
    orientation = picture.getexif().get(_ORIENTATION, 1)
    width, height = picture.size
    turned = orientation in (5, 6, 7, 8)
    image = np.empty((width, height, 3) if turned else (height, width, 3), np.uint8)
    view = image.transpose(1, 0, 2) if turned else image
    if orientation in (3, 4, 7, 8):
        view = view[::-1] if orientation in (3, 4) else view[:, ::-1]
    if orientation in (2, 3, 6, 7):
        view = view[:, ::-1] if orientation in (2, 3) else view[::-1]
    return image, view


def _strips(picture: Any) -> Iterator[tuple[slice, Any]]:
    """The picture in strips of some rows: whole, copies of 50 megapixels would take hundreds of megabytes each."""
    width, height = picture.size
    n_rows = max(1, _STRIP // width)
    for start in range(0, height, n_rows):
        rows = slice(start, min(start + n_rows, height))
        whole = rows == slice(0, height)
        yield rows, picture if whole else picture.crop((0, rows.start, width, rows.stop))


def _rgb(picture: Any) -> NDArray[np.uint8]:
    import PIL.Image

    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "white"), picture)
    return np.asarray(picture.convert("RGB"))


def _fill_from_numbers(view: Image, picture: Any) -> None:
    """Fill with one channel of more than 8 bits, scaled by its range."""
    unsigned = picture.format == "TIFF" and picture.tag_v2.get(_BITS) == (32,) and picture.mode == "I"
    unsigned &= picture.tag_v2.get(_SAMPLE_FORMAT, (1,)) == (1,) if unsigned else False

    def values() -> Iterator[tuple[slice, NDArray[Any]]]:
        for rows, strip in _strips(picture):
            array = np.asarray(strip)
            yield rows, array.view(np.uint32) if unsigned else array

    low, high = np.inf, -np.inf
    for _, strip in values():
        if not np.isfinite(strip).all():
            raise UnusableSample("non-finite pixels")
        low, high = min(low, float(strip.min())), max(high, float(strip.max()))
    start, top = _range(low, high, is_integer=picture.mode != "F")
    for rows, strip in values():
        view[rows] = _scaled(strip, start, top)[..., None]


def _range(low: float, high: float, *, is_integer: bool) -> tuple[float, float]:
    """Values that become black and white.

    They are 0 and the largest value of as many bits as the picture uses, whatever its container has: 8, 10, 12, 14 or
    16. A picture with negative or larger values, or so small a part of the range that under MIN_LEVELS of 256 levels
    would be left, is stretched from its smallest to its largest value.
    """
    top = next((top for top in _TOPS if high <= top and not (is_integer and top == 1)), high)
    if low < high and (low < 0 or (high - low) * 255 < (MIN_LEVELS - 1) * top):
        return low, high
    return 0.0, top


def _scaled(values: NDArray[Any], start: float, top: float) -> NDArray[np.uint8]:
    scale = 255 / ((top - start) or 1.0)
    return np.clip((values.astype(np.float64) - start) * scale, 0, 255).round().astype(np.uint8)


def _is_wide(picture: Any) -> bool:
    """Whether a picture that is not loaded yet has over 8 bits per colour, of which Pillow keeps the upper 8."""
    if picture.mode == "RGB" and picture.tile and picture.tile[0].codec_name == "ppm":
        return bool(picture.tile[0].args[1] > 255)
    return any(";16" in mode and not mode.startswith("I;") for mode in map(_raw_mode, picture.tile))


def _raw_mode(tile: Any) -> str:
    """Pillow's name for the pixels as the file has them."""
    return str(tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args)


def _is_dark(picture: Any) -> bool:
    """Whether no colour reaches a quarter of its range."""
    # Pillow cuts 14 bits to 63, and rounds them to 64 in a PPM.
    extrema = picture.getextrema() if picture.mode == "CMYK" else picture.getextrema()[:3]
    return max(high for _, high in extrema) < (65 if picture.format == "PPM" else 64)


def _fill_from_wide(view: Image, picture: Any, content: bytes) -> None:
    """Fill with colours of 16 bits that use the lower 14 alone, scaled by their range."""
    top, opaque = 0.0, 0.0
    low = np.inf
    for _, strip in _wide_strips(picture, content):
        low, top = min(low, float(strip[..., :3].min())), max(top, float(strip[..., :3].max()))
        opaque = max(opaque, float(strip[..., 3:].max(initial=0)))
    start, top = _range(low, top, is_integer=True)
    opaque = next(bound for bound in _TOPS[1:] if opaque <= bound)
    for rows, strip in _wide_strips(picture, content):
        colours = _scaled(strip[..., :3], start, top)
        if strip.shape[2] == 4:
            alpha = strip[..., 3:].astype(np.float64) / opaque
            colours = np.clip(colours * alpha + 255 * (1 - alpha), 0, 255).round().astype(np.uint8)
        view[rows] = colours


def _wide_strips(picture: Any, content: bytes) -> Iterator[tuple[slice, NDArray[np.uint16]]]:
    """Strips of 16 bits a colour; `picture`, loaded, has the upper 8 of them, and a second reading gives the others."""
    import PIL.Image

    with PIL.Image.open(io.BytesIO(content), formats=_IMAGE_FORMATS) as second:
        if second.tile[0].codec_name == "ppm":
            pixels = np.frombuffer(content, ">u2", 3 * picture.width * picture.height, second.tile[0].offset)
            for rows, _ in _strips(picture):
                yield rows, pixels.reshape(picture.height, picture.width, 3)[rows].astype(np.uint16)
            return
        modes = set(map(_raw_mode, second.tile))
        name, _, order = modes.pop().partition(";16") if len(modes) == 1 else ("", "", "")
        in_bytes = name == "LA" and second.mode == "RGBA"  # four bytes a pixel, which Pillow can also read as such
        if order not in _SWAPPED or not (in_bytes or name in ("RGB", "RGBX", "RGBA")):
            raise UnusableSample("dark: 16 bits per colour, of which at most 14 are used; convert it to 8 bits")
        raw = "RGBA" if in_bytes else f"{name};16{_SWAPPED[order]}"
        second.tile = [
            tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in second.tile
        ]
        second.load()
        for (rows, upper), (_, lower) in zip(_strips(picture), _strips(second), strict=True):
            low = np.asarray(lower)
            yield rows, np.asarray(upper).astype(np.uint16) << 8 | (low[..., [1, 1, 1, 3]] if in_bytes else low)
