"""Decode a voice clip: 5 seconds of it, mono, at 16 kHz."""

import io
import math
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from encsel.core import SAMPLING_RATE, Clip, Part
from encsel.data.containers import HEAD_BYTES, Container, container, lengths
from encsel.data.ffmpeg import Ffmpeg, on_disk
from encsel.data.memory import DECODING_MEMORY
from encsel.errors import UnusableSample, reason_of
from encsel.storage.files import stand_in

AUDIO_SUFFIXES = frozenset(
    {
        ".wav", ".wave", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp1", ".mp2", ".mp3", ".aif", ".aiff",
        ".aifc", ".au", ".snd", ".caf", ".sph", ".nist", ".voc", ".svx", ".8svx", ".iff", ".avr", ".paf", ".fap",
        ".pvf", ".sf", ".ircam", ".wve", ".sds",
    }
)  # fmt: skip
"""Suffixes of the formats that libsndfile reads, except those that other kinds of data use too (mat, htk, xi, raw)."""
NEEDS_FFMPEG = frozenset(
    {
        ".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".aac", ".wma", ".wmv", ".asf", ".webm", ".weba",
        ".mkv", ".mka", ".avi", ".flv", ".amr", ".spx", ".wv", ".ape", ".tta", ".ac3", ".dts", ".ra", ".rm", ".mpg",
        ".mpeg", ".mts", ".m2ts", ".vob",
    }
)  # fmt: skip

MIN_SECONDS = 0.1
MAX_SECONDS = 5.0  # longer clips are cut, as in the study
MIN_RATE, MAX_RATE = 1000, 768_000  # Hz. A header may state any rate, and 5 s at a billion Hz would exhaust the memory.
_BLOCK = 1 << 20  # values of all channels decoded at a time; ordinary clips have fewer
_MAX_VALUES = 1 << 29  # values looked at in search of sound: 90 minutes of CD, 9 hours at 16 kHz
_N_HOPS = 50  # of the window that looks for the loudest part
_UNKNOWN_FRAMES = 1 << 62
_PLAIN_SUFFIX = re.compile("[.][A-Za-z0-9]{1,5}")


class _NotRead(UnusableSample):
    """libsndfile cannot read a clip; ffmpeg may be able to."""


class _Stream(Protocol):
    """The mean of a clip's channels, in blocks of at most 5 seconds."""

    rate: int
    n_channels: int
    n_frames: int | None
    """The value that the header states; None if it states none."""

    def blocks(self, start: int = 0) -> Iterator[NDArray[np.float32]]:
        """The blocks from a frame to the end."""


@dataclass(frozen=True)
class _Cut:
    """The part of a clip that is used. `silence`: where it was taken from, for messages; `lead`: seconds skipped."""

    mono: NDArray[np.float32]
    silence: str = ""
    lead: float = 0.0


def decode_voice(
    content: bytes | BinaryIO, suffix: str = "", part: Part = "first", ffmpeg: Ffmpeg | None = None
) -> Clip:
    """5 seconds of a clip, mono, at 16 kHz, (frames,) float32.

    Args:
        content: the file, or an open file on disk.
        suffix: suffix of its name, for messages; the format is recognised by content.
        part: which 5 seconds of a longer clip. "first" begins where the sound begins: leading zeros of at least 0.1 s
            are skipped.
        ffmpeg: decodes what libsndfile cannot.
    Raises:
        UnusableSample: not audio, damaged, unsupported rate, under 0.1 s, silent, or not finite.
    """
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    file.seek(0)
    if text := stand_in(file.read(HEAD_BYTES)):
        raise UnusableSample(text)
    known = container(file)
    if known is None or known.perhaps:
        try:
            return _read_by_libsndfile(file, part)
        except _NotRead:
            if known is None and (ffmpeg or suffix.lower() not in NEEDS_FFMPEG):
                raise
    if ffmpeg is None or known is None:
        raise UnusableSample(_to_convert(suffix if known is None else known.name, suffix))
    with on_disk(content) as place, DECODING_MEMORY.reserved(_memory(SAMPLING_RATE, 1)):
        return _finished(_part_of(_FromFfmpeg(ffmpeg, place, known), part), SAMPLING_RATE, n_channels=1)


def _to_convert(name: str, suffix: str) -> str:
    suffix = suffix if _PLAIN_SUFFIX.fullmatch(suffix) else ""
    made = "CLIP2.wav" if suffix.lower() == ".wav" else "CLIP.wav"
    return f"{name} needs converting: ffmpeg -i CLIP{suffix} -ac 1 -ar {SAMPLING_RATE} {made}, or pass --ffmpeg"


def _read_by_libsndfile(file: BinaryIO, part: Part) -> Clip:
    sound = _Sound(file, lengths(file))
    try:
        stream = _FromLibsndfile(sound)
        if not MIN_RATE <= stream.rate <= MAX_RATE:
            raise UnusableSample(f"unsupported rate: {stream.rate} Hz, must be {MIN_RATE} to {MAX_RATE}")
        with DECODING_MEMORY.reserved(_memory(stream.rate, stream.n_channels)):
            return _finished(_part_of(stream, part), stream.rate, stream.n_channels)
    except (UnusableSample, MemoryError):  # lack of memory is not a fault of the sample
        raise
    except Exception as error:
        # An error of the disk reaches libsndfile as the end of the file.
        raise _NotRead(f"unreadable audio: {reason_of(sound.error or error)}") from error


def _memory(rate: int, n_channels: int) -> int:
    """Largest number of bytes in use for one clip: a block, and some copies of 5 seconds."""
    return 4 * (2 * min(_BLOCK, math.ceil(MAX_SECONDS * rate) * n_channels) + 8 * math.ceil(MAX_SECONDS * rate))


def _finished(cut: _Cut, rate: int, n_channels: int) -> Clip:
    """The clip at 16 kHz."""
    import soxr

    mono = cut.mono
    if len(mono) < MIN_SECONDS * rate:
        after = f" after {cut.lead:.1f} s of silence" if cut.lead else ""
        raise UnusableSample(f"too short: {len(mono) / rate:.3f} s{after}, at least {MIN_SECONDS} s")
    if not mono.any():
        zero = "every value" if n_channels == 1 else "the mean of its channels"
        raise UnusableSample(f"silent{cut.silence}: {zero} is zero")
    if rate != SAMPLING_RATE:
        mono = soxr.resample(mono, rate, SAMPLING_RATE, quality="HQ")
    if not np.isfinite(mono).all():
        raise UnusableSample("non-finite audio")
    return np.ascontiguousarray(mono[: int(MAX_SECONDS * SAMPLING_RATE)], dtype=np.float32)


def _part_of(stream: _Stream, part: Part) -> _Cut:
    return {"first": _first, "middle": _middle, "loudest": _loudest}[part](stream)


def _first(stream: _Stream) -> _Cut:
    """The first 5 seconds after leading zeros, if these last 0.1 s or more."""
    needed, n_zeros, lead = math.ceil(MAX_SECONDS * stream.rate), 0, 0
    taken: list[NDArray[np.float32]] = []
    for block in stream.blocks():
        if not taken:
            if not block.any():
                n_zeros += len(block)
                if n_zeros * stream.n_channels >= _MAX_VALUES:
                    return _Cut(np.zeros(needed, np.float32), f" in its first {n_zeros / stream.rate:.0f} s")
                continue
            n_more = int(np.flatnonzero(block)[0])
            if n_zeros + n_more >= MIN_SECONDS * stream.rate:
                lead, block = n_zeros + n_more, block[n_more:]
            else:
                taken.append(np.zeros(n_zeros, np.float32))
        taken.append(block)
        if sum(map(len, taken)) >= needed:
            break
    if not taken:
        return _Cut(np.zeros(min(n_zeros, needed), np.float32))
    return _Cut(np.concatenate(taken)[:needed], lead=lead / stream.rate)


def _middle(stream: _Stream) -> _Cut:
    """The 5 seconds in the middle."""
    needed, n = math.ceil(MAX_SECONDS * stream.rate), stream.n_frames
    if n is None:
        n = 0
        for block in stream.blocks():
            n += len(block)
            if n * stream.n_channels >= _MAX_VALUES:
                break
    taken: list[NDArray[np.float32]] = []
    for block in stream.blocks(max(0, (n - needed) // 2)):
        taken.append(block)
        if sum(map(len, taken)) >= needed:
            break
    mono = np.concatenate(taken)[:needed] if taken else np.empty(0, np.float32)
    return _Cut(mono, " in its middle 5 s") if n > needed else _Cut(mono)


def _loudest(stream: _Stream) -> _Cut:
    """The 5 seconds with the greatest energy, in steps of 0.1 s; the earliest if several are equal."""
    needed, n_values = math.ceil(MAX_SECONDS * stream.rate), 0
    window: deque[NDArray[np.float32]] = deque(maxlen=_N_HOPS)
    energies: deque[float] = deque(maxlen=_N_HOPS)
    best: list[NDArray[np.float32]] = []
    most = -1.0
    for hop in _hops(stream.blocks(), math.ceil(needed / _N_HOPS)):
        window.append(hop)
        with np.errstate(all="ignore"):  # values that are not finite are refused later
            energies.append(float(np.square(hop, dtype=np.float64).sum()))
        if len(window) < _N_HOPS or sum(energies) > most:
            best, most = list(window), sum(energies)
        n_values += len(hop) * stream.n_channels
        if n_values >= _MAX_VALUES:
            break
    mono = np.concatenate(best)[:needed] if best else np.empty(0, np.float32)
    seconds = n_values / stream.n_channels / stream.rate
    return _Cut(mono, f" in its first {seconds:.0f} s") if n_values >= _MAX_VALUES else _Cut(mono)


def _hops(blocks: Iterator[NDArray[np.float32]], n_frames: int) -> Iterator[NDArray[np.float32]]:
    """The same sound in pieces of `n_frames`; the last one may be shorter."""
    rest = np.empty(0, np.float32)
    for block in blocks:
        whole = np.concatenate([rest, block])
        n = len(whole) // n_frames * n_frames
        for start in range(0, n, n_frames):
            yield whole[start : start + n_frames]
        rest = whole[n:]
    if len(rest):
        yield rest


class _FromLibsndfile:
    def __init__(self, sound: "_Sound") -> None:
        self._sound = sound
        self._audio: Any = self._open()
        self.rate, self.n_channels = int(self._audio.samplerate), int(self._audio.channels)
        self.n_frames = n if 0 < (n := int(self._audio.frames)) < _UNKNOWN_FRAMES else None

    def blocks(self, start: int = 0) -> Iterator[NDArray[np.float32]]:
        audio, self._audio = self._audio or self._open(), None
        with audio:
            if start and not (self._can_seek and self.n_frames):
                left = start
                for block in self._blocks_of(audio):
                    if len(block) > left:
                        yield block[left:]
                    left = max(0, left - len(block))
                return
            if start:
                audio.seek(start)
            yield from self._blocks_of(audio)

    def _blocks_of(self, audio: Any) -> Iterator[NDArray[np.float32]]:
        n_frames = min(math.ceil(MAX_SECONDS * self.rate), max(_BLOCK // self.n_channels, 1))
        buffer = np.empty((n_frames, self.n_channels), np.float32)
        n = n_frames
        while n == n_frames:
            n = audio.buffer_read_into(buffer, dtype="float32")
            with np.errstate(all="ignore"):  # infinite samples are refused later
                mono: NDArray[np.float32] = buffer[:n].mean(axis=1, dtype=np.float32)
            if n:
                yield mono

    def _open(self) -> Any:
        import soundfile

        self._sound.seek(0)
        audio = soundfile.SoundFile(self._sound)
        self._can_seek = audio.seekable()
        # soundfile else seeks after each read, which fails in streams that do not state their length.
        audio.seekable = lambda: False
        return audio


class _FromFfmpeg:
    def __init__(self, ffmpeg: Ffmpeg, file: BinaryIO, known: Container) -> None:
        self.rate, self.n_channels = SAMPLING_RATE, 1
        self.n_frames: int | None = None
        self._ffmpeg, self._file, self._known = ffmpeg, file, known

    def blocks(self, start: int = 0) -> Iterator[NDArray[np.float32]]:
        for block in self._ffmpeg.blocks(self._file, self._known.demuxer):
            if len(block) > start:
                yield block[start:]
            start = max(0, start - len(block))


class _Sound:
    """An open file for libsndfile, with some of its bytes replaced.

    An exception in a callback of libsndfile would be printed as a traceback and then ignored: seeks to invalid
    positions, which damaged files ask for, are ignored, and an error of the disk is kept in `error`.
    """

    def __init__(self, file: BinaryIO, replaced: Mapping[int, bytes]) -> None:
        self._file, self._replaced = file, replaced
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (ValueError, OverflowError, OSError):
            return self._file.tell()

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        at = self._file.tell()
        try:
            n = int(self._file.readinto(buffer))  # type: ignore[attr-defined]
        except OSError as error:
            self.error = error
            return 0
        for position, content in self._replaced.items():
            start, end = max(at, position), min(at + n, position + len(content))
            if start < end:
                buffer[start - at : end - at] = content[start - position : end - position]
        return n
