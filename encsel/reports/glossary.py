"""Terms of reports, explained."""

import re
from collections.abc import Mapping

TERMS: Mapping[str, str] = {
    "EER": "Equal error rate: the error at the threshold where impostors are accepted as often as genuine pairs of a "
    "face and a voice are rejected. 0 is perfect, 0.5 is chance.",
    "Interval": "Range that holds the true value in the stated fraction of cases.",
    "Rank": "Places that the pair may have among these, best first. A range means that the order is not known.",
    "Predicted EER": "What encsel predicts from these people for a matcher trained on many more; not a measurement.",
    "Measured EER": "Error of a matcher trained on some of these people and measured on the others.",
    "CV EER": "Cross-validated EER: measured here, trained on few people, so it is larger than the predicted EER.",
    "scorer": "Rule that turns a face and a voice into a score. Every EER is of one scorer; other scorers have others.",
    "P best": "Chance that the pair is the best of these.",
    "p": "Permutation p-value: fraction of random re-pairings of faces and voices that look at least as good.",
    "AUC": "Chance that a genuine pair of a face and a voice scores above an impostor pair; 0.5 is chance.",
    "FNMR": "False non-match rate: fraction of genuine pairs rejected, at a false match rate.",
    "false match": "An impostor pair of a face and a voice that is accepted.",
    "Detection error trade-off": "False non-match rate against false match rate as the threshold moves (DET).",
    "R@": "Fraction of searches whose person is among the first so many candidates.",
    "mAP": "Mean average precision of these searches, 0 to 1.",
    "CKA": "Centred kernel alignment: how alike two encoders arrange the same people, 0 to 1.",
    "ID": "Intrinsic dimension: number of directions in which embeddings vary locally.",
    "ID mismatch": "Difference of the intrinsic dimensions of a pair. encsel validate takes all samples; encsel rank "
    "takes as many of each person as its card was fitted on, so the two can differ.",
    "TwoNN": "Intrinsic dimension from the distances of the two nearest neighbours.",
    "GW": "Gromov-Wasserstein distance: how differently two encoders space people; 0 is the same.",
    "|H|": "Absolute mean curvature of the surface that the embeddings lie on.",
    "Silhouette": "How much nearer samples lie to their own person than to the next, -1 to 1.",
    "Verification EER": "EER within one modality: whether two faces, or two voices, are of one person.",
    "Spearman": "Correlation of ranks, -1 to 1.",
    "R2": "Fraction of the variation explained; 0 is no better than the mean.",
    "RMSE": "Root mean square error.",
}


ALSO: Mapping[str, str] = {"#": "Rank", "Verif. EER": "Verification EER"}
"""Headings that mean a term."""


def glossary(text: str) -> dict[str, str]:
    """The terms that a text holds, with their meanings, sorted."""

    def holds(term: str) -> bool:
        return re.search(rf"(?<!\w){re.escape(term)}(?![a-z])", text) is not None

    also = {term for heading, term in ALSO.items() if holds(heading)}
    found = [term for term in TERMS if term in also or holds(term)]
    return {term: TERMS[term] for term in sorted(found, key=str.lower)}
