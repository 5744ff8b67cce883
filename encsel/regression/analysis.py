"""Analysis of each pair's numbers against its measured EER: correlations, regressions, errors of predictions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from encsel.errors import UsageError
from encsel.regression.association import Association, correlate, spearman
from encsel.regression.card import LN_PREFIX, FitErrors
from encsel.regression.fit import associations, baseline_errors, form_errors
from encsel.regression.pair_tables import PairTable

FORMS = (
    ("cka",), ("ln_cka",), ("cka", "id_mismatch"), ("cka", "id_mismatch", "gw_distance", "spectral_gap"),
    ("unimodal_eer",), ("cka_matched",),
)  # fmt: skip
COUNTS = ("n_identities", "n_train_identities", "n_test_identities", "rows_per_identity")
"""Columns with sizes, which are not measurements."""
MIN_PAIRS = 9
MIN_TREND = 3
"""Fewest pairs of one encoder whose rank order is reported."""


@dataclass(frozen=True)
class AgainstEer:
    """Correlation of one column with the EER; `pearson_p` treats pairs as independent. None if a column is constant."""

    rank: Association
    pearson: float | None
    pearson_p: float | None


@dataclass(frozen=True)
class Trend:
    """Spearman of a column with the EER over the pairs of one encoder; None if the column is constant."""

    encoder: str
    modality: str
    column: str
    spearman: float | None
    n_pairs: int


@dataclass(frozen=True)
class PredictionErrors:
    """Errors of one card's predictions, predicted minus measured EERs of its scorer; `against` names the measurement.

    `inside` is the fraction of measured values inside the predicted interval, None without intervals.
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
    """Analysis of the pairs of a table. With too few pairs everything is empty and `reason` says why.

    Attributes:
        columns: correlation with the EER, by column.
        forms: errors of regressions of the EER, by their features; `baseline` without geometry.
        fared: errors of predictions, by card.
        left_out: columns and forms that could not be used, with the reason.
    """

    scorer: str
    n_pairs: int
    columns: Mapping[str, AgainstEer]
    trends: tuple[Trend, ...]
    forms: Mapping[str, FitErrors]
    baseline: FitErrors | None
    fared: tuple[PredictionErrors, ...]
    left_out: Mapping[str, str]
    reason: str | None = None


def analyse(table: PairTable, *, scorer: str, fared: Sequence[PredictionErrors] = (), seed: int) -> Analysis:
    """Correlations, trends and regressions of the EER, measured with `scorer`, over the pairs of a table."""
    reason = None
    n_faces, n_voices = (len(np.unique(x)) for x in (table.face_encoder, table.voice_encoder))
    if len(table) < MIN_PAIRS or n_faces < 2 or n_voices < 2:
        reason = (
            f"{len(table)} pairs of {n_faces} face and {n_voices} voice encoders; correlations need at least "
            f"{MIN_PAIRS} pairs and 2 encoders of each modality. Add encoders."
        )
    elif np.ptp(table.eer) == 0:
        reason = f"all pairs have the same EER ({table.eer[0]:g}), so nothing can be correlated with it"
    left_out = dict(table.unusable)
    if reason:
        return Analysis(scorer, len(table), {}, (), {}, None, tuple(fared), left_out, reason)
    columns = correlations(table, [name for name in table.columns if name not in COUNTS], seed=seed)
    forms = {}
    for features in FORMS:
        label = " + ".join(features)
        try:
            if all(f.removeprefix(LN_PREFIX) in table.columns for f in features):
                forms[label] = form_errors(table, features)
        except UsageError as error:
            left_out[label] = str(error)
    trends, baseline = _trends(table, list(columns)), baseline_errors(table)
    return Analysis(scorer, len(table), columns, trends, forms, baseline, tuple(fared), left_out)


def correlations(table: PairTable, columns: Iterable[str], *, seed: int) -> dict[str, AgainstEer]:
    """Rank and linear correlation of each column with the EER, by column name."""
    result = {}
    for name, rank in associations(table, columns, seed=seed).items():
        linear = correlate("pearson", table.columns[name], table.eer)
        result[name] = AgainstEer(rank, linear.value, linear.p)
    return result


def prediction_errors(
    card: str,
    scorer: str,
    predicted: Sequence[float | None],
    intervals: Sequence[tuple[float, float] | None],
    measured: Sequence[float | None],
    against: str,
) -> PredictionErrors | None:
    """Errors of one card over the pairs with both a prediction and a measurement; None if there are none."""
    pairs = zip(predicted, intervals, measured, strict=True)
    complete = [(p, i, m) for p, i, m in pairs if p is not None and m is not None]
    if not complete:
        return None
    eer, true = np.array([p for p, _, _ in complete]), np.array([m for _, _, m in complete])
    inside = [i[0] <= m <= i[1] for _, i, m in complete if i is not None]
    return PredictionErrors(
        card, scorer, against, len(complete), float((eer - true).mean()), float(np.sqrt(np.mean((eer - true) ** 2))),
        spearman(eer, true) if len(complete) > 2 else None, float(np.mean(inside)) if inside else None,
    )  # fmt: skip


def _trends(table: PairTable, columns: Sequence[str]) -> tuple[Trend, ...]:
    trends = []
    for modality, labels in (("face", table.face_encoder), ("voice", table.voice_encoder)):
        for encoder in np.unique(labels).tolist():
            pairs = labels == encoder
            if pairs.sum() < MIN_TREND or len(np.unique(table.data_set[pairs])) > 1:
                continue
            for column in columns:
                rho = spearman(table.columns[column][pairs], table.eer[pairs])
                trends.append(Trend(encoder, modality, column, rho, int(pairs.sum())))
    return tuple(trends)
