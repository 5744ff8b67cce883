"""Intrinsic dimension by maximum likelihood from the distances to the 20 nearest neighbours."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric, Vectors
from encsel.errors import BadCalibration
from encsel.metrics.neighbours import neighbour_distances

K = 20


def mle_median(distances: NDArray[np.float64], *, k: int = K) -> float:
    """Median over points of the Levina-Bickel estimate, as in the study's released numbers.

    Args:
        distances: (rows, >= k) distances to the nearest other rows, ascending.
    Returns:
        Dimensions, > 0. Grows with rows and with rows per identity: compare at equal numbers of both.
    Raises:
        BadCalibration: no point has neighbours at different distances.
    Source: Levina & Bickel 2004, NIPS 17.
    """
    return float(np.median(1 / _inverse_dimension(distances, k)))


def mle_harmonic(distances: NDArray[np.float64], *, k: int = K) -> float:
    """Harmonic mean over points, the maximum likelihood estimate of all points together; otherwise like `mle_median`.

    Source: MacKay & Ghahramani 2005, comments on Levina & Bickel.
    """
    return float(1 / np.mean(_inverse_dimension(distances, k)))


def error_of_median(distances: NDArray[np.float64], *, k: int = K) -> float:
    """Standard error of `mle_median` over points drawn at random, from the order statistics beside the median."""
    estimates = 1 / _inverse_dimension(distances, k)
    half = 0.5 / np.sqrt(len(estimates))
    low, high = np.quantile(estimates, [max(0.5 - half, 0), min(0.5 + half, 1)])
    return float(high - low) / 2


def dimension_per_person(x: Vectors, people: NDArray[Any], *, k: int) -> NDArray[np.float64]:
    """(n,) `mle_median` of each person's own rows, of people with at least k + 2 rows that differ enough.

    Args:
        x: (rows, dim) distinct embeddings; people: (rows,) identity of each.
    """
    found = []
    _, owner, counts = np.unique(people, return_inverse=True, return_counts=True)
    for own in np.split(np.argsort(owner, kind="stable"), np.cumsum(counts)[:-1]):
        if len(own) < k + 2:
            continue
        rows = np.asarray(x[own], dtype=np.float64)
        rows = rows - rows.mean(axis=0)
        squares = np.square(rows).sum(axis=1)
        squared = squares[:, None] + squares - 2 * rows @ rows.T
        np.fill_diagonal(squared, np.inf)
        nearest = np.sort(squared, axis=1)[:, :k]
        try:
            found.append(mle_median(np.sqrt(np.maximum(nearest, 0)), k=k))
        except BadCalibration:
            continue
    return np.array(found)


def _inverse_dimension(distances: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """(points,) mean log ratio of the k-th distance to the nearer ones, for points with any spread."""
    d = np.maximum(distances[:, :k], 1e-10)
    logs = np.log(np.maximum(d[:, -1:] / d[:, :-1], 1 + 1e-10)).sum(axis=1)
    spread = logs[logs > 1e-8]
    if not len(spread):
        raise BadCalibration(
            f"None of {len(d)} samples has neighbours at different distances; intrinsic dimension is undefined. "
            "Check the encoder: its embeddings hold too few distinct values."
        )
    return spread / (k - 1)


_DIRECTION = "larger: more degrees of freedom"
METRICS = (
    Metric("mle_median", 1, "rows", _DIRECTION, (0.0, np.inf), "Levina & Bickel 2004; k = 20, median over points",
           lambda x: mle_median(neighbour_distances(x, K)),
           label="ID mismatch (MLE, k = 20)", unit="dimensions", column="id_mismatch", combine="difference"),
    Metric("mle_harmonic", 1, "rows", _DIRECTION, (0.0, np.inf), "MacKay & Ghahramani 2005; k = 20, harmonic mean",
           lambda x: mle_harmonic(neighbour_distances(x, K)), unit="dimensions", combine=None),
)  # fmt: skip
