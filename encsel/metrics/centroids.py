"""Rows scaled and centred, and counts of samples per identity."""

import numpy as np

from encsel.core import Embeddings, Vectors
from encsel.errors import BadCalibration


def centred_rows(x: Vectors, n_least: int, use: str, who: str = "people") -> Vectors:
    """The rows minus their mean, float64, scaled to a largest absolute value of 1.

    Raises:
        BadCalibration: fewer than `n_least` rows, or all rows equal; `use` is part of the message, such as "CKA needs".
    """
    if len(x) < n_least:
        raise BadCalibration(f"{len(x)} {who}; {use} at least {n_least}. Add people.")
    rows = np.asarray(x, dtype=np.float64)
    centred = rows - rows.mean(axis=0)
    # Rounding leaves about 1e-16 of the largest value; equal rows must not look like variation.
    if np.abs(centred).max() <= 1e-12 * max(np.abs(rows).max(), np.finfo(np.float64).tiny):
        raise BadCalibration(f"All {who} have the same embedding; {use} variation. Check the encoder.")
    return np.asarray(centred / np.abs(centred).max())


def median_samples(embeddings: Embeddings) -> float:
    """Samples per identity, median over identities."""
    return float(np.median(embeddings.counts))


def harmonic_mean(a: float, b: float) -> float:
    """Harmonic mean of two sample counts, the count for a pair of encoders whose sides differ."""
    return 2 / (1 / a + 1 / b)
