"""The memory that decoding takes over all threads, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from media_samples import audio, write_face, write_voice

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")

PEAK = """
import io, sys, threading
import numpy as np, PIL.Image, soxr, soundfile
from pathlib import Path
from encsel.data import media

def mib(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) >> 10

def decode(path):
    with media.opened(path) as (content, _):
        media.decode(content, sys.argv[1], path.suffix, sys.argv[2])

paths = [Path(path) for path in sys.argv[3:]]
before = mib("VmRSS")
threads = [threading.Thread(target=decode, args=(path,)) for path in paths]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(mib("VmHWM") - before)
"""


def peak_mib(modality: str, *paths: Path, part: str = "first") -> int:
    """Memory that a process takes to decode files in as many threads."""
    command = [sys.executable, "-c", PEAK, modality, part, *map(str, paths)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("PNG", "RGBA"), ("PNG", "I;16"), ("BMP", "RGB"),
                                            ("TIFF", "F"), ("WEBP", "RGBA")])  # fmt: skip
def test_two_of_the_largest_pictures_take_under_1_gb(tmp_path: Path, kind: str, mode: str) -> None:
    options = {"WEBP": {"lossless": True, "quality": 0, "method": 0}}.get(kind, {})
    paths = [tmp_path / "a.img", tmp_path / "b.img"]
    for path in paths:
        PIL.Image.new(mode, (7000, 7000)).save(path, kind, **options)
    assert peak_mib("face", *paths) < 1024


@pytest.mark.slow
@pytest.mark.parametrize("part", ["first", "middle", "loudest"])
def test_two_recordings_of_900_mb_take_little(tmp_path: Path, part: str) -> None:
    whole = audio(np.random.default_rng(0).standard_normal((480_000, 2)) * 0.1, 48_000)
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for path in paths:
        path.write_bytes(whole[:40] + (900 << 20).to_bytes(4, "little") + whole[44:])
        with path.open("ab") as file:
            file.truncate(44 + (900 << 20))  # sparse: takes no disk
    assert peak_mib("voice", *paths, part=part) < 100


def test_small_samples_take_little(tmp_path: Path) -> None:
    assert peak_mib("face", write_face(tmp_path / "a.png", 0), write_face(tmp_path / "b.png", 1)) < 30
    assert peak_mib("voice", write_voice(tmp_path / "a.wav", 0), write_voice(tmp_path / "b.flac", 1)) < 30
