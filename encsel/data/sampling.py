"""Seeded choices by name, independent of the order of files and of other encoders."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings


def pick(keys: Sequence[str], n: int, *, seed: int) -> NDArray[np.intp]:
    """Positions, ascending, of the n keys with the lowest seeded hashes; all if there are n or fewer."""
    return pick_each(np.zeros(len(keys), np.intp), keys.__getitem__, n, seed=seed)


def pick_each(group: NDArray[np.intp], key: Callable[[int], str], limit: int, *, seed: int) -> NDArray[np.intp]:
    """Positions, ascending, of the at most `limit` keys of each group with the lowest seeded hashes.

    Args:
        group: number of the group of each position.
        key: the key of a position; asked only of positions in groups of more than `limit`.
    """
    sizes = np.bincount(group)
    is_chosen = (sizes <= limit)[group]
    if is_chosen.all():
        return np.arange(len(group))
    salt = str(seed).encode()[:64]  # the longest key of blake2b
    among = np.flatnonzero(~is_chosen)
    hashes = np.empty(len(among), np.uint64)
    for place, i in enumerate(among.tolist()):
        content = key(i).encode("utf-8", "surrogatepass")
        hashes[place] = int.from_bytes(hashlib.blake2b(content, key=salt, digest_size=8).digest(), "big")
    order = np.lexsort((hashes, group[among]))
    sizes = np.bincount(group[among])
    place_in_group = np.arange(len(among)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_chosen[among[order[place_in_group < limit]]] = True
    return np.flatnonzero(is_chosen)


def limit_rows(embeddings: Embeddings, limit: int, *, seed: int) -> Embeddings:
    """At most `limit` distinct rows per identity, the same samples for every encoder of a modality."""
    labels, samples = embeddings.labels, embeddings.samples
    chosen = pick_each(embeddings.owners, lambda i: f"{embeddings.modality}/{labels[i]}/{samples[i]}", limit, seed=seed)
    return (embeddings if embeddings.listed is None else replace(embeddings, listed=None)).rows(chosen)
