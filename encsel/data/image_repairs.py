"""Repair files that Pillow refuses although the picture is whole: only what surrounds or follows it is damaged."""

import re
import zlib
from collections.abc import Callable, Iterator

JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_LEADING = b"\xef\xbb\xbf\r\n\t \0"
_MAX_TEXT = 1 << 20  # of one text in a PNG, unpacked; Pillow refuses the picture for a larger one
_MAX_TEXTS = 8 << 20
_MAX_CHUNKS = 1_000_000
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"}
_TEXT_CHUNKS = {b"tEXt": None, b"zTXt": rb"[^\0]*\0.", b"iTXt": rb"[^\0]*\0(.).[^\0]*\0[^\0]*\0"}

START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # outside compressed data; all but the end have a length
_WITHIN_SCANS = {0xC4, 0xDA, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # markers that may stand between scans
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_MAX_SEGMENTS = 10_000
_FILLINGS = (b"", b"\x55" * 4096, b"\xa9" * 4096)
"""Bytes that a decoder may read after compressed data; if a byte of the data is missing, each changes the picture."""


def without_leading_text(content: bytes) -> bytes:
    """A JPEG or PNG without line ends, zeros or a byte order mark that a program put in front of it."""
    start = len(content) - len(content[:64].lstrip(_LEADING)) - len(content[64:])
    return content[start:] if start and content.startswith((JPEG_START, PNG_START), start) else content


def without_large_texts(png: bytes) -> bytes:
    """A PNG without colour profile, damaged metadata, and texts too large for Pillow; the pixels stay the same."""
    kept, at, n_unpacked = [png[:8]], 8, 0
    for _ in range(_MAX_CHUNKS):
        size, name = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        end = at + 12 + size
        if len(name) < 4 or end > len(png):
            break
        if name in _PIXEL_CHUNKS:
            kept.append(png[at:end])
        elif name != b"iCCP" and size <= _MAX_TEXT and n_unpacked <= _MAX_TEXTS:
            content = png[at + 8 : end - 4]
            n = _size_of_text(name, content)
            n_unpacked += n
            if n <= _MAX_TEXT and zlib.crc32(name + content) == int.from_bytes(png[end - 4 : end], "big"):
                kept.append(png[at:end])
        at = end
    return b"".join([*kept, png[at:]])


def has_large_texts(png: bytes) -> bool:
    """Whether `without_large_texts` may leave something out."""
    at = 8
    for _ in range(_MAX_CHUNKS):
        size, name = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        if len(name) < 4:
            return False
        if name not in _PIXEL_CHUNKS:
            return True
        at += 12 + size
    return True


def _size_of_text(name: bytes, content: bytes) -> int:
    """Bytes of a text chunk when unpacked; just above the largest size for any that is larger or cannot be unpacked."""
    head = re.match(_TEXT_CHUNKS.get(name) or b"", content, re.DOTALL)
    if head is None:
        return _MAX_TEXT + 1
    if name not in _TEXT_CHUNKS or name == b"tEXt" or (name == b"iTXt" and head[1] == b"\0"):
        return len(content)
    try:
        return len(zlib.decompressobj().decompress(content[head.end() :], _MAX_TEXT + 1))
    except zlib.error:
        return _MAX_TEXT + 1


def has_end_marker(jpeg: bytes) -> bool:
    """Whether the first picture of a JPEG ends as it should."""
    return any(marker == END_OF_IMAGE for marker, _, _ in _markers(jpeg))


def with_end_marker(jpeg: bytes, checksum: Callable[[bytes], int]) -> bytes | None:
    """A JPEG with the end marker that it lacks; None if any of its compressed data are missing.

    After the data there may be nothing, or only zeros or ones: any other bytes could have replaced data.

    Args:
        checksum: checksum of the pixels that a decoder makes of a file; raises for a file that it refuses.
    """
    if not _has_all_scans(jpeg):
        return None
    data = jpeg.rstrip(b"\0\xff")
    behind = jpeg[len(data) :]
    if len(behind) <= 2:  # of the data, but for half a marker
        data = jpeg.removesuffix(b"\xff")
    elif behind[:2] == b"\xff\0":  # how data have a byte of ones
        data += behind[:2]
    end = bytes([0xFF, END_OF_IMAGE])
    sums = {checksum(data + filling + end) for filling in _FILLINGS}
    return data + end if len(sums) == 1 else None


def n_scans(jpeg: bytes, at_most: int) -> int:
    """Number of scans of the first picture of a JPEG, at most one above `at_most`."""
    n = 0
    for marker, _, _ in _markers(jpeg):
        n += marker == START_OF_SCAN
        if marker == END_OF_IMAGE or n > at_most:
            break
    return n


def _markers(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """Each marker, where it begins, and where its segment ends."""
    at = 2
    while (match := _JPEG_MARKER.search(jpeg, at)) is not None:
        at = match.end() + int.from_bytes(jpeg[match.end() : match.end() + 2], "big")
        yield match[0][1], match.start(), at


def _has_all_scans(jpeg: bytes) -> bool:
    """Whether the scans send every coefficient of every component to its last bit, and nothing else follows them."""
    components: set[int] = set()
    bits_left: dict[tuple[int, int], int] = {}  # of each coefficient sent, by component and position
    for n, (marker, start, after) in enumerate(_markers(jpeg)):
        segment = jpeg[start + 4 : after]
        if bits_left and (marker not in _WITHIN_SCANS or n > _MAX_SEGMENTS):
            return False
        if marker in _FRAMES and len(segment) > 5:
            components = set(segment[6 : 6 + 3 * segment[5] : 3])
        elif marker == START_OF_SCAN and segment:
            first, last, approximation = segment[1 + 2 * segment[0] :].ljust(3, b"\xff")[:3]
            for component in segment[1 : 1 + 2 * segment[0] : 2]:
                bits_left |= {(component, position): approximation & 15 for position in range(first, min(last, 63) + 1)}
    return bool(components) and all(bits_left.get((c, position)) == 0 for c in components for position in range(64))
