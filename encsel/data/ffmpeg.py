"""Decode what libsndfile cannot with the ffmpeg of this machine: local files alone, bounded in time and size."""

import contextlib
import io
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from encsel.core import SAMPLING_RATE
from encsel.errors import UnusableSample, UsageError

MAX_RUN_SECONDS = 300
MAX_BLOCK_BYTES = 256 << 20  # largest block that ffmpeg may allocate
_OPEN_FILES = Path("/dev/fd")
_BLOCK_FRAMES = 5 * SAMPLING_RATE
_VERSION = re.compile(r"ffmpeg version (\S+)")


@dataclass(frozen=True)
class Ffmpeg:
    """The program on this machine; its version is part of the cache key."""

    program: str
    version: str

    def blocks(self, file: BinaryIO, demuxer: str) -> Iterator[NDArray[np.float32]]:
        """The sound of a file on disk, mono, at 16 kHz, as `ffmpeg -i FILE -ac 1 -ar 16000 OUT.wav` writes it.

        Raises:
            UnusableSample: ffmpeg fails, or takes longer than MAX_RUN_SECONDS.
        """
        file.seek(0)
        # The open file, which is the one that was hashed, where the system has a name for it.
        by_number = _OPEN_FILES.exists()
        place = _OPEN_FILES / str(file.fileno()) if by_number else file.name
        command = [
            self.program, "-nostdin", "-hide_banner", "-loglevel", "quiet", "-max_alloc", str(MAX_BLOCK_BYTES),
            "-protocol_whitelist", "file", "-f", demuxer, "-i", f"file:{place}", "-vn", "-sn", "-dn", "-ac", "1",
            "-ar", str(SAMPLING_RATE), "-c:a", "pcm_s16le", "-f", "s16le", "pipe:1",
        ]  # fmt: skip
        late = threading.Event()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            pass_fds=(file.fileno(),) if by_number else (),
        )  # fmt: skip
        assert process.stdout is not None

        def stop() -> None:
            late.set()
            process.kill()

        watch = threading.Timer(MAX_RUN_SECONDS, stop)
        watch.daemon = True
        watch.start()
        try:
            while content := process.stdout.read(2 * _BLOCK_FRAMES):
                yield np.frombuffer(content[: len(content) // 2 * 2], "<i2").astype(np.float32) / np.float32(32768)
            if code := process.wait():
                why = f"took over {MAX_RUN_SECONDS} s" if late.is_set() else f"failed with exit code {code}"
                raise UnusableSample(f"unreadable audio: ffmpeg {self.version} {why}")
        finally:
            watch.cancel()
            process.kill()
            process.stdout.close()
            process.wait()


def find_ffmpeg() -> Ffmpeg:
    """The ffmpeg on PATH; UsageError if there is none that runs."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise UsageError("--ffmpeg needs the program ffmpeg, and none is on PATH. Install it, or leave out --ffmpeg.")
    try:
        done = subprocess.run(
            [program, "-hide_banner", "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"{program} cannot be run: {error}. Repair it, or leave out --ffmpeg.") from error
    version = _VERSION.match(done.stdout.decode(errors="replace"))
    if version is None:
        raise UsageError(f"{program} does not state its version as ffmpeg does. Repair it, or leave out --ffmpeg.")
    return Ffmpeg(program, version[1])


@contextlib.contextmanager
def on_disk(content: BinaryIO | bytes) -> Iterator[BinaryIO]:
    """A file that another program can open: the given one, or a private copy."""
    if not isinstance(content, bytes) and _OPEN_FILES.exists():
        yield content
        return
    with tempfile.TemporaryDirectory(prefix="encsel-") as folder:
        path = Path(folder) / "clip"
        path.touch(mode=0o600)
        with path.open("wb") as copy:
            source = io.BytesIO(content) if isinstance(content, bytes) else content
            source.seek(0)
            shutil.copyfileobj(source, copy)
        with path.open("rb") as file:
            yield file
