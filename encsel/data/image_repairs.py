"""Pictures that are whole although Pillow refuses the file: what stands beside or behind them is at fault."""

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
_FILLINGS = (b"", b"\x55" * 4096, b"\xa9" * 4096)
"""What a decoder may read behind the end of compressed data; with a byte of it missing, each gives another picture."""


def without_leading_text(content: bytes) -> bytes:
    """A JPEG or PNG without the line ends, zeros or byte order mark that a program has put in front of it."""
    start = len(content) - len(content[:64].lstrip(_LEADING)) - len(content[64:])
    return content[start:] if start and content.startswith((JPEG_START, PNG_START), start) else content


def without_large_texts(png: bytes) -> bytes:
    """A PNG without colour profile, damaged remarks, and texts too large for Pillow; the pixels stay the same."""
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


def with_end_marker(jpeg: bytes, checksum: Callable[[bytes], int]) -> bytes | None:
    """A JPEG with the end marker that it lacks; None if any of its compressed data are missing.

    Args:
        checksum: of the pixels that a decoder makes of a file; raises for one that it refuses.
    """
    end, is_complete = _scans_of(jpeg)
    if end is None or not is_complete:
        return None
    tail = bytes([0xFF, END_OF_IMAGE])
    sums = {checksum(jpeg[:end] + filling + tail) for filling in _FILLINGS}
    return jpeg[:end] + tail if len(sums) == 1 else None


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


def _scans_of(jpeg: bytes) -> tuple[int | None, bool]:
    """Where the last scan ends, with what stands behind it if no marker does; and whether no scan is missing.

    A scan is missing if a coefficient of a component has not been sent to its last bit.
    """
    components: set[int] = set()
    bits_left: dict[tuple[int, int], int] = {}  # of each coefficient sent, by component and position
    n = 0
    end = len(jpeg)
    for marker, start, after in _markers(jpeg):
        is_frame = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if n and marker not in _WITHIN_SCANS:  # bytes behind the picture that look like a marker
            end = start
            break
        segment = jpeg[start + 4 : after]
        if is_frame and len(segment) > 5:
            components = set(segment[6 : 6 + 3 * segment[5] : 3])
        elif marker == START_OF_SCAN and segment:
            n += 1
            of_scan, rest = segment[1 : 1 + 2 * segment[0] : 2], segment[1 + 2 * segment[0] :]
            if len(rest) < 3:
                return None, False
            for component in of_scan:
                for position in range(rest[0], min(rest[1], 63) + 1):
                    bits_left[component, position] = rest[2] & 15
        if n > 1000:
            return None, False
    needed = {(component, position) for component in components for position in range(64)}
    is_complete = bool(needed) and all(bits_left.get(one) == 0 for one in needed)
    return (end, is_complete) if n else (None, False)
