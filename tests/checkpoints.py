"""Checkpoints on disk, for tests of encoders: opened, damaged, or put into a hub cache made by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from encsel.core import Encoder, Model, Runtime
from encsel.loading.registry import checked_spec, open_encoders

CPU = Runtime(device="cpu")
OFFLINE = Runtime(device="cpu", offline=True)
SHA = "0123456789abcdef0123456789abcdef01234567"


def opened(spec: str, runtime: Runtime = CPU) -> Encoder:
    (encoder,) = open_encoders(checked_spec(spec, "face"), runtime)
    return encoder


def vectors(model: Model, images: Sequence[np.ndarray]) -> np.ndarray:
    return model.embed([model.prepare(image) for image in images])[:, 0]


def picture(seed: int, shape: tuple[int, int] = (45, 70)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.array(PIL.Image.fromarray(coarse).resize(shape[::-1], PIL.Image.Resampling.BICUBIC))


def pictures() -> list[np.ndarray]:
    return [picture(seed, shape) for seed, shape in enumerate([(45, 70), (70, 45), (32, 32), (16, 16), (200, 90)])]


def assert_close(found: np.ndarray, expected: np.ndarray, share: float = 1e-6) -> None:
    """Equal to a share of the largest value: where an array lies in memory moves the last digits of float32."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())


def put_in_hub(cache: Path, repository: str, source: Path) -> None:
    home = cache / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(SHA)
    shutil.copytree(source, home / "snapshots" / SHA)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_weights(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def pickle_weights(safe: Path, pickled: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(safe), pickled)
    safe.unlink()
