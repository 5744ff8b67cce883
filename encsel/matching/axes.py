"""Principal axes of one encoder's people, and canonical directions between two encoders' axes."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration

Axis = NDArray[np.intp]

N_AXES = 50
"""Number of principal axes of each side, as in the study."""
N_INNER = 5
"""Folds of the training people alone."""


@dataclass(frozen=True)
class Side:
    """One encoder's (n, k) people on the principal axes of its training people, and the (k,) deviation of each axis."""

    train: Vectors
    test: Vectors
    sd: Vectors

    def first(self, k: int) -> "Side":
        """The same people on the first k axes; itself if it has no more."""
        if k >= len(self.sd):
            return self
        return self._cut.setdefault(k, Side(self.train[:, :k], self.test[:, :k], self.sd[:k]))

    @cached_property
    def whitened(self) -> "Whitened":
        """What the likelihood ratio needs of this side, once for all pairs."""
        return Whitened(self.train)

    @cached_property
    def _cut(self) -> dict[int, "Side"]:
        return {}


class Whitened:
    """One encoder's training people, whitened for the likelihood ratio: all, and N_INNER folds of them."""

    def __init__(self, x: Vectors) -> None:
        self.everybody = People(x, x[:0])
        order = np.random.default_rng(0).permutation(len(x))
        held_out = [np.sort(order[fold::N_INNER]) for fold in range(N_INNER)]
        self.folds = [People(x[np.setdiff1d(order, rows)], x[rows]) for rows in held_out]


class People:
    """Training people (n, k) and others minus the mean of the former, and what whitens them with a ridge.

    Attributes:
        whitening: (k, k) matrix to variates whose covariance, with the ridge, is that of white noise.
    """

    def __init__(self, train: Vectors, others: Vectors) -> None:
        centre = train.mean(axis=0)
        self.train, self.others = train - centre, others - centre
        covariance = self.train.T @ self.train / (len(train) - 1)
        self.ridge = ridge_for(len(train)) * covariance.trace() / len(covariance)
        covariance[np.diag_indices_from(covariance)] += self.ridge
        self.whitening = np.linalg.inv(np.linalg.cholesky(covariance)).T

    def unit(self, directions: Vectors) -> Vectors:
        """Whitened directions (k, r) scaled to unit variance without the ridge; those without variance become 0."""
        variance = 1 - self.ridge * np.square(directions).sum(axis=0)
        return np.asarray(directions / np.sqrt(np.where(variance > 1e-9, variance, np.inf)))


def ridge_for(n_train: int) -> float:
    """Fraction of the axes' mean variance that is added to the variance of each: 0.3 up to 333 people, 0.1 from 1000.

    On simulated populations the best ridge falls as people get more.
    """
    return float(np.clip(100 / n_train, 0.1, 0.3))


@dataclass(frozen=True)
class Directions:
    """Paired directions (k_face, r) and (k_voice, r) on two sides' axes, and their (r,) descending correlations."""

    face: Vectors
    voice: Vectors
    correlations: Vectors


def project(x: Vectors, train: Axis, test: Axis, *, n_axes: int = N_AXES) -> Side:
    """Project training and test rows of (n, dim) centroids on at most `n_axes` principal axes of the training rows.

    Raises:
        BadCalibration: the training people do not differ.
    """
    rows = np.asarray(x[train], dtype=np.float64)
    centre = rows.mean(axis=0)
    rows = rows - centre
    n, dim = rows.shape
    k = min(n_axes, n - 1, dim)
    values, vectors = _largest(rows @ rows.T if n <= dim else rows.T @ rows, k)
    # Duplicated people leave fewer directions than people; dividing by a deviation of 1e-17 would amplify noise.
    # Rounding of the mean alone leaves values near 1e-32 of the squared scale, which is not variation either.
    floor = max(values[0] * 1e-12, n * float(np.square(centre).sum()) * 1e-24) if len(values) else np.inf
    varies = values > floor
    if not varies.any():
        raise BadCalibration("All people have the same embedding; matching needs variation. Check the encoder.")
    values, vectors = values[varies], vectors[:, varies]
    axes = rows.T @ (vectors / np.sqrt(values)) if n <= dim else vectors
    held_out = np.asarray(x[test], dtype=np.float64) - centre
    return Side(rows @ axes, held_out @ axes, np.sqrt(values / (n - 1)))


def directions(face: Side, voice: Side, *, ridge: float = 0.0) -> Directions:
    """Canonical directions of two sides that hold the same training people in the same order.

    Args:
        ridge: fraction of the mean variance added to each axis' variance before whitening.
    Source: Hotelling 1936; ridge as in Vinod 1976, doi:10.1016/0304-4076(76)90010-5.
    """
    face_scale, voice_scale = (1 / np.sqrt(s.sd**2 + ridge * np.mean(s.sd**2)) for s in (face, voice))
    cross = face.train.T @ voice.train / (len(face.train) - 1)
    u, s, vt = svd(cross * np.outer(face_scale, voice_scale))
    return Directions(face_scale[:, None] * u, voice_scale[:, None] * vt.T, s)


def svd(matrix: Vectors) -> tuple[Vectors, Vectors, Vectors]:
    """Thin singular value decomposition, checked.

    With fewer than 101 training people some canonical correlations are exactly 1, and on such clusters LAPACK's gesdd
    sometimes does not converge or, worse, silently returns wrong vectors. gesvd is slower and does not.
    """
    try:
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        if np.abs((u * s) @ vt - matrix).max() <= 1e-9 * s[0]:
            return u, s, vt
    except np.linalg.LinAlgError:
        pass
    import scipy.linalg

    return scipy.linalg.svd(matrix, full_matrices=False, lapack_driver="gesvd", check_finite=False)


def _largest(matrix: Vectors, k: int) -> tuple[Vectors, Vectors]:
    """The k largest eigenvalues of a symmetric matrix, descending, and their vectors in columns."""
    size = len(matrix)
    if size > 4 * k:
        from scipy.linalg import eigh

        values, vectors = eigh(matrix, subset_by_index=[size - k, size - 1], check_finite=False)
    else:
        values, vectors = np.linalg.eigh(matrix)
    return values[::-1][:k], vectors[:, ::-1][:, :k]
