"""The likelihood ratio of one person against two, from a face and a voice: what a matcher to deploy returns.

Model: on people, face and voice are jointly Gaussian. In pairs of canonical variates of unit variance they are
independent but for the correlation r within each pair, so that face a and voice b have the log ratio

    sum of  -ln(1 - r^2) / 2  -  (r^2 (a^2 + b^2) - 2 r a b) / (2 (1 - r^2))

over the pairs of variates. That is the two-covariance form of probabilistic CCA, in speaker recognition known as PLDA.
Canonical correlations of few people are far too large, so r is measured on people held out from the training people.

Source: Bach and Jordan 2005, "A probabilistic interpretation of canonical correlation analysis"; Prince and Elder 2007,
doi:10.1109/ICCV.2007.4409052; Kenny 2010, "Bayesian speaker verification with heavy-tailed priors".
"""

from dataclasses import dataclass

import numpy as np

from encsel.core import Vectors
from encsel.matching.axes import People, Whitened, svd

N_AXES = 200
"""Largest number of principal axes of each side. Few people have fewer, and more add little."""
LARGEST_CORRELATION = 0.97
"""No correlation is believed to be larger: the ratio of one that is nearly 1 is without bound."""


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
    of_face, of_voice = _unit_variates(face.everybody, voice.everybody)
    r = held_out_correlations(face, voice)[: of_face.shape[1]]
    return LikelihoodRatio(of_face[:, : len(r)], of_voice[:, : len(r)], r)


def held_out_correlations(face: Whitened, voice: Whitened) -> Vectors:
    """(r,) correlations of canonical variates on training people who were held out, non-increasing, in [0, 0.97]."""
    from scipy.optimize import isotonic_regression

    sums = np.zeros((3, 0))
    for f, v in zip(face.folds, voice.folds, strict=True):
        of_face, of_voice = _unit_variates(f, v)
        a, b = f.others @ of_face, v.others @ of_voice
        products = np.array([(a * b).sum(axis=0), (a * a).sum(axis=0), (b * b).sum(axis=0)])
        sums = products if not sums.size else sums + products
    scale = np.sqrt(sums[1] * sums[2])
    measured = sums[0] / np.where(scale > 0, scale, 1)
    return np.clip(isotonic_regression(measured, increasing=False).x, 0, LARGEST_CORRELATION)


def _unit_variates(face: People, voice: People) -> tuple[Vectors, Vectors]:
    """Canonical directions of both sides whose variates have unit variance over the training people."""
    cross = face.whitening.T @ (face.train.T @ voice.train / (len(face.train) - 1)) @ voice.whitening
    u, _, vt = svd(cross)
    of_face, of_voice = (one.unit(one.whitening @ turned) for one, turned in ((face, u), (voice, vt.T)))
    return of_face, of_voice
