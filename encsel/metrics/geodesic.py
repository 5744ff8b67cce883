"""CKA of kernels of distances along the graph of neighbours, which the study names as its next step."""

import numpy as np

from encsel.core import Metric, Vectors
from encsel.metrics.centroids import centred_rows
from encsel.metrics.linear_cka import Gram, cka_of_grams

K = 10


def geodesic_gram(x: Vectors) -> Gram:
    """Doubly centred kernel -d^2 / 2 of shortest paths in the graph of the 10 nearest neighbours.

    Args:
        x: (n, dim) centroids, one row per person. Unconnected parts of the graph are joined by their shortest links.
    Returns:
        Scaled to unit mean diagonal, as `encsel.metrics.linear_cka.gram`.
    Raises:
        BadCalibration: fewer than 12 people, or all rows equal.
    Source: Tenenbaum et al. 2000, doi:10.1126/science.290.5500.2319.
    """
    import warnings

    from sklearn.manifold import Isomap

    rows = centred_rows(x, K + 2, "geodesic distances need")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unconnected parts
        squared = np.square(Isomap(n_neighbors=K, n_components=1).fit(rows).dist_matrix_)
    kernel = -0.5 * (squared - squared.mean(axis=0) - squared.mean(axis=1)[:, None] + squared.mean())
    return Gram(matrix=kernel / (np.trace(kernel) / len(kernel)))


METRICS = (
    Metric("geodesic_cka", 1, "pair", "larger: the two encoders order people more alike along their surfaces",
           (0.0, 1.0), "debiased CKA of Isomap kernels, k = 10",
           lambda x, y: cka_of_grams(geodesic_gram(x), geodesic_gram(y)).debiased,
           label="geodesic CKA, debiased", unit="fraction"),
)  # fmt: skip
