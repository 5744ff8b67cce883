"""CKA of kernels from distances along the graph of neighbours: what the study names as its next step."""

from __future__ import annotations

import numpy as np

from encsel.core import Metric, Vectors
from encsel.errors import BadCalibration
from encsel.metrics.linear_cka import Gram, cka_of_grams

K = 10


def geodesic_gram(x: Vectors) -> Gram:
    """Doubly centred kernel -d^2 / 2 of shortest paths in the graph of the 10 nearest neighbours.

    Args:
        x: (n, dim) centroids, one row per person. Parts of the graph that do not hang together are joined by their
            shortest links.
    Returns:
        (n, n) float64, scaled to unit mean diagonal, as `encsel.metrics.linear_cka.gram`.
    Raises:
        BadCalibration: fewer than 12 people, or rows that are all the same.
    Source: Tenenbaum et al. 2000, doi:10.1126/science.290.5500.2319.
    """
    import warnings

    from sklearn.manifold import Isomap

    if len(x) < K + 2:
        raise BadCalibration(f"{len(x)} people; geodesic distances need at least {K + 2}. Add people.")
    rows = np.asarray(x, dtype=np.float64)
    centred = rows - rows.mean(axis=0)
    largest = np.abs(centred).max()
    if largest <= 1e-12 * max(np.abs(rows).max(), np.finfo(np.float64).tiny):
        raise BadCalibration("All people have the same embedding; geodesics need at least 2 that differ. Check it.")
    with warnings.catch_warnings():
        # A graph in parts is joined, as said above, and of little interest on the screen.
        warnings.simplefilter("ignore")
        squared = np.square(Isomap(n_neighbors=K, n_components=1).fit(centred / largest).dist_matrix_)
    kernel = -0.5 * (squared - squared.mean(axis=0) - squared.mean(axis=1)[:, None] + squared.mean())
    return np.asarray(kernel / (np.trace(kernel) / len(kernel)))


METRICS = (
    Metric("geodesic_cka", 1, "pair", "larger: the two encoders order people more alike along their surfaces",
           (0.0, 1.0), "debiased CKA of Isomap kernels, k = 10",
           lambda x, y: cka_of_grams(geodesic_gram(x), geodesic_gram(y)).debiased,
           label="geodesic CKA, debiased", unit="fraction"),
)  # fmt: skip
