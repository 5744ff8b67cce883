"""An EER that some matcher keeps, from the CKA of two encoders alone.

**Claim.** Let c be the debiased CKA of the people's means. Then some linear matcher has

    EER  <=  Phi(-sqrt(c) / (sqrt(o) + sqrt(o + c))),      o = 1 or the overlap of the two spectra, `spectral_overlap`.

**Derivation.** Let x and y be a person's face and voice about their means, Cx and Cy their covariances over people, and
S = E[x y'] their cross-covariance; then c = |S|^2 / (|Cx| |Cy|) in Frobenius norms. Write S = U D V' (singular values
D) and score a face against a voice by s = x' Q y with the polar factor Q = U V'.

1. Faces and voices of one person: E[s] = tr(Q'S) = sum of D, at least the root of the sum of D^2, which is |S|.
2. Of two persons, x and y are independent: E[s] = 0, and the variance is v = tr(Q' Cx Q Cy). By von Neumann's trace
   inequality v <= sum of the products of the eigenvalues of Cx and Cy, both in descending order (those of Q' Cx Q are
   no larger than those of Cx, as Q is a partial isometry). That is o |Cx| |Cy|, and by Cauchy and Schwarz o <= 1.
3. Of one person, x and y jointly Gaussian: the variance is v + tr(Q S' Q S') = v + |S|^2, as Q S' = U D U'.
4. Both distributions of s Gaussian: at the threshold with equal errors EER = Phi(-E[s] / (sd_different + sd_same)).
   It is largest for the least E[s] and the largest v. Division by sqrt(|Cx| |Cy|) gives the claim.

**Assumptions.** Face and voice are jointly Gaussian over people (3); s is nearly Gaussian, as sums over many directions
are (4); Q is known, as from many training people; each side is represented by a person's mean over many samples; CKA is
that of all people, not of a few dozen, whose debiased CKA has an error.

The converse does not hold. With many weak shared traits the optimum is far below the bound: CKA says how much of the
largest variance is shared, a matcher weights directions by what they tell.
"""

import numpy as np

from encsel.core import Vectors


def eer_bound(cka: float, overlap: float = 1.0) -> float:
    """The largest EER, in (0, 0.5], that the best linear matcher of a pair with this debiased CKA can have.

    Args:
        cka: debiased CKA; below 0, where it says nothing, counts as 0.
        overlap: `spectral_overlap` of the two sides; 1 if it is not known.

    >>> round(eer_bound(0.2), 3), eer_bound(-0.01)
    (0.415, 0.5)
    """
    from scipy.special import ndtr

    c = min(max(cka, 0.0), 1.0)
    return float(ndtr(-np.sqrt(c) / (np.sqrt(overlap) + np.sqrt(overlap + c))))


def spectral_overlap(x: Vectors, y: Vectors) -> float:
    """Cosine in (0, 1] of the descending eigenvalues of the covariances of (n, dim) people's means on both sides."""
    spectra = [np.linalg.svd(side - side.mean(axis=0), compute_uv=False) ** 2 for side in (x, y)]
    k = min(map(len, spectra))
    a, b = spectra
    return float(a[:k] @ b[:k] / (np.linalg.norm(a) * np.linalg.norm(b)))
