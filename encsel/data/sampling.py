"""Seeded choices by name, independent of the order of files and of other encoders."""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings


def pick(keys: Sequence[str], n: int, *, seed: int) -> NDArray[np.intp]:
    """Positions, ascending, of the n keys with the lowest seeded hashes; all if there are n or fewer."""
    return pick_each([None] * len(keys), keys, n, seed=seed)


def pick_each(groups: Sequence[Hashable], keys: Sequence[str], limit: int, *, seed: int) -> NDArray[np.intp]:
    """Positions, ascending, of the at most `limit` keys of each group with the lowest seeded hashes."""
    numbers: dict[Hashable, int] = {}
    group = np.array([numbers.setdefault(g, len(numbers)) for g in groups], dtype=np.intp)
    sizes = np.bincount(group)
    if not len(keys) or sizes.max() <= limit:
        return np.arange(len(keys))
    salt = str(seed).encode()[:64]  # the longest key of blake2b
    hashes = [hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=salt, digest_size=8).digest() for key in keys]
    order = np.lexsort((np.frombuffer(b"".join(hashes), dtype=">u8"), group))
    place = np.arange(len(keys)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[place < limit])


def limit_rows(embeddings: Embeddings, limit: int, *, seed: int) -> Embeddings:
    """At most `limit` distinct rows per identity, the same samples for every encoder of a modality."""
    labels = embeddings.labels.tolist()
    names = zip(labels, embeddings.samples.tolist(), strict=True)
    keys = [f"{embeddings.modality}/{identity}/{name}" for identity, name in names]
    return replace(embeddings, listed=None).rows(pick_each(labels, keys, limit, seed=seed))
