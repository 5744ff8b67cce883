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

ENCODER_WITH_WEIGHTS = """
from dataclasses import replace
from pathlib import Path
import numpy as np
from encsel.core import Encoder, EncoderFamily
from encsel.errors import EncoderFailed

class Model:
    def __init__(self, factor):
        self.factor = factor

    def prepare(self, sample):
        return np.array([sample.mean(), sample.std()])

    def embed(self, batch):
        rows = np.stack(batch)
        return np.stack([rows, self.factor * rows], axis=1)

def open_(spec, runtime):
    print("reading weights")
    path = Path(spec.checkpoint)
    if not path.exists():
        raise EncoderFailed(f"{path} is not there.")
    content = path.read_bytes()
    asked = spec.options.get("layer", "0")
    return tuple(
        Encoder(
            name=replace(spec, options={"layer": str(k)}).name, modality="face", dim=2,
            spec=f"projector:{path}@layer={k}", family="projector", version=1, licence="MIT", source="a test",
            load=lambda: Model(content[0]), tap=k, shares=str(spec),
            weights={path.name: content.hex()}, preprocessing={"layer": k, "dtype": runtime.dtype},
        )
        for k in range(2) if asked in ("all", str(k))
    )

ENCODER = EncoderFamily(
    name="projector", modality="face", dim=2, version=1, licence="MIT", source="a test", open=open_,
    options=("layer", "dtype", "name"), checkpoint="default",
)
"""


def write_plugin(folder: Path, module: str, source: str) -> Path:
    """A module whose ENCODER is an entry point of its own distribution."""
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[encsel.encoders]\n{module} = {module}:ENCODER\n")
    return folder


def environment(*packages: Path, **more: str) -> dict[str, str]:
    """Of a process that sees the packages in some folders."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages)), **more}
