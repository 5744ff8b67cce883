"""Evidence of one face-voice pair: the numbers that a calibrated card turns into a predicted EER.

All are computed from centroids of the same people. Cross-validated ones measure a matcher on people it has not seen;
those from CKA use all people at once and are less noisy; a card weighs both. For d', see `encsel.matching.sensitivity`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration
from encsel.matching.axes import N_AXES, Side, project
from encsel.matching.crossval import (
    MEASURED,
    N_VARIATES,
    RIDGE,
    CrossValidated,
    held_out_evidence,
    pooled_correlations,
    reduced,
    sides,
    variate_products,
)
from encsel.matching.eer import auc_placements
from encsel.matching.folds import Fold, Folds, folds_of, repeats_for
from encsel.matching.scorers import PairInFold
from encsel.matching.sensitivity import distance_error, distance_of_auc
from encsel.metrics.linear_cka import (
    REFERENCE_SIZE,
    Gram,
    gram,
    null_of_hsic,
    null_of_matched,
    unbiased_cka,
    unbiased_hsic,
)

EVIDENCE_VERSION = 3
"""Version of the definition and measurement of FEATURES; a card is valid for one."""

FEATURES: Mapping[str, str] = {
    "d_reference": "sensitivity d' behind the cross-validated AUC of the reference scorer",
    "d_likelihood": "the same for the likelihood ratio",
    "correlations": "sum of the positive correlations of the first 12 ridge canonical variates on held-out people",
    "root_cka": "square root of CKA matched to 1249 people",
    "shared": "square root of the sum of squared covariances of both sides' first 50 axes, whitened with a ridge",
}
FROM_GRAMS = ("root_cka", "shared")
"""Features measured on all people at once, from Gram matrices."""
AXES_OF_SHUFFLES = 2 * N_AXES
RIDGE_OF_ALL = 0.1
"""Ridge of the whitening behind `shared`: fraction of the axes' mean variance that is added to the variance of each."""
MAX_IMPOSTORS = 2000
"""Largest number of impostor scores of a fold in a shuffle; 45 test people give fewer."""
COSTLY = ("d_likelihood",)
"""Features that take longer than all others together; p-values, which need many shuffles, leave them out."""
MAX_FOR_ALL_FOLDS, FEW_FOLDS = 400, 2
"""Above this many people, shuffles use only this many folds, whose test people are enough."""


@dataclass(frozen=True)
class EncoderEvidence:
    """One encoder's part, computed once: projections in every fold, Gram matrices of FROM_GRAMS.

    `people`: (n, at most 100) all people on the principal axes of all people, for the shuffles.
    """

    folds: Sequence[Sequence[Side]]
    people: Vectors
    grams: Mapping[str, Gram]


@dataclass(frozen=True)
class Evidence:
    """One pair: `values` by FEATURES, and by scorer the `standard_error` of its d' over people."""

    values: Mapping[str, float]
    standard_error: Mapping[str, float]
    cross_validated: CrossValidated


def evidence_folds(n_people: int, *, seed: int) -> Folds:
    """Folds of the evidence of n people."""
    return folds_of(n_people, n_repeats=repeats_for(n_people), seed=seed)


def encoder_evidence(x: Vectors, folds: Folds) -> EncoderEvidence:
    """One encoder's part, from its (n, dim) centroids."""
    small = reduced(x)
    everyone = np.arange(len(small))
    whole = project(small, everyone, everyone[:0], n_axes=AXES_OF_SHUFFLES)
    first = whole.first(N_AXES)
    variance = first.sd**2
    white = first.train / np.sqrt(variance + RIDGE_OF_ALL * variance.mean())
    return EncoderEvidence(sides(small, folds), whole.train, {"root_cka": gram(small), "shared": Gram(white)})


def pair_evidence(face: EncoderEvidence, voice: EncoderEvidence, folds: Folds) -> Evidence:
    """Evidence of one pair of encoders of the same people."""
    validated = held_out_evidence(face.folds, voice.folds, folds)
    scored, values = validated.scored, cross_validated_features(validated)
    values["root_cka"] = _root_cka(face.grams["root_cka"], voice.grams["root_cka"])
    values["shared"] = math.sqrt(max(unbiased_hsic(face.grams["shared"], voice.grams["shared"]), 0))
    errors = {s: distance_error(scored[s].auc, scored[s].auc_se, validated.n_people) for s in MEASURED}
    return Evidence({name: values[name] for name in FEATURES}, errors, validated)


def cross_validated_features(validated: CrossValidated) -> dict[str, float]:
    """All FEATURES except those of FROM_GRAMS."""
    values = {f"d_{name}": float(distance_of_auc(rates.auc)) for name, rates in validated.scored.items()}
    return {**values, "correlations": float(np.clip(validated.correlations, 0, 1).sum())}


def shuffles(n: int, n_shuffles: int, *, seed: int, groups: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """(n_shuffles, n) permutations of n people within every group, uniformly drawn, so that p-values are exact."""
    rng = np.random.default_rng([seed, 2])
    orders = np.tile(np.arange(n), (n_shuffles, 1))
    labels = np.zeros(n, np.intp) if groups is None else groups
    blocks = [np.flatnonzero(labels == g) for g in np.unique(labels)]
    for order in orders:
        for block in blocks:
            order[block] = rng.permutation(block)
    return orders


def shuffled_from_grams(
    faces: Sequence[EncoderEvidence], voices: Sequence[EncoderEvidence], permutations: NDArray[np.intp], name: str
) -> NDArray[np.float64]:
    """(1 + shuffles, voices, faces) of one of FROM_GRAMS, unshuffled first, for all pairs at once."""
    orders = np.vstack([np.arange(permutations.shape[1]), permutations])
    null_of = null_of_matched if name == "root_cka" else null_of_hsic
    null = null_of([v.grams[name] for v in voices], [f.grams[name] for f in faces], permutations=orders)
    return np.sqrt(np.maximum(null, 0))


def folds_of_shuffles(folds: Folds) -> Sequence[Fold]:
    """Folds in which shuffles are cross-validated: those of the first repeat, only a few of them for a large set."""
    first = folds[0]
    return first if sum(map(len, first[0])) <= MAX_FOR_ALL_FOLDS else first[:FEW_FOLDS]


def shuffled_features(
    faces: Sequence[EncoderEvidence], voice: EncoderEvidence, folds: Sequence[Fold], orders: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(orders, faces, FEATURES) of all faces and one voice, with its people in each order; NaN for COSTLY and
    FROM_GRAMS ones.

    The voice's axes are fitted on the training people of each order, as for an unshuffled set.
    """
    found = np.full((len(orders), len(faces), len(FEATURES)), np.nan)
    names = [name for name in MEASURED if f"d_{name}" not in COSTLY]
    columns = [list(FEATURES).index(name) for name in (*(f"d_{name}" for name in names), "correlations")]
    for i, order in enumerate(orders):
        moved = voice.people[order]
        aucs, products = np.zeros((len(faces), len(names))), np.zeros((len(faces), 3, N_VARIATES))
        for k, (train, test) in enumerate(folds):
            side = project(moved, train, test)
            for j, face in enumerate(faces):
                pair = PairInFold(face.folds[0][k], side)
                aucs[j] += [_auc(pair.scores(name)) / len(folds) for name in names]
                products[j] += variate_products(pair.directions(RIDGE), pair.face, pair.voice)
        for j in range(len(faces)):
            correlations = float(np.clip(pooled_correlations(products[j]), 0, 1).sum())
            found[i, j, columns] = [*distance_of_auc(aucs[j]), correlations]
    return found


def costly_features(
    faces: Sequence[EncoderEvidence], voice: Vectors, folds: Sequence[Fold], order: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(faces, FEATURES) of all faces and one voice (n, dim), with its people in this order; NaN except for COSTLY."""
    found = np.full((len(faces), len(FEATURES)), np.nan)
    (moved,) = sides(voice[order], [list(folds)])
    for j, face in enumerate(faces):
        pairs = [PairInFold(f, v) for f, v in zip(face.folds[0], moved, strict=False)]
        for name in COSTLY:
            auc = np.mean([_auc(pair.scores(name.removeprefix("d_"))) for pair in pairs])
            found[j, list(FEATURES).index(name)] = distance_of_auc(float(auc))
    return found


def _auc(matrix: Vectors) -> float:
    """AUC of a fold's scores, from at most about MAX_IMPOSTORS impostor pairs at the smallest cyclic distances."""
    n = len(matrix)
    distances = np.arange(1, min(n, 1 + max(1, MAX_IMPOSTORS // n)))
    columns = (np.arange(n)[:, None] + distances) % n
    return float(auc_placements(np.diag(matrix), np.take_along_axis(matrix, columns, axis=1)).mean())


def _root_cka(k: Gram, q: Gram) -> float:
    try:
        return math.sqrt(max(unbiased_cka(k, q, REFERENCE_SIZE), 0.0))
    except BadCalibration:
        # An encoder whose own variation is not above its noise shares none with another.
        return 0.0
