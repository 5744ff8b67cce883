"""Ways to score a face against a voice once both are projected on their principal axes: all closed form.

Every scorer is fitted on training people alone: principal axes of each side, then canonical directions from one
singular value decomposition. An EER means something only together with the name of the scorer behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration

N_AXES = 50
"""Principal axes kept of each side, as in the study."""
RIDGE = 0.3
"""Of `weighted` at REFERENCE_TRAIN people: share of the mean variance of the axes added to the variance of each."""
REFERENCE_TRAIN = 999
RIDGE_GROWTH = 140.0
"""People: how fast the ridge grows as training people get fewer."""

SCORERS: Mapping[str, str] = {
    "reference": "as the study's released code: cosine of canonical projections, axes not divided by their deviation",
    "cca": "as the study's paper: cosine of canonical variates",
    "weighted": "canonical variates with a ridge, each weighted by the root of its correlation: the one to deploy",
}

Axis = NDArray[np.intp]


@dataclass(frozen=True)
class Side:
    """One encoder's people on its principal axes, centre and axes fitted on the training people.

    Attributes:
        train: (n_train, k) float64.
        test: (n_test, k) float64.
        sd: (k,) standard deviation of each axis over the training people, all above 0, descending.
    """

    train: Vectors
    test: Vectors
    sd: Vectors


@dataclass(frozen=True)
class Directions:
    """Paired directions that correlate most, `correlations` descending; projections are `test @ face` and so on.

    Attributes:
        face, voice: (k_face, r) and (k_voice, r), ready for `Side.test`.
        correlations: (r,) singular values; with ridge 0 the canonical correlations of the training people.
    """

    face: Vectors
    voice: Vectors
    correlations: Vectors


def project(x: Vectors, train: Axis, test: Axis, *, n_axes: int = N_AXES) -> Side:
    """Principal axes of the training rows and both sets of rows on them.

    Args:
        x: (n, dim) centroids, one row per person, finite.
        train, test: row numbers.
        n_axes: axes kept; fewer where the people or the dimensions do not give as many.
    Raises:
        BadCalibration: the training people do not differ.
    """
    rows = np.asarray(x[train], dtype=np.float64)
    centre = rows.mean(axis=0)
    rows = rows - centre
    n, dim = rows.shape
    k = min(n_axes, n - 1, dim)
    if n <= dim:
        values, vectors = _largest(rows @ rows.T, k)
    else:
        values, vectors = _largest(rows.T @ rows, k)
    # Duplicated people leave fewer directions than people; dividing by a deviation of 1e-17 would make noise of them.
    # Rounding of the mean alone leaves values near 1e-32 of the squared scale, which is no variation either.
    floor = max(values[0] * 1e-12, n * float(np.square(centre).sum()) * 1e-24) if len(values) else np.inf
    kept = values > floor
    if not kept.any():
        raise BadCalibration("All people have the same embedding; matching needs variation. Check the encoder.")
    values, vectors = values[kept], vectors[:, kept]
    axes = rows.T @ (vectors / np.sqrt(values)) if n <= dim else vectors
    held_out = np.asarray(x[test], dtype=np.float64) - centre
    return Side(rows @ axes, held_out @ axes, np.sqrt(values / (n - 1)))


def directions(face: Side, voice: Side, *, ridge: float = 0.0) -> Directions:
    """Canonical directions of two sides that hold the same training people in the same order.

    Args:
        ridge: share of the mean variance added to each axis' variance before whitening.
    Source: Hotelling 1936; ridge as in Vinod 1976, doi:10.1016/0304-4076(76)90010-5.
    """
    face_scale, voice_scale = (1 / np.sqrt(s.sd**2 + ridge * np.mean(s.sd**2)) for s in (face, voice))
    cross = face.train.T @ voice.train / (len(face.train) - 1)
    u, s, vt = _svd(cross * np.outer(face_scale, voice_scale))
    return Directions(face_scale[:, None] * u, voice_scale[:, None] * vt.T, s)


def ridge_for(n_train: int) -> float:
    """Ridge of `weighted` after so many training people: 0.3 at 999, 1.1 at 56, 1.9 at 24.

    On simulated populations of six kinds the best ridge was about 2 at 24 to 80 people, 1 at 160, 0.7 at 400 and 0.4 at
    999; with these values the EER was within 0.007 of the best at each.
    """
    return RIDGE * max(1 + RIDGE_GROWTH * (1 / n_train - 1 / REFERENCE_TRAIN), 0.5)


def scores(scorer: str, face: Side, voice: Side) -> Vectors:
    """(n_test, n_test) similarity of each test face (rows) to each test voice (columns), in [-1, 1]."""
    found = directions(face, voice, ridge=ridge_for(len(face.train)) if scorer == "weighted" else 0.0)
    return scores_on(scorer, found, face, voice)


def scores_on(scorer: str, found: Directions, face: Side, voice: Side) -> Vectors:
    """As `scores`, on directions the caller has: `cca` and `reference` share theirs."""
    if scorer == "reference":
        # The released code projects centred axes by the rotations alone, which weights directions by variance.
        return cosines(face.test @ (face.sd[:, None] * found.face), voice.test @ (voice.sd[:, None] * found.voice))
    if scorer == "cca":
        return cosines(face.test @ found.face, voice.test @ found.voice)
    if scorer == "weighted":
        weight = np.sqrt(found.correlations)
        return cosines(face.test @ found.face * weight, voice.test @ found.voice * weight)
    raise ValueError(f"no scorer {scorer!r}")


def cosines(x: Vectors, y: Vectors) -> Vectors:
    """Cosine of each row of `x` with each row of `y`; a row of zeros is at 0 with everything."""
    return _unit(x) @ _unit(y).T


def _unit(x: Vectors) -> Vectors:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1)


def _svd(matrix: Vectors) -> tuple[Vectors, Vectors, Vectors]:
    """Thin singular value decomposition, checked.

    With fewer than 101 training people some canonical correlations are exactly 1, and on such clusters LAPACK's gesdd
    now and then does not converge or, worse, returns wrong vectors without a word. gesvd is slower and does not.
    """
    try:
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        if np.abs((u * s) @ vt - matrix).max() <= 1e-9 * s[0]:
            return u, s, vt
    except np.linalg.LinAlgError:
        pass
    from scipy.linalg import svd

    u, s, vt = svd(matrix, full_matrices=False, lapack_driver="gesvd", check_finite=False)
    return u, s, vt


def _largest(matrix: Vectors, k: int) -> tuple[Vectors, Vectors]:
    """The k largest eigenvalues of a symmetric matrix, descending, and their vectors in columns."""
    size = len(matrix)
    if size > 4 * k:
        from scipy.linalg import eigh

        values, vectors = eigh(matrix, subset_by_index=[size - k, size - 1], check_finite=False)
    else:
        values, vectors = np.linalg.eigh(matrix)
    return values[::-1][:k], vectors[:, ::-1][:, :k]
