"""Simulated embeddings of any number of people, written block by block.

`python -m tests.benchmarks.populations DIR --people 100000 --rows 8 --dim 512 --faces 2 --voices 2`

A person has a few graded traits that face and voice share, seen with a gain that differs between encoders, and private
traits of each modality; samples add noise of few and of all directions. All rows have unit length.
"""

from __future__ import annotations

import argparse
import itertools
import json
import struct
from pathlib import Path

import numpy as np

N_SHARED, N_PRIVATE, N_NOISE = 24, 64, 48
BLOCK_PEOPLE = 2048
WEAKER = 0.7
"""Gain of what is shared, of every encoder relative to the one before it."""


def write_population(
    root: Path, *, people: int, rows: int, dim: int, faces: int, voices: int, shards: int = 1, seed: int = 0
) -> Path:
    """Write root/faces and root/voices: .npy with .csv, or with several shards .safetensors with whole-number labels.

    Deterministic by seed; holds BLOCK_PEOPLE people at a time.
    """
    for side, count in (("face", faces), ("voice", voices)):
        folder = root / f"{side}s"
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            ends = np.linspace(0, people, shards + 1).astype(int).tolist()
            for number, (start, stop) in enumerate(itertools.pairwise(ends), start=1):
                name = f"{side}{i}" + (f"-{number:05d}-of-{shards:05d}" if shards > 1 else "")
                _write(folder / name, start, stop, _Encoder(seed, side, i, dim), rows, as_tensors=shards > 1)
    return root


class _Encoder:
    """How one encoder sees people."""

    def __init__(self, seed: int, side: str, number: int, dim: int) -> None:
        self.seed, self.side, self.dim = seed, ("face", "voice").index(side), dim
        rng = np.random.default_rng([seed, self.side, number])
        self.number = number

        def mixing(n: int, scale: float) -> np.ndarray:
            spectrum = np.arange(1, n + 1) ** -0.3
            x = rng.standard_normal((n, dim), np.float32) * (scale * spectrum / np.linalg.norm(spectrum))[:, None]
            return (x / np.sqrt(dim)).astype(np.float32)

        self.shared = mixing(N_SHARED, 0.8 * WEAKER**number)
        self.private, self.noise = mixing(N_PRIVATE, 1.0), mixing(N_NOISE, 1.0)
        self.offset = (rng.standard_normal(dim) / np.sqrt(dim)).astype(np.float32)

    def rows(self, block: int, n_rows: int) -> np.ndarray:
        """(BLOCK_PEOPLE * n_rows, dim) of the people of a block."""
        # Each from a generator of its own: traits are those of every encoder, or of every one of the modality.
        shared = np.random.default_rng([self.seed, 7, block]).standard_normal((BLOCK_PEOPLE, N_SHARED), np.float32)
        private = np.random.default_rng([self.seed, 8, self.side, block])
        own = np.random.default_rng([self.seed, 9, self.side, self.number, block])
        person = shared @ self.shared + self.offset
        person += private.standard_normal((BLOCK_PEOPLE, N_PRIVATE), np.float32) @ self.private
        n = BLOCK_PEOPLE * n_rows
        x = own.standard_normal((n, self.dim), np.float32)
        x *= np.float32(0.1 / np.sqrt(self.dim))
        x += own.standard_normal((n, N_NOISE), np.float32) @ self.noise
        x.reshape(BLOCK_PEOPLE, n_rows, self.dim)[...] += person[:, None]
        x /= np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]
        return x


def _write(path: Path, start: int, stop: int, encoder: _Encoder, n_rows: int, *, as_tensors: bool) -> None:
    """Write the people from `start` to `stop`."""
    n = (stop - start) * n_rows
    with path.with_suffix(".safetensors" if as_tensors else ".npy").open("wb") as file:
        if as_tensors:
            size = 4 * n * encoder.dim
            header = {
                "embeddings": {"dtype": "F32", "shape": [n, encoder.dim], "data_offsets": [0, size]},
                "labels": {"dtype": "I32", "shape": [n], "data_offsets": [size, size + 4 * n]},
            }
            text = json.dumps(header).encode()
            text += b" " * (-len(text) % 8)
            file.write(struct.pack("<Q", len(text)) + text)
        else:
            header = {"descr": "<f4", "fortran_order": False, "shape": (n, encoder.dim)}
            np.lib.format.write_array_header_1_0(file, header)
        for block in range(start // BLOCK_PEOPLE, -(-stop // BLOCK_PEOPLE)):
            first = block * BLOCK_PEOPLE
            people = slice(max(start - first, 0) * n_rows, min(stop - first, BLOCK_PEOPLE) * n_rows)
            file.write(encoder.rows(block, n_rows)[people].data)
        if as_tensors:
            file.write(np.repeat(np.arange(start, stop, dtype="<i4"), n_rows).data)
    if not as_tensors:
        with path.with_suffix(".csv").open("w", encoding="ascii") as table:
            table.write("identity,sample\n")
            for person in range(start, stop):
                table.write("".join(f"id{person:07d},{row}\n" for row in range(n_rows)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    sizes = (("people", 100_000), ("rows", 8), ("dim", 512), ("faces", 2), ("voices", 2), ("shards", 1), ("seed", 0))
    for option, default in sizes:
        parser.add_argument(f"--{option}", type=int, default=default)
    arguments = vars(parser.parse_args())
    write_population(arguments.pop("dir"), **arguments)
