"""Each number about a pair against its measured EER: correlations, regressions, and how predictions fared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from encsel.errors import UsageError
from encsel.regression.association import Association, Values, associate, spearman
from encsel.regression.card import FitErrors
from encsel.regression.fit import baseline_errors, form_errors
from encsel.regression.pair_tables import PairTable

FORMS = (
    ("cka",), ("ln_cka",), ("cka", "id_mismatch"), ("cka", "id_mismatch", "gw_distance", "spectral_gap"),
    ("unimodal_eer",), ("cka_matched",),
)  # fmt: skip
MIN_PAIRS = 4
MIN_TREND = 3
"""Pairs of one encoder from which their order says anything."""
OF_THIS_SIZE = 0.1
"""Measured after training on so nearly the number of people that is predicted for, nothing is extrapolated."""


@dataclass(frozen=True)
class AgainstEer:
    """One column against the EER.

    Attributes:
        pearson: in [-1, 1], with a two-sided p that takes pairs as independent; None where the column does not vary.
    """

    rank: Association
    pearson: float | None
    pearson_p: float | None


@dataclass(frozen=True)
class Trend:
    """Spearman of a column with the EER over the pairs of one encoder; None where the column does not vary."""

    encoder: str
    modality: str
    column: str
    spearman: float | None
    n_pairs: int


@dataclass(frozen=True)
class Fared:
    """One card's predictions against the measured EERs of its scorer.

    Attributes:
        against: what they are compared with, in words.
        bias: predicted minus measured, mean over pairs; rmse: root mean square of the same.
        inside: share of pairs whose value lies in the predicted interval; None where the card gives none.
    """

    card: str
    scorer: str
    against: str
    n_pairs: int
    bias: float
    rmse: float
    spearman: float | None
    inside: float | None


@dataclass(frozen=True)
class Analysis:
    """Over the pairs of one set. Without pairs enough everything is empty and `reason` says why.

    Attributes:
        columns: the numbers themselves, by column, a value per pair.
        forms: regressions of the EER, by their features.
        baseline: face effect + voice effect, no geometry at all.
        left_out: columns and forms that could not be used, with the reason.
    """

    scorer: str
    n_pairs: int
    columns: Mapping[str, AgainstEer]
    trends: tuple[Trend, ...]
    forms: Mapping[str, FitErrors]
    baseline: FitErrors | None
    fared: tuple[Fared, ...]
    left_out: Mapping[str, str]
    reason: str | None = None


def analyse(table: PairTable, *, scorer: str, fared: Sequence[Fared] = (), seed: int) -> Analysis:
    """Everything that the pairs of one set, or of several pooled, can tell.

    Args:
        table: pairs with their EERs.
        scorer: what measured the EERs.
        fared: how predictions did, from `how_fared`.
    """
    n_faces, n_voices = (len(np.unique(x)) for x in (table.face_encoder, table.voice_encoder))
    if len(table) < MIN_PAIRS or n_faces < 2 or n_voices < 2:
        reason = (
            f"{len(table)} pairs of {n_faces} face and {n_voices} voice encoders; correlations need at least "
            f"{MIN_PAIRS} pairs of 2 and 2. Add encoders."
        )
        return Analysis(scorer, len(table), {}, (), {}, None, tuple(fared), dict(table.unusable), reason)
    if np.ptp(table.eer) == 0:
        reason = f"every pair has the EER {table.eer[0]:g}; nothing can go with it"
        return Analysis(scorer, len(table), {}, (), {}, None, tuple(fared), dict(table.unusable), reason)
    left_out = dict(table.unusable)
    columns = {}
    for name, values in table.columns.items():
        if name in ("n_identities", "n_train_identities", "n_test_identities", "rows_per_identity"):
            continue
        found = associate(values, table.eer, table.face_encoder, table.voice_encoder, table.data_set, seed=seed)
        columns[name] = AgainstEer(found, *_pearson(values, table.eer))
    forms = {}
    for features in FORMS:
        label = " + ".join(features)
        if any(f.removeprefix("ln_") not in table.columns for f in features):
            continue
        try:
            forms[label] = form_errors(table, features)
        except UsageError as error:
            left_out[label] = str(error)
    return Analysis(
        scorer,
        len(table),
        columns,
        _trends(table, list(columns)),
        forms,
        baseline_errors(table),
        tuple(fared),
        left_out,
    )


def how_fared(
    card: str,
    scorer: str,
    predicted: Sequence[float | None],
    intervals: Sequence[tuple[float, float] | None],
    measured: Sequence[float | None],
    against: str,
) -> Fared | None:
    """One card's predictions of the pairs that have both numbers; None when none has."""
    kept = [
        (p, i, m)
        for p, i, m in zip(predicted, intervals, measured, strict=True)
        if p is not None and m is not None
    ]  # fmt: skip
    if not kept:
        return None
    said, true = np.array([p for p, _, _ in kept]), np.array([m for _, _, m in kept])
    inside = [i[0] <= m <= i[1] for _, i, m in kept if i is not None]
    return Fared(
        card, scorer, against, len(kept), float((said - true).mean()), float(np.sqrt(np.mean((said - true) ** 2))),
        spearman(said, true) if len(kept) > 2 else None, float(np.mean(inside)) if inside else None,
    )  # fmt: skip


def _pearson(x: Values, y: Values) -> tuple[float | None, float | None]:
    from scipy.special import stdtr

    a, b = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    if scale == 0 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None, None
    r = min(1.0, max(-1.0, float(a @ b) / scale))
    if abs(r) == 1:
        return r, 0.0
    return r, float(2 * stdtr(len(x) - 2, -abs(r) * math.sqrt((len(x) - 2) / (1 - r * r))))


def _trends(table: PairTable, columns: Sequence[str]) -> tuple[Trend, ...]:
    found = []
    for modality, labels in (("face", table.face_encoder), ("voice", table.voice_encoder)):
        for encoder in np.unique(labels).tolist():
            own = labels == encoder
            if own.sum() < MIN_TREND or len(np.unique(table.data_set[own])) > 1:
                continue
            for column in columns:
                rho = spearman(table.columns[column][own], table.eer[own])
                found.append(Trend(encoder, modality, column, rho, int(own.sum())))
    return tuple(found)
