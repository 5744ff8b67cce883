"""Upper bound on the EER of the best linear matcher if scores are Gaussian, from how much two encoders share.

**Claim.** Under the assumptions below some linear matcher has

    EER  <=  Phi(-t / (1 + sqrt(1 + min(t^2, 1)))),

where t^2 is the debiased CKA of the people's means, or any value up to |S|^2 / (largest(Cx) largest(Cy)), which is
never below CKA.

**Derivation.** Let x and y be a person's face and voice about their means, Cx and Cy their covariances over people, and
S = E[x y'] their cross-covariance; |.| is the Frobenius norm, largest(.) the largest eigenvalue, L the product of the
two largest eigenvalues. Score a face against a voice by s = x' Q y with Q = S / |S|.

1. Faces and voices of one person: E[s] = tr(Q'S) = |S|.
2. Of two persons, x and y are independent: E[s] = 0, and the variance is v = tr(Q' Cx Q Cy) <= L |Q|^2 = L.
3. Of one person, x and y jointly Gaussian: the variance is v + tr(Q'S Q'S) = v + tr((S'S)^2) / |S|^2, and the second
   part is at most the square of the largest singular value of S, so at most |S|^2 and at most L.
4. Both distributions of s Gaussian: at the threshold with equal errors EER = Phi(-E[s] / (sd_different + sd_same)).
   It is largest for the largest variances. Division by sqrt(L), with t^2 = |S|^2 / L, gives the claim.
5. CKA is |S|^2 / (|Cx| |Cy|) and L <= |Cx| |Cy|, so CKA <= t^2, and the claim holds for CKA, too. It also holds in any
   linear map of either side, so on whitened axes, where L is 1 and t^2 the sum of the squared canonical correlations;
   but that sum has a far larger error than CKA.

**Assumptions.** Face and voice are jointly Gaussian over people (3). s is nearly Gaussian (4): the sum of many shared
directions is. With one weak shared direction the claim can fail by a little: a correlation of 0.3 in the one direction
that holds all variance has CKA 0.09, for which it says 0.442, and an optimal EER of about 0.452. Outliers can give a
high CKA at chance. Q is known, as from many training people. Test people are compared by means of as many samples as
CKA was measured on, impostors are drawn from everybody. CKA is that of the population; a few dozen give it with an
error.

In simulated populations of all kinds the best scorer kept within the bound, except for the error of the measured EER
if nothing is shared (`tests/test_bound.py` prints the fractions).

The converse does not hold. With many weak shared traits the optimum is far below the bound: CKA says how much of the
largest variance is shared, but a matcher weights directions by how informative they are.
"""

import math


def eer_bound(shared: float) -> float:
    """Upper bound, in (0, 0.5], on the EER of a pair's best linear matcher if scores are Gaussian.

    Args:
        shared: t^2 of the claim, such as debiased CKA; negative values, which say nothing, count as 0.

    >>> round(eer_bound(0.2), 3), eer_bound(-0.01)
    (0.415, 0.5)
    """
    from scipy.special import ndtr

    squared = max(shared, 0.0)
    return float(ndtr(-math.sqrt(squared) / (1 + math.sqrt(1 + min(squared, 1.0)))))
