"""Centroids: one vector per identity, and what else is counted over an identity's samples."""

from __future__ import annotations

import numpy as np

from encsel.core import Embeddings, Vectors


def centroids(embeddings: Embeddings) -> Vectors:
    """Mean of each identity's rows, L2-normalised; (identities, dim) float64, identities in sorted order."""
    _, index, counts = np.unique(embeddings.labels, return_inverse=True, return_counts=True)
    order = np.argsort(index, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sums = np.add.reduceat(embeddings.vectors[order].astype(np.float64), starts, axis=0)
    return unit_rows(sums / counts[:, None])


def unit_rows(x: Vectors) -> Vectors:
    """The rows divided by their Euclidean length; rows of zeros stay zeros."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norms > 0, norms, 1))


def median_samples(embeddings: Embeddings) -> float:
    """Samples per identity, median over identities."""
    return float(np.median(np.unique(embeddings.labels, return_counts=True)[1]))


def harmonic_mean(a: float, b: float) -> float:
    """Harmonic mean of two sample counts: what a pair of encoders has, when the two sides differ."""
    return 2 / (1 / a + 1 / b)
