"""Seeded choices by name, independent of the order of files and of other encoders."""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings


def pick(keys: Sequence[str], n: int, *, seed: int) -> NDArray[np.intp]:
    """Positions, ascending, of the n keys with the lowest seeded hashes; all if there are n or fewer."""
    if len(keys) <= n:
        return np.arange(len(keys))
    salt = str(seed).encode()[:64]  # the longest key of blake2b
    ranks = [hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=salt, digest_size=8).digest() for key in keys]
    order = sorted(range(len(keys)), key=lambda i: (ranks[i], keys[i]))
    return np.array(sorted(order[:n]), dtype=np.intp)


def pick_each(groups: Sequence[Hashable], keys: Sequence[str], limit: int, *, seed: int) -> NDArray[np.intp]:
    """Positions, ascending, of at most `limit` keys of each group."""
    members: dict[Hashable, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    picked = (at[i] for at in members.values() for i in pick([keys[j] for j in at], limit, seed=seed))
    return np.array(sorted(picked), dtype=np.intp)


def limit_rows(embeddings: Embeddings, limit: int, *, seed: int) -> Embeddings:
    """At most `limit` rows per identity, each once, the same samples for every encoder of a modality."""
    labels = embeddings.labels.tolist()
    names = zip(labels, embeddings.samples.tolist(), strict=True)
    keys = [f"{embeddings.modality}/{identity}/{name}" for identity, name in names]
    return replace(embeddings, listed=None).rows(pick_each(labels, keys, limit, seed=seed))
