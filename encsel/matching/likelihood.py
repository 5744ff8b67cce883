"""The likelihood ratio of one person against two, from a face and a voice: the score of a deployed matcher.

Model: over people, face and voice are jointly Gaussian. In pairs of canonical variates of unit variance they are
independent except for the correlation r within each pair, so that face a and voice b have the log ratio

    sum of  -ln(1 - r^2) / 2  -  (r^2 (a^2 + b^2) - 2 r a b) / (2 (1 - r^2))

over the pairs of variates. That is the two-covariance form of probabilistic CCA, in speaker recognition known as PLDA.
Canonical correlations of few people are far too large, so r is measured on people held out from the training people.

Source: Bach and Jordan 2005, "A probabilistic interpretation of canonical correlation analysis"; Prince and Elder 2007,
doi:10.1109/ICCV.2007.4409052; Kenny 2010, "Bayesian speaker verification with heavy-tailed priors".
"""

from dataclasses import dataclass

import numpy as np

from encsel.core import Vectors
from encsel.matching.axes import Whitened, svd

N_AXES = 200
"""Largest number of principal axes of each side. Small sets have fewer, and more add little."""
LARGEST_CORRELATION = 0.97
"""Larger correlations are reduced to this: as a correlation approaches 1, the ratio grows without bound."""


@dataclass(frozen=True)
class LikelihoodRatio:
    """Directions (k_face, r) and (k_voice, r) to variates of unit variance, and their (r,) correlations."""

    face: Vectors
    voice: Vectors
    correlations: Vectors

    def score(self, faces: Vectors, voices: Vectors) -> Vectors:
        """(n, m) natural log likelihood ratios of (n, k_face) faces and (m, k_voice) voices on their sides' axes."""
        a, b, r = faces @ self.face, voices @ self.voice, self.correlations
        rest = 1 - r**2
        own = r**2 / (2 * rest)
        return -np.log(rest).sum() / 2 - (a**2 @ own)[:, None] - b**2 @ own + (a * (r / rest)) @ b.T


def likelihood_ratio(face: Whitened, voice: Whitened) -> LikelihoodRatio:
    """The ratio fitted on the training people of two sides, the same people in the same order."""
    of_face, of_voice = _unit_variates(face, voice)
    r = _held_out_correlations(face, voice, of_face[1:], of_voice[1:])
    return LikelihoodRatio(of_face[0], of_voice[0], r)


def _unit_variates(face: Whitened, voice: Whitened) -> tuple[Vectors, Vectors]:
    """Canonical directions (1 + N_INNER, k, r) of both sides: of all people, and without each inner fold."""
    cross = face.whitening.transpose(0, 2, 1) @ face.covariance(face.without(voice.x), voice) @ voice.whitening
    u, _, vt = svd(cross)
    return face.unit(u), voice.unit(vt.transpose(0, 2, 1))


def _held_out_correlations(face: Whitened, voice: Whitened, of_face: Vectors, of_voice: Vectors) -> Vectors:
    """(r,) correlations of variates of held-out people, pooled over the folds, non-increasing, in [0, 0.97]."""
    from scipy.optimize import isotonic_regression

    sums = np.zeros((3, of_face.shape[-1]))
    for fold, rows in enumerate(face.held_out):
        a = (face.x[rows] - face.centres[1 + fold]) @ of_face[fold]
        b = (voice.x[rows] - voice.centres[1 + fold]) @ of_voice[fold]
        sums += [(a * b).sum(axis=0), (a * a).sum(axis=0), (b * b).sum(axis=0)]
    scale = np.sqrt(sums[1] * sums[2])
    measured = sums[0] / np.where(scale > 0, scale, 1)
    return np.clip(isotonic_regression(measured, increasing=False).x, 0, LARGEST_CORRELATION)
