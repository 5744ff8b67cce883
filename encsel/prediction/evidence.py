"""Evidence of one face-voice pair: the numbers that a calibrated card turns into a predicted EER.

All are computed from centroids of the same people. Cross-validated ones measure a matcher on people it has not seen;
those from CKA use all people at once and are less noisy; a card weighs both. For d', see `encsel.matching.sensitivity`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from encsel.core import Vectors
from encsel.errors import BadCalibration
from encsel.matching.axes import N_AXES, Side, project
from encsel.matching.crossval import (
    MEASURED,
    CrossValidated,
    held_out_evidence,
    reduced,
    sides,
)
from encsel.matching.folds import Folds, folds_of, repeats_for
from encsel.matching.sensitivity import distance_error, distance_of_auc
from encsel.metrics.linear_cka import (
    REFERENCE_SIZE,
    Gram,
    gram,
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
COSTLY = ("d_likelihood",)
"""Features that take longer than all others together; p-values, which need many shuffles, leave them out."""
AXES_OF_SHUFFLES = 2 * N_AXES
RIDGE_OF_ALL = 0.1
"""Ridge of the whitening behind `shared`: fraction of the axes' mean variance that is added to the variance of each."""


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


def _root_cka(k: Gram, q: Gram) -> float:
    try:
        return math.sqrt(max(unbiased_cka(k, q, REFERENCE_SIZE), 0.0))
    except BadCalibration:
        # An encoder whose own variation is not above its noise shares none with another.
        return 0.0
