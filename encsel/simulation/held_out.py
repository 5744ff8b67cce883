"""Held-out errors of a card by kind and number of people, beside those of simpler predictions."""

from __future__ import annotations

import math

import numpy as np

from encsel.prediction.card import HeldOut, predicted_eer
from encsel.regression.association import spearman
from encsel.simulation.table import Table, Values
from encsel.simulation.trials import TESTED_SAMPLES

STUDY_LINE = (0.1403247829724709, -0.07991596036292957)
"""upadhyay2026-ln: EER = a + b ln CKA."""


def rmse(predicted: Values, truth: Values) -> float:
    """Root mean squared error."""
    return math.sqrt(float(np.mean(np.square(predicted - truth))))


def held_out(kind: str, table: Table, d: Values, half_width: Values, *, training_mean: float) -> HeldOut:
    """Errors of (rows,) predicted d' with its half-width, for sets of one number of people.

    Args:
        training_mean: mean true EER behind the predictions.
    """
    eer = predicted_eer(d)
    error = eer - table.truth
    low = predicted_eer(d + half_width)
    high = np.where(d - half_width <= 0, 0.5, predicted_eer(d - half_width))
    # An interval that reaches chance also holds EERs above it.
    inside = (low <= table.truth) & ((table.truth <= high) | (high >= 0.5))
    sets = [(eer[rows], table.truth[rows]) for rows in table.sets]
    cka = np.maximum(table.feature("root_cka") ** 2, 8e-3)
    rivals = {
        "training mean": np.asarray(training_mean),
        "best constant": np.asarray(table.truth.mean()),
        "cross-validated EER": table.measured,
        "matched CKA, ln fit": STUDY_LINE[0] + STUDY_LINE[1] * np.log(cka),
    }
    return HeldOut(
        kind=kind,
        n_identities=int(table.n[0]),
        n_sets=len(sets),
        n_pairs=len(table),
        rmse=rmse(eer, table.truth),
        bias=float(error.mean()),
        bias_at={str(m): float(error[table.m == m].mean()) for m in TESTED_SAMPLES if (table.m == m).any()},
        spearman=float(np.mean([spearman(predicted, truth) or 0.0 for predicted, truth in sets])),
        regret=float(np.mean([truth[np.argmin(predicted)] - truth.min() for predicted, truth in sets])),
        coverage=float(inside.mean()),
        rivals={name: rmse(predicted, table.truth) for name, predicted in rivals.items()},
    )
