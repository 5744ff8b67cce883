"""Recognise sound files by content: containers that libsndfile cannot read, and lengths missing from headers."""

import io
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

HEAD_BYTES = 4096
MAX_CHUNKS = 10_000


@dataclass(frozen=True)
class Container:
    """A kind of file for ffmpeg.

    Attributes:
        name: name that users know.
        demuxer: ffmpeg's name for it, so that ffmpeg need not guess and never opens a playlist.
        perhaps: libsndfile may be able to read it, and is tried first.
    """

    name: str
    demuxer: str
    perhaps: bool = False


_CONTAINERS = tuple(
    (re.compile(pattern, re.DOTALL), Container(name, demuxer))
    for pattern, name, demuxer in (
        (rb".{4}(ftyp|moov|mdat|wide|pnot)", "MP4 (such as m4a)", "mov"),
        (rb"\x1aE\xdf\xa3", "WebM or Matroska", "matroska"),
        (rb"\xff[\xf0\xf1\xf8\xf9]", "AAC (ADTS)", "aac"),
        (rb"0&\xb2u\x8ef\xcf\x11", "ASF (such as wma)", "asf"),
        (rb"RIFF.{4}AVI ", "AVI", "avi"),
        (rb"FLV\x01", "FLV", "flv"),
        (rb"#!AMR", "AMR", "amr"),
        (rb"wvpk", "WavPack", "wv"),
        (rb"MAC ", "Monkey's Audio", "ape"),
        (rb"TTA1", "True Audio", "tta"),
        (rb"\x0bw", "AC-3", "ac3"),
        (rb"\x7f\xfe\x80\x01", "DTS", "dts"),
        (rb"\.RMF", "RealMedia", "rm"),
        (rb"G.{187}G.{187}G", "MPEG transport stream", "mpegts"),
        (rb"\0\0\x01\xba", "MPEG program stream", "mpeg"),
    )
)
_OGG_CODECS = {b"\x7fFLAC": "FLAC", b"fLaC": "FLAC", b"Speex   ": "Speex", b"\x80theora": "video"}
_WAV_CODECS = {1, 2, 3, 6, 7, 0x11, 0x31, 0x40, 0x55, 0x64, 0xFFFE}  # format tags that libsndfile reads
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_UNKNOWN = (0, 0xFFFFFFFF)
_UNKNOWN_LONG = (0, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


def container(file: BinaryIO) -> Container | None:
    """The container of a file that libsndfile cannot read, or cannot always read; None for any other content."""
    head = _at(file, 0, HEAD_BYTES)
    if head[:3] == b"ID3" and len(head) >= 10:  # a tag, before AAC as before MP3
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 0x7F
        head = _at(file, 10 + size, HEAD_BYTES)
    for pattern, known in _CONTAINERS:
        if pattern.match(head):
            return known
    if head[:4] == b"OggS" and len(head) > 27:
        first = head[27 + head[26] :]
        inside = next((name for magic, name in _OGG_CODECS.items() if first.startswith(magic)), None)
        return Container(f"Ogg with {inside} inside", "ogg", perhaps=True) if inside else None
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        for name, start, size in _chunks(file, 12, "<I"):
            if name == b"fmt " and size >= 2:
                tag = int.from_bytes(_at(file, start, 2), "little")
                return None if tag in _WAV_CODECS else Container(f"WAV with codec {tag:#x} inside", "wav", perhaps=True)
    if head[:4] == b"caff" and (codec := head[28:32]) != b"lpcm" and codec.strip().isalnum():
        return Container(f"CAF with {codec.decode().strip()} inside", "caf", perhaps=True)
    return None


def lengths(file: BinaryIO) -> Mapping[int, bytes]:
    """Header bytes, by position, that state the length of a stream whose writer did not know it.

    Only for formats where libsndfile needs it: WAV, RF64, Wave64 and CAF. The length is that of the rest of the file.
    """
    head = _at(file, 0, 40)
    end = file.seek(0, io.SEEK_END)
    if head[8:12] == b"WAVE" and head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        order = ">" if head[:4] == b"RIFX" else "<"
        return _wave_lengths(file, head, end, order)
    if head[:16] == _W64_RIFF:
        return _wave64_lengths(file, end)
    if head[:4] == b"caff":
        for name, start, size in _chunks(file, 8, ">Q"):
            if name == b"data" and size == 0xFFFFFFFFFFFFFFFF:
                return {start - 8: struct.pack(">Q", end - start)}
    return {}


def _wave_lengths(file: BinaryIO, head: bytes, end: int, order: str) -> dict[int, bytes]:
    frame = 0
    for name, start, size in _chunks(file, 12, order + "I"):
        if name == b"fmt " and size >= 14:
            frame = int.from_bytes(_at(file, start + 12, 2), "little")
        if name != b"data":
            continue
        if head[:4] == b"RF64" and head[12:16] == b"ds64" and size in _UNKNOWN:
            if struct.unpack("<Q", head[28:36])[0] in _UNKNOWN_LONG:
                long = struct.pack("<QQQ", end - 8, end - start, (end - start) // max(frame, 1))
                return {20: long, start - 4: b"\xff\xff\xff\xff"}
        elif size == 0 and end > start and not _ends_in_chunks(file, start, end, order + "I"):
            return {start - 4: struct.pack(order + "I", min(end - start, 0xFFFFFFFE))}
        break
    return {}


def _wave64_lengths(file: BinaryIO, end: int) -> dict[int, bytes]:
    at = 40
    for _ in range(MAX_CHUNKS):
        chunk = _at(file, at, 24)
        if len(chunk) < 24 or chunk[4:16] != _W64_TAIL:
            break
        size = int.from_bytes(chunk[16:], "little")
        if chunk[:4] == b"data":
            if size in (24, *_UNKNOWN_LONG):
                return {16: struct.pack("<Q", end), at + 16: struct.pack("<Q", end - at)}
            break
        if size < 24:
            break
        at += -(-size // 8) * 8
    return {}


def _chunks(file: BinaryIO, at: int, size_form: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of each chunk of a file; the last one may reach beyond its end."""
    n = 4 + struct.calcsize(size_form)
    for _ in range(MAX_CHUNKS):
        header = _at(file, at, n)
        if len(header) < n:
            return
        size = struct.unpack(size_form, header[4:])[0]
        yield header[:4], at + n, size
        # Chunks of RIFF begin at even positions, those of CAF anywhere.
        at += n + size + (size % 2 if n == 8 else 0)


def _ends_in_chunks(file: BinaryIO, at: int, end: int, size_form: str) -> bool:
    """Whether only whole chunks lie between a position and the end of a file."""
    last = at
    for name, start, size in _chunks(file, at, size_form):
        if not name.isascii() or not name.decode().isprintable():
            return False
        last = start + size
    return last in (end, end - 1)


def _at(file: BinaryIO, position: int, n_bytes: int) -> bytes:
    file.seek(position)
    return file.read(n_bytes)
