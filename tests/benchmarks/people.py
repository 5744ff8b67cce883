"""The population of the benchmark: seven encoders of people seen eight times, made up to resemble the study's.

`python -m tests.benchmarks.people DIR --people 1249` writes DIR/faces/NAME.npz and DIR/voices/NAME.npz.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from encsel.rows import unit_rows

ROWS = 8
N_SHARED, N_SESSION = 24, 48


@dataclass(frozen=True)
class Shape:
    """An encoder: its dimension, the lengths of the parts of an embedding, and how many traits are behind each.

    `n_videos`: recordings that a person's rows come from; rows of one recording are much alike.
    """

    dim: int
    shared: float
    private: float
    session: float
    noise: float
    mean: float
    n_private: int
    n_noise: int
    n_videos: int


FACES = {
    "arcface": Shape(512, 0.22, 1.0, 1.3, 1.8, 6.5, 64, 200, 5),
    "siglip": Shape(768, 0.48, 1.0, 1.1, 1.6, 5.5, 40, 160, 5),
    "dinov2": Shape(768, 0.56, 1.0, 1.1, 1.6, 2.0, 40, 160, 5),
    "clip": Shape(512, 0.72, 1.0, 1.1, 1.6, 4.0, 32, 160, 5),
}
VOICES = {
    "wavlm": Shape(1024, 0.68, 0.9, 1.1, 1.8, 4.8, 48, 150, ROWS),
    "hubert": Shape(1024, 0.27, 1.0, 1.2, 1.9, 6.0, 48, 120, ROWS),
    "wav2vec2": Shape(1024, 0.23, 1.0, 1.2, 2.1, 7.0, 64, 90, ROWS),
}


def write_people(root: Path, people: int, *, seed: int = 0) -> None:
    """Write all encoders; the same files for the same seed."""
    traits = np.random.default_rng([seed, 0]).standard_normal((people, N_SHARED)) * _falling(N_SHARED, 0.35)
    traits /= np.sqrt(np.square(traits).sum(axis=1).mean())
    labels = np.repeat([f"id{i:05d}" for i in range(people)], ROWS)
    for number, (name, shape) in enumerate((FACES | VOICES).items(), start=1):
        folder = root / ("faces" if name in FACES else "voices")
        folder.mkdir(parents=True, exist_ok=True)
        x = _rows(traits, shape, np.random.default_rng([seed, number]))
        np.savez(folder / f"{name}.npz", embeddings=x.astype(np.float32), labels=labels)


def read_rows(root: Path, name: str) -> np.ndarray:
    """(rows, dim) float32 of one encoder."""
    with np.load(root / ("faces" if name in FACES else "voices") / f"{name}.npz") as arrays:
        return arrays["embeddings"]


def read_people(root: Path, name: str, n: int | None = None) -> np.ndarray:
    """(n, dim) centroids of the first n people, or of all."""
    x = read_rows(root, name)
    return unit_rows(x.reshape(-1, ROWS, x.shape[1]).mean(axis=1, dtype=np.float64)[:n])


def read_pairs(root: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Centroids of the people that all encoders of a folder have, of every face and of every voice encoder."""
    sides: list[list[tuple[np.ndarray, np.ndarray]]] = []
    for side in ("faces", "voices"):
        sides.append([])
        for path in sorted((root / side).glob("*.npz")):
            with np.load(path) as arrays:
                x, (people, owner) = arrays["embeddings"], np.unique(arrays["labels"], return_inverse=True)
            sums = np.zeros((len(people), x.shape[1]))
            np.add.at(sums, owner, x)
            sides[-1].append((people, sums))  # sums are as good as means: rows are scaled to unit length
    common = reduce(np.intersect1d, (people for side in sides for people, _ in side))
    faces, voices = ([unit_rows(sums[np.isin(people, common)]) for people, sums in side] for side in sides)
    return faces, voices


def _rows(traits: np.ndarray, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    n, videos = len(traits), shape.n_videos

    def normal(*size: int) -> np.ndarray:
        return rng.standard_normal(size, np.float32)

    mean = normal(shape.dim)
    shared = np.sqrt(N_SHARED) * traits @ _mixing(N_SHARED, shape.dim, 0.3, rng)
    # The bend makes the surface that people lie on curved.
    shared += 0.25 * np.tanh(1.5 * np.sqrt(N_SHARED) * traits) @ _mixing(N_SHARED, shape.dim, 0.3, rng)
    shared /= np.sqrt(np.square(shared).sum(axis=1).mean())
    private = normal(n, shape.n_private) @ _mixing(shape.n_private, shape.dim, 0.8, rng)
    person = shape.mean * mean / np.linalg.norm(mean) + shape.shared * shared + shape.private * private
    if videos < ROWS:
        video = np.sort(rng.integers(0, videos, (n, ROWS)), axis=1)[..., None]
        jitter = np.exp(rng.normal(-1.0, 0.9, (n, ROWS, 1))).astype(np.float32)
    else:
        video, jitter = np.tile(np.arange(ROWS), (n, 1))[..., None], np.zeros((n, ROWS, 1), np.float32)
    session = normal(n, videos, N_SESSION) @ _mixing(N_SESSION, shape.dim, 0.6, rng)
    mixing = _mixing(shape.n_noise, shape.dim, 0.45, rng)
    noise = np.take_along_axis(normal(n, videos, shape.n_noise) @ mixing, video, axis=1)
    noise += (jitter * normal(n, ROWS, shape.n_noise)) @ mixing
    x = 0.02 * normal(n, ROWS, shape.dim) / np.float32(np.sqrt(shape.dim)) + person.astype(np.float32)[:, None]
    x += shape.session * np.take_along_axis(session, video, axis=1) + shape.noise * noise
    return unit_rows(x.reshape(-1, shape.dim))


def _falling(n: int, power: float) -> np.ndarray:
    return np.arange(1, n + 1) ** -power


def _mixing(n: int, dim: int, power: float, rng: np.random.Generator) -> np.ndarray:
    """(n, dim) orthogonal rows of falling length, the sum of whose squares is 1."""
    axes, _ = np.linalg.qr(rng.standard_normal((dim, n)))
    lengths = _falling(n, power)
    return (axes * (lengths / np.linalg.norm(lengths))).T.astype(np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--people", type=int, default=1249)
    arguments = parser.parse_args()
    with threadpool_limits(1):  # several threads wait for each other where other processes run
        write_people(arguments.dir, arguments.people)
