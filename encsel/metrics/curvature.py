"""Local curvature: a quadratic surface fitted to the neighbours of each point, in the reference and a corrected form.

The neighbours are centred on the point; the directions with 95 % of their variance are the tangent space, the next one
is the normal. The height along it is regressed on products of tangent coordinates. Only the k x k Gram matrix of the
neighbours is needed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric, Vectors
from encsel.errors import BadCalibration
from encsel.metrics.neighbours import nearest_neighbours
from encsel.rows import blocks, mean_of_rows

K = 50
N_POINTS = 1000
REFERENCE_SEED = 42
RIDGE = 1e-3
CLIP = 100.0
"""Largest principal curvature of the reference form."""
MIN_ROWS = 12
QUANTILES = 41
"""Number of evenly spaced quantiles of absolute mean curvature, for histograms."""
_CHUNK = 200
Quartiles = tuple[float, float]


@dataclass(frozen=True)
class Curvature:
    """Curvature over points, in one over the unit of the embeddings (its square for `gaussian_`).

    `mean_` is the mean of the principal curvatures, with the arbitrary signs of the decomposition (its median and
    quartiles in the reference form only), `mean_absolute_` its absolute value, `gaussian_` the product of the two
    largest |principal curvatures|; `_std` is the standard deviation over points, `_quartiles` the first and the third.
    """

    form: str
    mean_absolute_median: float
    mean_absolute_mean: float
    mean_absolute_quartiles: Quartiles
    mean_median: float | None
    mean_quartiles: Quartiles | None
    mean_std: float
    gaussian_median: float
    gaussian_mean: float
    gaussian_std: float
    tangent_dimension: float
    absolute_quantiles: tuple[float, ...]
    n_points: int
    n_neighbours: int


def curvature_points(n_rows: int) -> NDArray[np.intp]:
    """Row numbers of the points at which curvature is measured, drawn as in the released code."""
    return np.random.RandomState(REFERENCE_SEED).choice(n_rows, min(N_POINTS, n_rows), replace=False)


def curvature(
    x: Vectors, points: NDArray[np.intp], neighbours: NDArray[np.intp], *, reference: bool = False
) -> Curvature:
    """Curvature of the surface that the rows lie on.

    The corrected form has the factor 2 that the reference loses between the quadratic form and its second derivative,
    a ridge relative to the scale of the data, and slopes, so that a sphere of any radius r has curvature 1 / r.

    Args:
        x: (rows, dim) embeddings.
        points: (m,) row numbers; neighbours: (m, k) row numbers of the nearest other rows of each.
        reference: use the released code's form: ridge 1e-3 at any scale, no factor 2, clipped at 100, signs kept.
    Raises:
        BadCalibration: all neighbours coincide with their point.
    """
    mean, gaussian, tangent = (np.empty(len(points)) for _ in range(3))
    for start in range(0, len(points), _CHUNK):
        at = slice(start, start + _CHUNK)
        offsets = x[neighbours[at]] - x[points[at]][:, None]
        principal, dims = _principal(offsets, reference)
        mean[at] = principal.sum(axis=1) / dims
        size = np.sort(np.abs(principal), axis=1)
        gaussian[at] = size[:, -1] * size[:, -2]
        tangent[at] = dims
    absolute = np.abs(mean)
    return Curvature(
        form="reference" if reference else "corrected",
        mean_absolute_median=float(np.median(absolute)),
        mean_absolute_mean=float(absolute.mean()),
        mean_absolute_quartiles=_quartiles(absolute),
        mean_median=float(np.median(mean)) if reference else None,
        mean_quartiles=_quartiles(mean) if reference else None,
        mean_std=float(mean.std()),
        gaussian_median=float(np.median(gaussian)),
        gaussian_mean=float(gaussian.mean()),
        gaussian_std=float(gaussian.std()),
        tangent_dimension=float(np.median(tangent)),
        absolute_quantiles=tuple(np.quantile(absolute, np.linspace(0, 1, QUANTILES)).tolist()),
        n_points=len(points),
        n_neighbours=neighbours.shape[1],
    )


def _quartiles(values: NDArray[np.float64]) -> Quartiles:
    low, high = np.quantile(values, [0.25, 0.75]).tolist()
    return low, high


def flat_control(x: Vectors, *, n_points: int, k: int, seed: int) -> Curvature:
    """Corrected curvature of a Gaussian cloud with the covariance of the (rows, dim) embeddings: flat, same spread.

    An encoder's excess over it is curvature; the rest is noise and sparse sampling.
    """
    values = np.linalg.eigvalsh(_covariance(x))
    varies = values > 1e-12 * values[-1]
    rng = np.random.default_rng([seed, 7])
    # On its principal axes, since curvature ignores rotation.
    cloud = rng.standard_normal((len(x), int(varies.sum())), np.float32) * np.sqrt(values[varies]).astype(np.float32)
    points = np.arange(n_points)
    return curvature(cloud, points, nearest_neighbours(cloud, k, of=points).index)


def _covariance(x: Vectors) -> NDArray[np.float64]:
    """(dim, dim) covariance of the rows, or (rows, rows) inner products over their number if those are fewer."""
    if len(x) <= x.shape[1]:
        rows = np.asarray(x, dtype=np.float64) - x.mean(axis=0, dtype=np.float64)
        return np.asarray(rows @ rows.T / len(x))
    mean, products = mean_of_rows(x), np.zeros((x.shape[1], x.shape[1]))
    for _, block in blocks(x):
        centred = block - mean
        products += centred.T @ centred
    return products / len(x)


def _principal(offsets: Vectors, reference: bool) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """(b, k) principal curvatures, zeros beyond the (b,) tangent dimensions, from (b, k, dim) offsets of neighbours."""
    if reference:
        coordinates = _signed_coordinates(offsets)
    else:
        near = np.asarray(offsets, dtype=np.float64)
        # Unit mean square distance, so that ridge and rounding do not depend on scale.
        scale = np.sqrt(np.einsum("bkd,bkd->b", near, near) / near.shape[1])
        if not (scale > 0).all():
            raise BadCalibration(
                "All neighbours lie on one point; curvature needs at least 2 that differ. Check the encoder."
            )
        near = near / scale[:, None, None]
        values, vectors = np.linalg.eigh(near @ near.transpose(0, 2, 1))
        coordinates = vectors[:, :, ::-1] * np.sqrt(np.clip(values[:, ::-1], 0, None))[:, None]
    k = coordinates.shape[1]
    variance = np.square(coordinates).sum(axis=1)
    share = np.cumsum(variance, axis=1) / (variance.sum(axis=1, keepdims=True) + 1e-10)
    dims = np.minimum(np.maximum(2, (share < 0.95).sum(axis=1) + 1), variance.shape[1])
    normal = np.minimum(dims, variance.shape[1] - 1)
    height = np.take_along_axis(coordinates, normal[:, None, None], axis=2)[:, :, 0]
    height = np.where((dims < variance.shape[1])[:, None], height, 0.0)
    tangent = coordinates * (np.arange(variance.shape[1]) < dims[:, None])[:, None]
    squares = np.square(tangent)
    # Inner products of the quadratic features t_a^2 and 2 t_a t_b, without ever forming them.
    kernel = 2 * np.square(tangent @ tangent.transpose(0, 2, 1)) - squares @ squares.transpose(0, 2, 1)
    if not reference:
        # Slopes are fitted, too: neighbours lie unevenly about the point, which tilts the tangent space, and a sphere
        # would read too little. Tangent columns are orthogonal.
        lengths = np.sqrt(squares.sum(axis=1, keepdims=True))
        unit = tangent / np.where(lengths > 0, lengths, 1)
        still = np.eye(k) - unit @ unit.transpose(0, 2, 1)
        kernel = still @ kernel @ still
    diagonal = np.arange(k)
    ridge = RIDGE if reference else RIDGE * kernel[:, diagonal, diagonal].mean(axis=1)[:, None]
    kernel[:, diagonal, diagonal] += ridge
    weights = np.linalg.solve(kernel, height[..., None])[..., 0]
    if not reference:
        weights = (still @ weights[..., None])[..., 0]
    form = 2 * (tangent.transpose(0, 2, 1) * weights[:, None]) @ tangent
    at = np.arange(variance.shape[1])
    form[:, at, at] -= (weights[:, None] @ squares)[:, 0]
    principal = np.linalg.eigvalsh(form)
    if reference:
        return np.clip(principal, -CLIP, CLIP), dims
    return 2 * principal / scale[:, None], dims


def _signed_coordinates(offsets: Vectors) -> NDArray[np.float64]:
    """(b, k, k) coordinates on the right singular vectors, with the signs of the decomposition."""
    return np.stack([near @ np.linalg.svd(near, full_matrices=False)[2].T for near in offsets]).astype(np.float64)


def _of_rows(x: Vectors) -> float:
    if len(x) < MIN_ROWS:
        raise BadCalibration(f"{len(x)} samples; curvature needs at least {MIN_ROWS}. Add samples.")
    k = min(K, len(x) - 1)
    neighbours = nearest_neighbours(x, k)
    if not neighbours.distances.any():
        raise BadCalibration(
            "All samples have the same embedding; curvature needs at least 2 that differ. Check the encoder."
        )
    points = curvature_points(len(x))
    return curvature(x, points, neighbours.index[points]).mean_absolute_median


METRICS = (
    Metric("mean_curvature", 1, "rows", "larger: more curved, in one over the unit of the embeddings", (0.0, np.inf),
           "quadratic fit of 50 neighbours at 1000 points, ridge relative to their spread; median absolute value",
           _of_rows, invariant_to=("rotation", "shift"), label="|mean curvature|, mean of the two", unit="1 / unit"),
)  # fmt: skip
