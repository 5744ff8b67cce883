"""Tiny face images and voice clips of nobody, for tests that need files on disk."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import soundfile
from numpy.typing import NDArray


def image(pixels: NDArray[Any] | PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file in memory."""
    picture = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_16_bits(values: NDArray[Any]) -> bytes:
    """A PNG of 16 bits a colour, (height, width, 1 to 4); Pillow writes such ones of one colour only."""
    height, width, n = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[n], 0, 0, 0)
    parts = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def audio(frames: NDArray[Any], rate: int = 16_000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """A clip as a file in memory."""
    file = io.BytesIO()
    soundfile.write(file, frames, rate, format=kind, subtype=subtype)
    return file.getvalue()


def sine(hertz: float, seconds: float, rate: int) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_face(path: Path, seed: int) -> Path:
    """A 48x48 RGB image of smooth noise; equal seeds give equal bytes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(coarse).resize((48, 48), PIL.Image.Resampling.BICUBIC).save(path)
    return path


def write_voice(path: Path, seed: int, seconds: float = 0.5, rate: int = 16_000) -> Path:
    """A mono 16-bit clip of a few harmonics in noise; equal arguments give equal bytes."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch, weights = random.uniform(90, 250), random.uniform(0.2, 1.0, 8)
    tones = sum(w * np.sin(2 * np.pi * pitch * k * time) for k, w in enumerate(weights, start=1))
    clip = 0.05 * np.asarray(tones) + 0.01 * random.standard_normal(len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, clip, rate, subtype="PCM_16" if path.suffix in (".wav", ".flac") else None)
    return path


def write_set(root: Path, n_identities: int = 6, n_samples: int = 2, seed: int = 0) -> Path:
    """root/faces/ID/NN.png with root/voices/ID/NN.wav for p00, p01, ...; every file differs from every other."""
    for i in range(n_identities):
        for k in range(n_samples):
            sample_seed = (seed * n_identities + i) * n_samples + k
            write_face(root / "faces" / f"p{i:02d}" / f"{k:02d}.png", sample_seed)
            write_voice(root / "voices" / f"p{i:02d}" / f"{k:02d}.wav", sample_seed)
    return root
