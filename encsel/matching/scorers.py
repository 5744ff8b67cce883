"""Scorers: closed-form similarity of a face and a voice on their principal axes.

Every scorer is fitted on training people alone: principal axes of each side, then canonical directions from one
singular value decomposition. An EER is meaningful only together with the name of its scorer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration, UsageError, nearest
from encsel.metrics.centroids import unit_rows

N_AXES = 50
"""Number of principal axes of each side, as in the study."""
RIDGE = 0.3
"""Ridge of `weighted` at REFERENCE_TRAIN people: fraction of the axes' mean variance added to the variance of each."""
REFERENCE_TRAIN = 999
RIDGE_GROWTH = 140.0
"""In people: how fast the ridge grows as training people get fewer."""

SCORERS: Mapping[str, str] = {
    "reference": "as the study's released code: cosine of canonical projections, axes not divided by their deviation",
    "cca": "as the study's paper: cosine of canonical variates",
    "weighted": "canonical variates with a ridge, each weighted by the root of its correlation: the one to deploy",
}

Axis = NDArray[np.intp]


@dataclass(frozen=True)
class Side:
    """One encoder's (n, k) people on the principal axes of its training people, and the (k,) deviation of each axis."""

    train: Vectors
    test: Vectors
    sd: Vectors


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
    u, s, vt = _svd(cross * np.outer(face_scale, voice_scale))
    return Directions(face_scale[:, None] * u, voice_scale[:, None] * vt.T, s)


def ridge_for(n_train: int) -> float:
    """Ridge of `weighted` for a number of training people: 0.3 at 999, 1.0 at 56, 2.0 at 24.

    On simulated populations the best ridge falls as training people get more.
    """
    return RIDGE * max(1 + RIDGE_GROWTH * (1 / n_train - 1 / REFERENCE_TRAIN), 0.5)


class PairInFold:
    """One face-voice pair fitted on the training people of one fold, with directions computed once per ridge."""

    def __init__(self, face: Side, voice: Side) -> None:
        self.face, self.voice = face, voice
        self._directions: dict[float, Directions] = {}

    def directions(self, ridge: float) -> Directions:
        """Canonical directions with this ridge."""
        if ridge not in self._directions:
            self._directions[ridge] = directions(self.face, self.voice, ridge=ridge)
        return self._directions[ridge]

    def scores(
        self, scorer: str, *, ridge: float | None = None, rows: tuple[Vectors, Vectors] | None = None
    ) -> Vectors:
        """(faces, voices) similarity, in [-1, 1], of the test people or other `rows`; `ridge` is for `weighted`."""
        if scorer not in SCORERS:
            raise ValueError(f"no scorer {scorer!r}")
        if scorer != "weighted":
            ridge = 0.0
        elif ridge is None:
            ridge = ridge_for(len(self.face.train))
        paired = self.directions(ridge)
        of_face, of_voice, weight = paired.face, paired.voice, np.ones_like(paired.correlations)
        if scorer == "reference":
            # The released code projects centred axes by the rotations alone, which weights directions by variance.
            of_face, of_voice = self.face.sd[:, None] * of_face, self.voice.sd[:, None] * of_voice
        elif scorer == "weighted":
            weight = np.sqrt(paired.correlations)
        faces, voices = rows or (self.face.test, self.voice.test)
        return cosines(faces @ of_face * weight, voices @ of_voice * weight)


class Scorer:
    """A matcher of faces and voices: `Scorer("weighted").fit(X, Y).score(A, B)`.

    Args:
        name: one of SCORERS.
        n_axes: number of principal axes of each side.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> trait = rng.normal(size=(60, 4))
    >>> faces = trait @ rng.normal(size=(4, 16)) + 0.5 * rng.normal(size=(60, 16))
    >>> voices = trait @ rng.normal(size=(4, 12)) + 0.5 * rng.normal(size=(60, 12))
    >>> scores = Scorer("cca").fit(faces[:50], voices[:50]).score(faces[50:], voices[50:])
    >>> scores.shape
    (10, 10)
    >>> bool(np.diag(scores).mean() > scores.mean())
    True
    """

    def __init__(self, name: str = "weighted", *, n_axes: int = N_AXES) -> None:
        if name not in SCORERS:
            raise UsageError(f"No scorer is named {name!r}. {nearest(name, SCORERS)}")
        self.name, self.n_axes = name, n_axes
        self._train: tuple[Vectors, Vectors] | None = None

    def fit(self, faces: Vectors, voices: Vectors) -> Self:
        """Fit on people with both a face and a voice.

        Args:
            faces, voices: (n, dim) centroids, one row per person, the same people in the same order.
        Raises:
            BadCalibration: the two have different numbers of rows, or rows that do not differ.
        """
        x, y = (np.asarray(side, dtype=np.float64) for side in (faces, voices))
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
            raise BadCalibration(
                f"Faces of shape {x.shape} and voices of shape {y.shape}; one row per person is needed."
            )
        self._train = x, y
        self._pair(x[:0], y[:0])
        return self

    def score(self, faces: Vectors, voices: Vectors) -> Vectors:
        """(n_faces, n_voices) similarity, in [-1, 1], higher is more alike; UsageError if the scorer is not fitted."""
        return self._pair(np.asarray(faces), np.asarray(voices)).scores(self.name)

    def _pair(self, faces: Vectors, voices: Vectors) -> PairInFold:
        if self._train is None:
            raise UsageError("The scorer is not fitted yet. Call fit(faces, voices) first.")
        n = len(self._train[0])
        sides = [
            project(np.vstack([train, new]), np.arange(n), np.arange(n, n + len(new)), n_axes=self.n_axes)
            for train, new in zip(self._train, (faces, voices), strict=True)
        ]
        return PairInFold(*sides)


def cosines(x: Vectors, y: Vectors) -> Vectors:
    """Cosine of each row of `x` with each row of `y`; 0 for a row of zeros."""
    return unit_rows(x) @ unit_rows(y).T


def split_scores(scores: Vectors) -> tuple[Vectors, Vectors]:
    """Genuine and impostor scores of a square matrix whose rows and columns are the same people."""
    return np.diag(scores), scores[~np.eye(len(scores), dtype=bool)]


def _svd(matrix: Vectors) -> tuple[Vectors, Vectors, Vectors]:
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
    from scipy.linalg import svd

    return svd(matrix, full_matrices=False, lapack_driver="gesvd", check_finite=False)


def _largest(matrix: Vectors, k: int) -> tuple[Vectors, Vectors]:
    """The k largest eigenvalues of a symmetric matrix, descending, and their vectors in columns."""
    size = len(matrix)
    if size > 4 * k:
        from scipy.linalg import eigh

        values, vectors = eigh(matrix, subset_by_index=[size - k, size - 1], check_finite=False)
    else:
        values, vectors = np.linalg.eigh(matrix)
    return values[::-1][:k], vectors[:, ::-1][:, :k]
