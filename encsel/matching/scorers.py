"""Scorers: closed-form similarity of a face and a voice on their principal axes.

Every scorer is fitted on training people only: principal axes of each side, then canonical directions from one
singular value decomposition. An EER is meaningful only together with the name of its scorer.
"""

from collections.abc import Mapping
from typing import Self

import numpy as np

from encsel.core import Vectors
from encsel.errors import UsageError, nearest
from encsel.matching import likelihood
from encsel.matching.axes import N_AXES, Directions, Side, checked_people, checked_rows, directions, project
from encsel.rows import unit_rows
from encsel.threads import cached_property

DEFAULT_SCORER = "likelihood"
"""The scorer to deploy, whose EERs a user sees first."""
REFERENCE_TRAIN = 999

SCORERS: Mapping[str, str] = {
    "reference": "as the study's released code: cosine of canonical projections, axes not divided by their deviation",
    "cca": "as the study's paper: cosine of canonical variates",
    "likelihood": "log likelihood ratio of one person against two: the one to deploy",
}


class PairInFold:
    """One face-voice pair fitted on the training people of one fold, with directions computed once per ridge.

    Args:
        face, voice: both encoders on at least as many axes as the scorers use, or as they have.
        n_axes: number of axes of all scorers except `likelihood`, which uses all.
    """

    def __init__(self, face: Side, voice: Side, *, n_axes: int = N_AXES) -> None:
        self._whole = face, voice
        self.face, self.voice = face.first(n_axes), voice.first(n_axes)
        self._directions: dict[float, Directions] = {}

    def directions(self, ridge: float) -> Directions:
        """Canonical directions with this ridge."""
        if ridge not in self._directions:
            self._directions[ridge] = directions(self.face, self.voice, ridge=ridge)
        return self._directions[ridge]

    @cached_property
    def likelihood(self) -> likelihood.LikelihoodRatio:
        return likelihood.likelihood_ratio(self._whole[0].whitened, self._whole[1].whitened)

    def scores(self, scorer: str, *, rows: tuple[Vectors, Vectors] | None = None) -> Vectors:
        """(faces, voices) scores of the test people or other `rows` on the axes: log likelihood ratios, or cosines."""
        if scorer not in SCORERS:
            raise ValueError(f"no scorer {scorer!r}")
        faces, voices = rows or (self._whole[0].test, self._whole[1].test)
        if scorer == "likelihood":
            return self.likelihood.score(faces, voices)
        paired = self.directions(0.0)
        of_face, of_voice = paired.face, paired.voice
        if scorer == "reference":
            # The released code projects centred axes by the rotations alone, which weights directions by variance.
            of_face, of_voice = self.face.sd[:, None] * of_face, self.voice.sd[:, None] * of_voice
        faces, voices = faces[:, : len(of_face)], voices[:, : len(of_voice)]
        return cosines(faces @ of_face, voices @ of_voice)


class Scorer:
    """A matcher of faces and voices: `Scorer("likelihood").fit(X, Y).score(A, B)`.

    Args:
        name: one of SCORERS.
        n_axes: number of principal axes of each side; None: 200 for `likelihood`, 50 as in the study for the others.

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

    def __init__(self, name: str = DEFAULT_SCORER, *, n_axes: int | None = None) -> None:
        if name not in SCORERS:
            raise UsageError(f"No scorer is named {name!r}. {nearest(name, SCORERS)}")
        self.name = name
        self.n_axes = n_axes or (likelihood.N_AXES if name == "likelihood" else N_AXES)
        self._train: tuple[Vectors, Vectors] | None = None

    def fit(self, faces: Vectors, voices: Vectors) -> Self:
        """Fit on people with both a face and a voice.

        Args:
            faces, voices: (n, dim) centroids, one row per person, the same people in the same order.
        Raises:
            UsageError: different numbers of rows, or rows that are not finite.
            BadCalibration: fewer than 10 people, or rows that do not differ.
        """
        x, y = self._train = checked_people(faces, voices)
        self._pair(x[:0], y[:0])
        return self

    def score(self, faces: Vectors, voices: Vectors) -> Vectors:
        """(n_faces, n_voices) scores, higher is more alike; UsageError if the scorer is not fitted.

        `likelihood` returns natural log likelihood ratios, the others cosines in [-1, 1].
        """
        if self._train is None:
            raise UsageError("The scorer is not fitted yet. Call fit(faces, voices) first.")
        rows = zip((faces, voices), ("faces", "voices"), self._train, strict=True)
        return self._pair(*(checked_rows(x, what, train.shape[1]) for x, what, train in rows)).scores(self.name)

    def _pair(self, faces: Vectors, voices: Vectors) -> PairInFold:
        assert self._train is not None
        n = len(self._train[0])
        sides = [
            project(np.vstack([train, new]), np.arange(n), np.arange(n, n + len(new)), n_axes=self.n_axes)
            for train, new in zip(self._train, (faces, voices), strict=True)
        ]
        return PairInFold(*sides, n_axes=self.n_axes)


def cosines(x: Vectors, y: Vectors) -> Vectors:
    """Cosine of each row of `x` with each row of `y`; 0 for a row of zeros."""
    return unit_rows(x) @ unit_rows(y).T


def split_scores(scores: Vectors) -> tuple[Vectors, Vectors]:
    """Genuine and impostor scores of a square matrix whose rows and columns are the same people."""
    return np.diag(scores), scores[~np.eye(len(scores), dtype=bool)]
