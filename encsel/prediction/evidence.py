"""Evidence of one face-voice pair: the numbers that a calibrated card turns into a predicted EER.

All come from centroids of the same people. Cross-validated ones measure a matcher on people it has not seen; those from
CKA use all people at once and are less noisy; a card weighs both. For d', see `encsel.matching.sensitivity`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration
from encsel.matching.axes import Side, project
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
from encsel.matching.folds import Folds, folds_of, repeats_for
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

EVIDENCE_VERSION = 2
"""Version of the definition and measurement of FEATURES; a card is valid for one."""

FEATURES: Mapping[str, str] = {
    "d_reference": "sensitivity d' behind the cross-validated AUC of the reference scorer",
    "d_likelihood": "the same of the likelihood ratio",
    "correlations": "sum of the positive correlations of the first 12 ridge canonical variates on held-out people",
    "root_cka": "square root of CKA matched to 1249 people",
    "shared": "square root of the sum of squared covariances of both sides' first 50 axes, whitened with a ridge",
}
FROM_GRAMS = ("root_cka", "shared")
"""Features measured on all people at once, from Gram matrices."""
RIDGE_OF_ALL = 0.1
"""Of the whitening behind `shared`: fraction of the axes' mean variance that is added to the variance of each."""
MAX_IMPOSTORS = 2000
"""Most impostor scores of a fold in a shuffle; 45 test people give fewer."""
COSTLY = ("d_likelihood",)
"""Features that take longer than all others together; p-values, which need many shuffles, do without them."""
MAX_FOR_ALL_FOLDS, FEW_FOLDS = 400, 2
"""Above so many people, shuffles use only so many folds, whose test people are enough."""


@dataclass(frozen=True)
class EncoderEvidence:
    """One encoder's part, computed once: projections in every fold and of `everyone`, Gram matrices of FROM_GRAMS."""

    folds: Sequence[Sequence[Side]]
    everyone: Side
    grams: Mapping[str, Gram]


@dataclass(frozen=True)
class Evidence:
    """One pair: `values` by FEATURES, and by scorer the `standard_error` of its d' over people."""

    values: Mapping[str, float]
    standard_error: Mapping[str, float]
    cross_validated: CrossValidated


@dataclass(frozen=True)
class Shuffled:
    """FEATURES of one pair as it is, (features,), and with shuffled people, (shuffles, features), in the same folds.

    COSTLY ones are measured in the first shuffles alone, and NaN in the pair as it is and in the other shuffles.
    """

    observed: NDArray[np.float64]
    values: NDArray[np.float64]


def evidence_folds(n_people: int, *, seed: int) -> Folds:
    """Folds of the evidence of n people."""
    return folds_of(n_people, n_repeats=repeats_for(n_people), seed=seed)


def encoder_evidence(x: Vectors, folds: Folds) -> EncoderEvidence:
    """One encoder's part, from its (n, dim) centroids."""
    small = reduced(x)
    everyone = np.arange(len(small))
    whole = project(small, everyone, everyone[:0])
    variance = whole.sd**2
    white = whole.train / np.sqrt(variance + RIDGE_OF_ALL * variance.mean())
    return EncoderEvidence(sides(small, folds), whole, {"root_cka": gram(small), "shared": white @ white.T})


def pair_evidence(face: EncoderEvidence, voice: EncoderEvidence, folds: Folds) -> Evidence:
    """Evidence of one pair of encoders of the same people."""
    validated = held_out_evidence(face.folds, voice.folds, folds)
    scored = validated.scored
    values = {f"d_{name}": float(distance_of_auc(scored[name].auc)) for name in MEASURED}
    values["correlations"] = float(np.clip(validated.correlations, 0, 1).sum())
    values["root_cka"] = _root_cka(face.grams["root_cka"], voice.grams["root_cka"])
    values["shared"] = math.sqrt(max(unbiased_hsic(face.grams["shared"], voice.grams["shared"]), 0))
    errors = {s: distance_error(scored[s].auc, scored[s].auc_se, validated.n_people) for s in MEASURED}
    return Evidence({name: values[name] for name in FEATURES}, errors, validated)


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


def shuffled_evidence(
    face: EncoderEvidence,
    voice: EncoderEvidence,
    folds: Folds,
    permutations: NDArray[np.intp],
    from_grams: Mapping[str, NDArray[np.float64]],
    *,
    n_complete: int = 0,
) -> Shuffled:
    """One pair's evidence with shuffled people.

    Axes are those of everybody, so that they do not depend on the pairing and are fitted once; canonical directions are
    those of training people.

    Args:
        from_grams: by FROM_GRAMS, (1 + shuffles,) of the pair in `shuffled_from_grams`.
        n_complete: number of shuffles, the first ones, in which COSTLY features are measured as well.
    """
    orders = np.vstack([np.arange(permutations.shape[1]), permutations])
    used = slice(None if permutations.shape[1] <= MAX_FOR_ALL_FOLDS else FEW_FOLDS)
    sides = face.everyone, voice.everyone
    values = dict.fromkeys(FEATURES, np.full(len(orders), np.nan))
    values |= from_grams
    found = [_some_folds(*sides, folds[0][used], order, costly=0 < i <= n_complete) for i, order in enumerate(orders)]
    for name in found[0]:
        values[name] = np.array([one[name] for one in found])
    stacked = np.column_stack(list(values.values()))
    return Shuffled(stacked[0], stacked[1:])


def _some_folds(
    face: Side,
    voice: Side,
    folds: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
    order: NDArray[np.intp],
    *,
    costly: bool,
) -> dict[str, float]:
    """The cross-validated features, with voices in this order; NaN for COSTLY ones unless asked for."""
    aucs = {name: 0.0 if costly or f"d_{name}" not in COSTLY else math.nan for name in MEASURED}
    products = np.zeros((3, N_VARIATES))
    moved = voice.train[order]
    for train, test in folds:
        pair = PairInFold(_split(face.train, face.sd, train, test), _split(moved, voice.sd, train, test))
        for name, auc in aucs.items():
            if not math.isnan(auc):
                aucs[name] += _auc(pair.scores(name)) / len(folds)
        products += variate_products(pair.directions(RIDGE), pair.face, pair.voice)
    found = {f"d_{name}": float(distance_of_auc(auc)) for name, auc in aucs.items()}
    return {**found, "correlations": float(np.clip(pooled_correlations(products), 0, 1).sum())}


def _split(people: Vectors, sd: Vectors, train: NDArray[np.intp], test: NDArray[np.intp]) -> Side:
    centre = people[train].mean(axis=0)
    return Side(people[train] - centre, people[test] - centre, sd)


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
