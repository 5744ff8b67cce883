"""Rows scaled and centred, and counts of samples per identity."""

import numpy as np

from encsel.core import Embeddings, Vectors
from encsel.errors import BadCalibration
from encsel.rows import blocks, mean_of_rows, release, scratch


def centred_rows(x: Vectors, n_least: int, use: str, who: str = "people") -> Vectors:
    """The rows minus their mean, float64, scaled to a largest absolute value of 1.

    Raises:
        BadCalibration: fewer than `n_least` rows, or all rows equal; `use` is part of the message, such as "CKA needs".
    """
    if len(x) < n_least:
        raise BadCalibration(f"{len(x)} {who}; {use} at least {n_least}. Add people.")
    mean, centred, largest, scale = mean_of_rows(x), scratch(x.shape, np.float64), 0.0, 0.0
    for start, block in blocks(x):
        rows = centred[start : start + len(block)]
        np.subtract(block, mean, out=rows)
        largest, scale = max(largest, float(np.abs(rows).max())), max(scale, float(np.abs(block).max()))
        release(centred)
    # Rounding leaves about 1e-16 of the largest value; equal rows must not look like variation.
    if largest <= 1e-12 * max(scale, np.finfo(np.float64).tiny):
        raise BadCalibration(f"All {who} have the same embedding; {use} variation. Check the encoder.")
    for _, block in blocks(centred):
        block /= largest
    return centred


def median_samples(embeddings: Embeddings) -> float:
    """Samples per identity, median over identities."""
    return float(np.median(embeddings.counts))


def harmonic_mean(a: float, b: float) -> float:
    """Harmonic mean of two sample counts, the count for a pair of encoders whose sides differ."""
    return 2 / (1 / a + 1 / b)
