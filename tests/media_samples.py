"""Tiny face images and voice clips of nobody, for tests that need files on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import soundfile


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
