"""Plug-in packages as an installer leaves them on disk, and the environment that finds them."""

from __future__ import annotations

import os
from pathlib import Path

ENCODER = """
import numpy as np
from encsel.core import EncoderFamily

def embed(samples):
    return np.stack([[s.mean(), s.std(), s.min(), s.max()] for s in samples]).astype(np.float32)

ENCODER = EncoderFamily(
    name={name!r}, modality="face", dim=4, version=1, licence="MIT", source="a test", load=lambda: embed
)
"""


def write_plugin(folder: Path, module: str, source: str) -> Path:
    """A module whose ENCODER is an entry point of its own distribution."""
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[encsel.encoders]\n{module} = {module}:ENCODER\n")
    return folder


def environment(packages: Path, **more: str) -> dict[str, str]:
    """Of a process that sees the packages in a folder."""
    return {**os.environ, "PYTHONPATH": str(packages), **more}
