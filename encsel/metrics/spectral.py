"""Spectra of the graph of nearest neighbours among people, and the distance between two encoders' spectra."""

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric, Vectors
from encsel.metrics.neighbours import neighbours_of_people

K = 20
N_VALUES = 50
_SMALL = 600
"""Most people for which a dense solver is faster."""


def spectrum(x: Vectors) -> NDArray[np.float64]:
    """The 50 smallest eigenvalues of the normalised Laplacian, divided by the largest of them, ascending, in [0, 1].

    The graph of (n, dim) centroids has an edge of weight 1 where either of two people is among the 20 nearest of the
    other. With n < 50 there are n values.

    Raises:
        BadCalibration: fewer than 22 people, or all rows equal.
    Source: the study's released code (its paper has Gaussian weights and no normalisation).
    """
    from scipy import sparse
    from scipy.linalg import eigh
    from scipy.sparse.csgraph import connected_components
    from scipy.sparse.linalg import eigsh

    n, index = len(x), neighbours_of_people(x, K, f"the spectrum of the graph of {K} neighbours needs").index
    edges = sparse.csr_matrix((np.ones(n * K), (np.repeat(np.arange(n), K), index.ravel())), shape=(n, n))
    joined = ((edges + edges.T) > 0).astype(np.float64)
    scale = sparse.diags(1 / np.sqrt(np.asarray(joined.sum(axis=1)).ravel()))
    similarity = scale @ joined @ scale
    # Each unconnected part adds an eigenvalue of 0, and the iterative solver misses some of many equal ones.
    in_parts = connected_components(joined, directed=False, return_labels=False) > 1
    if n <= _SMALL or in_parts:
        count = min(N_VALUES, n)
        largest = eigh(similarity.toarray(), eigvals_only=True, subset_by_index=[n - count, n - 1], check_finite=False)
    else:
        # The largest of D^-1/2 A D^-1/2 are 1 minus the smallest of the Laplacian; shift-invert is far slower.
        start = np.full(n, 1 / np.sqrt(n))
        largest = eigsh(similarity, k=N_VALUES, which="LA", return_eigenvectors=False, v0=start, ncv=120, tol=1e-10)
    values = np.sort(np.abs(1 - largest))
    return np.asarray(values / (values[-1] + 1e-10))


def spectral_gap(face: NDArray[np.float64], voice: NDArray[np.float64]) -> float:
    """Euclidean distance of two spectra of the same people; 0 is alike."""
    return float(np.linalg.norm(face - voice))


METRICS = (
    Metric("spectral_gap", 1, "pair", "larger: graphs of neighbours less alike", (0.0, np.sqrt(N_VALUES)),
           "normalised Laplacian of the 0/1 graph of 20 neighbours, 50 smallest eigenvalues over the largest of them",
           lambda x, y: spectral_gap(spectrum(x), spectrum(y)), label="spectral gap"),
)  # fmt: skip
