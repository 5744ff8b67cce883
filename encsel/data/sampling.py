"""Seeded choices by name, independent of the order of files and of other encoders."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings
from encsel.rows import BLOCK_ROWS


def pick(keys: Sequence[str], n: int, *, seed: int) -> NDArray[np.intp]:
    """Positions, ascending, of the n keys with the lowest seeded hashes; all if there are n or fewer."""
    return pick_each(np.zeros(len(keys), np.intp), lambda at: map(keys.__getitem__, at.tolist()), n, seed=seed)


def pick_each(
    group: NDArray[np.intp], keys: Callable[[NDArray[np.intp]], Iterable[str]], limit: int, *, seed: int
) -> NDArray[np.intp]:
    """Positions, ascending, of the at most `limit` keys of each group with the lowest seeded hashes.

    Args:
        group: number of the group of each position.
        keys: the keys of positions; asked only of positions in groups of more than `limit`, some at a time.
    """
    sizes = np.bincount(group)
    is_chosen = (sizes <= limit)[group]
    if is_chosen.all():
        return np.arange(len(group))
    salt = str(seed).encode()[:64]  # the longest key of blake2b
    among = np.flatnonzero(~is_chosen)
    hashes = np.empty(len(among), ">u8")
    for start in range(0, len(among), BLOCK_ROWS):
        some = [
            hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=salt, digest_size=8).digest()
            for key in keys(among[start : start + BLOCK_ROWS])
        ]
        hashes[start : start + len(some)] = np.frombuffer(b"".join(some), ">u8")
    order = np.lexsort((hashes, group[among]))
    sizes = np.bincount(group[among])
    place_in_group = np.arange(len(among)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_chosen[among[order[place_in_group < limit]]] = True
    return np.flatnonzero(is_chosen)


def limit_rows(embeddings: Embeddings, limit: int, *, seed: int) -> Embeddings:
    """At most `limit` distinct rows per identity, the same samples for every encoder of a modality."""

    def keys(at: NDArray[np.intp]) -> Iterable[str]:
        names = zip(embeddings.labels[at].tolist(), embeddings.samples[at].tolist(), strict=True)
        return [f"{embeddings.modality}/{identity}/{sample}" for identity, sample in names]

    chosen = pick_each(embeddings.owners, keys, limit, seed=seed)
    return (embeddings if embeddings.listed is None else replace(embeddings, listed=None)).rows(chosen)
