"""Principal axes of one encoder's people, and canonical directions between two encoders' axes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration, UsageError
from encsel.threads import cached_property

Axis = NDArray[np.intp]

N_AXES = 50
"""Number of principal axes of each side, as in the study."""
N_INNER = 5
"""Number of inner folds of the training people."""
MIN_FOR_SQUARES = 100
"""Smallest matrix whose singular values are taken from eigenvalues, which is slower for smaller ones."""
SMALL = 1e-4
"""Singular value, as a fraction of the largest, below which its directions cannot be taken from squares."""
MIN_TO_FIT = 2 * N_INNER
"""Fewest people that a matcher can be fitted on."""


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
    """One encoder's n training people, whitened for the likelihood ratio: all of them, then without each inner fold.

    Args:
        people: (n, k) about their mean.

    Attributes:
        held_out: rows of each of N_INNER folds, on which correlations are measured.
        centres: (1 + N_INNER, k) mean of the remaining people; `counts` their number.
        whitening: (1 + N_INNER, k, k) matrices to variates whose covariance, with the `ridge`, is that of white noise.
    """

    def __init__(self, people: Vectors) -> None:
        from scipy.linalg.lapack import dtrtri

        n, k = people.shape
        self.x = people
        order = np.random.default_rng(0).permutation(n)
        self.held_out = [np.sort(order[fold::N_INNER]) for fold in range(N_INNER)]
        products = self.without(self.x)
        self.counts = np.array([n, *(n - len(rows) for rows in self.held_out)])
        sums = np.array([np.zeros(k), *(-self.x[rows].sum(axis=0) for rows in self.held_out)])
        self.centres = sums / self.counts[:, None]
        covariance = self.covariance(products, self)
        shrinkage = np.array([ridge_for(int(count)) for count in self.counts])
        ridge = shrinkage * np.trace(covariance, axis1=1, axis2=2) / k
        # Without one of the folds all people may be the same.
        self.ridge = np.maximum(ridge, 1e-6 * ridge[0])
        covariance += self.ridge[:, None, None] * np.eye(k)
        self.whitening = np.array([dtrtri(root, lower=1)[0].T for root in np.linalg.cholesky(covariance)])

    def without(self, y: Vectors) -> Vectors:
        """(1 + N_INNER, k, l) sums of products of x and (n, l) y: of everybody, and without each fold."""
        of_folds = np.array([self.x[rows].T @ y[rows] for rows in self.held_out])
        product = of_folds.sum(axis=0)
        return np.array([product, *(product - of_fold for of_fold in of_folds)])

    def covariance(self, products: Vectors, other: "Whitened") -> Vectors:
        """Covariances from the products of x and the other's x."""
        means = self.counts[:, None, None] * self.centres[:, :, None] * other.centres[:, None, :]
        return np.asarray((products - means) / (self.counts - 1)[:, None, None])

    def unit(self, turned: Vectors) -> Vectors:
        """Directions (1 + N_INNER, k, r), from whitened ones, of unit variance; those without variance become 0."""
        directions = self.whitening @ turned
        variance = 1 - self.ridge[:, None] * np.square(directions).sum(axis=1)
        return np.asarray(directions / np.sqrt(np.where(variance > 1e-9, variance, np.inf))[:, None, :])


def ridge_for(n_train: int) -> float:
    """Fraction of the axes' mean variance that is added to the variance of each: 0.3 up to 333 people, 0.1 from 1000.

    On simulated populations the best ridge decreases with the number of people.
    """
    return float(np.clip(100 / n_train, 0.1, 0.3))


@dataclass(frozen=True)
class Directions:
    """Paired directions (k_face, r) and (k_voice, r) on two sides' axes, and their (r,) descending correlations."""

    face: Vectors
    voice: Vectors
    correlations: Vectors


def checked_rows(x: Any, what: str, dim: int | None = None) -> Vectors:
    """Rows of embeddings as float64; UsageError if there are none, or they have another size or are not finite."""
    rows = np.asarray(x, dtype=np.float64)
    if rows.ndim != 2 or len(rows) == 0 or (dim is not None and rows.shape[1] != dim):
        raise UsageError(f"The {what} have shape {rows.shape}; at least one row of {dim or 'one'} numbers is needed.")
    if not np.isfinite(rows).all():
        raise UsageError(f"The {what} contain numbers that are not finite. Leave those rows out.")
    return rows


def checked_people(faces: Any, voices: Any) -> tuple[Vectors, Vectors]:
    """Both sides of the people that a matcher is fitted on.

    Raises:
        UsageError: different numbers of rows, or rows that are not finite.
        BadCalibration: fewer than MIN_TO_FIT people.
    """
    x, y = checked_rows(faces, "faces"), checked_rows(voices, "voices")
    if len(x) != len(y):
        raise UsageError(f"{len(x)} faces and {len(y)} voices; one row for each person is needed.")
    if len(x) < MIN_TO_FIT:
        raise BadCalibration(f"{len(x)} people; a matcher needs at least {MIN_TO_FIT}. Add people.")
    return x, y


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
    # Rounding of the mean leaves values near 1e-32 of the squared scale, which is not variation either.
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
    face_scale, voice_scale = (ridge_scale(s.sd, ridge) for s in (face, voice))
    cross = face.train.T @ voice.train / (len(face.train) - 1)
    u, s, vt = svd(cross * np.outer(face_scale, voice_scale))
    return Directions(face_scale[:, None] * u, voice_scale[:, None] * vt.T, s)


def ridge_scale(sd: Vectors, ridge: float) -> Vectors:
    """(..., k) factors that whiten axes with these deviations after the ridge of `directions` is added."""
    variance = np.square(sd)
    return np.asarray(1 / np.sqrt(variance + ridge * variance.mean(axis=-1, keepdims=True)))


def svd(matrix: Vectors) -> tuple[Vectors, Vectors, Vectors]:
    """Thin singular value decompositions of (..., k, l) matrices, checked.

    With fewer than 101 training people some canonical correlations are exactly 1, and on such clusters LAPACK's gesdd
    sometimes does not converge or, worse, silently returns wrong vectors. gesvd is slower and does not.
    """
    if min(matrix.shape[-2:]) >= MIN_FOR_SQUARES and (found := _svd_by_squares(matrix)) is not None:
        return found
    try:
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        if (np.abs((u * s[..., None, :]) @ vt - matrix).max(axis=(-2, -1)) <= 1e-9 * s[..., 0]).all():
            return u, s, vt
    except np.linalg.LinAlgError:
        pass
    if matrix.ndim > 2:
        parts = [svd(one) for one in matrix]
        return np.array([u for u, _, _ in parts]), np.array([s for _, s, _ in parts]), np.array([v for *_, v in parts])
    import scipy.linalg

    return scipy.linalg.svd(matrix, full_matrices=False, lapack_driver="gesvd", check_finite=False)


def _svd_by_squares(matrix: Vectors) -> tuple[Vectors, Vectors, Vectors] | None:
    """The decompositions from the eigenvectors of products, which take less time; None if a value is too near 0."""
    if matrix.shape[-2] < matrix.shape[-1]:
        found = _svd_by_squares(np.swapaxes(matrix, -1, -2))
        return found and (np.swapaxes(found[2], -1, -2), found[1], np.swapaxes(found[0], -1, -2))
    vectors = np.linalg.eigh(np.swapaxes(matrix, -1, -2) @ matrix)[1][..., ::-1]
    scaled = matrix @ vectors
    s = np.linalg.norm(scaled, axis=-2)
    u = scaled / np.maximum(s, np.finfo(np.float64).tiny)[..., None, :]
    # Directions of values s are orthogonal to about 1e-16 (s[0] / s)^2. Those of the small ones are taken again, from
    # what the large ones leave.
    for i in np.ndindex(matrix.shape[:-2]):
        if s[i][-1] > SMALL * s[i][0]:
            continue
        rest = slice(int(np.argmax(s[i] <= 10 * SMALL * s[i][0])), None)
        large = u[i][:, : rest.start]
        left, s[i][rest], turn = svd(scaled[i][:, rest] - large @ (large.T @ scaled[i][:, rest]))
        if s[i][-1] <= SMALL**2 * s[i][0]:
            return None
        u[i][:, rest], vectors[i][:, rest] = left, vectors[i][:, rest] @ turn.T
    return u, s, np.swapaxes(vectors, -1, -2)


def _largest(matrix: Vectors, k: int) -> tuple[Vectors, Vectors]:
    """The k largest eigenvalues of a symmetric matrix, descending, and their vectors in columns.

    All are computed: scipy's choice of some takes about as long, and lets no other thread run meanwhile.
    """
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1][:k], vectors[:, ::-1][:, :k]
