"""Seeded choices that depend on names alone, so that file order and other encoders do not change them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings


def pick(keys: Sequence[str], n: int, *, seed: int) -> NDArray[np.intp]:
    """Positions of the n keys that a keyed hash ranks first, ascending; all when there are n or fewer."""
    if len(keys) <= n:
        return np.arange(len(keys))
    salt = str(seed).encode()[:64]  # blake2b takes no longer key
    ranks = [hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=salt, digest_size=8).digest() for key in keys]
    order = sorted(range(len(keys)), key=lambda i: (ranks[i], keys[i]))
    return np.array(sorted(order[:n]), dtype=np.intp)


def limit_rows(embeddings: Embeddings, limit: int, *, seed: int) -> Embeddings:
    """At most `limit` rows of each identity, the same samples for every encoder of a modality."""
    if not len(embeddings.labels):
        return embeddings
    order = np.argsort(embeddings.labels, kind="stable")
    people, starts = np.unique(embeddings.labels[order], return_index=True)
    kept = []
    for person, block in zip(people, np.split(order, starts[1:]), strict=True):
        keys = [f"{embeddings.modality}/{person}/{name}" for name in embeddings.samples[block]]
        kept.append(block[pick(keys, limit, seed=seed)])
    return embeddings.rows(np.sort(np.concatenate(kept)))
