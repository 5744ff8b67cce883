"""Regression of EER on geometry: from pair tables to a card with its errors on unseen encoders."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.errors import UsageError
from encsel.regression import pair_tables
from encsel.regression.association import Association, Values, associate
from encsel.regression.card import LN_PREFIX, Feature, FitErrors, GeometricCard, LeftOutErrors, Transform
from encsel.regression.pair_tables import PairTable

DEFAULT_FEATURES = ("cka_matched", "ln_cka")
"""Default features: the first of these that the tables have."""
METRIC_OF_COLUMN: Mapping[str, str] = {"cka": "cka_biased", "id_mismatch": "mle_median"}
"""Metrics that compute columns of a pair table under another name."""


def fit(
    tables: str | Path | Iterable[str | Path] | PairTable,
    features: str | Sequence[str] | None = None,
    *,
    exclude: Iterable[str] = (),
    name: str | None = None,
    rows_per_identity: int | None = None,
    scorer: str = "likelihood",
    source: str = "",
    seed: int = 0,
) -> GeometricCard:
    """Fit a regression of EER on geometry to measured face-voice pairs.

    Args:
        tables: pair tables (CSV) or results of `encsel validate` (JSON), pooled if several; or a table already read.
        features: columns, separated by commas or in a sequence; the prefix `ln_` takes the natural log. None:
            cka_matched, or ln_cka if the tables lack it.
        exclude: encoders whose pairs are left out.
        name: name of the card. Default: the names of the files, without suffix.
        rows_per_identity: samples per identity, for files without that column.
        scorer: scorer that measured the EERs; selects the EERs of a result of `encsel validate`.
        source: where the pairs come from; kept in the card.
        seed: random seed of the bootstrap and the permutation.
    Raises:
        UsageError: a file cannot be used, there are too few pairs or encoders, or the features determine one another.

    >>> from encsel.storage.documents import cards_folder
    >>> card = fit(cards_folder() / "pairs_voxceleb1.csv", "cka,id_mismatch", scorer="reference")
    >>> card.equation
    'eer = 0.4979 - 0.7842 cka - 0.003861 id_mismatch'
    >>> round(card.apply({"cka": 0.1, "id_mismatch": 15}).eer, 3)
    0.362
    """
    from encsel.metrics.registry import metrics

    if isinstance(tables, PairTable):
        if rows_per_identity is not None:
            raise UsageError("rows_per_identity applies only to files. Pass it to read_pairs instead.")
        table = tables
    else:
        paths = [tables] if isinstance(tables, str | Path) else list(tables)
        table = pair_tables.read_pairs(paths, rows_per_identity=rows_per_identity, scorer=scorer)
    table = pair_tables.exclude(table, exclude)
    if features is None:
        features = next(name for name in DEFAULT_FEATURES if name.removeprefix(LN_PREFIX) in (*table.columns, "cka"))
    return fit_table(
        table,
        [part.strip() for part in features.split(",")] if isinstance(features, str) else features,
        name=name or "+".join(Path(file.name).stem for file in table.files),
        metric_versions={metric.name: metric.version for metric in metrics().values()},
        scorer=scorer,
        source=source,
        seed=seed,
    )


def fit_table(
    table: PairTable,
    features: Sequence[str],
    *,
    name: str,
    metric_versions: Mapping[str, int],
    scorer: str = "likelihood",
    source: str = "",
    seed: int = 0,
) -> GeometricCard:
    """Fit the EER of a table by least squares, like `fit`, given the versions of encsel's metrics by name."""
    specs, design = _checked_design(table, features)
    coefficients = _solve(design, table.eer)
    residuals = table.eer - design @ coefficients
    counts, reasons = {}, {}
    for column in ("n_identities", "rows_per_identity", "n_train_identities", "n_test_identities"):
        counts[column], reasons[column] = _one_count(table, column)

    def feature(spec: tuple[str, Transform], coefficient: float) -> Feature:
        column, transform = spec
        metric = METRIC_OF_COLUMN.get(column, column)
        version = metric_versions.get(metric)
        no_metric = None if version is not None else f"no metric of this encsel computes {column}"
        why = "; ".join(filter(None, (no_metric, reasons["n_identities"], reasons["rows_per_identity"])))
        values = table.columns[column]
        return Feature(
            column, transform, None if version is None else metric, version, counts["n_identities"],
            counts["rows_per_identity"], float(coefficient), (float(values.min()), float(values.max())), why or None,
        )  # fmt: skip

    target: dict[str, str | int | None] = {"name": "eer", "scorer": scorer}
    target |= {column: counts[column] for column in ("n_train_identities", "n_test_identities")}
    if why := "; ".join(filter(None, (reasons["n_train_identities"], reasons["n_test_identities"]))):
        target["reason"] = why
    return GeometricCard(
        name=name,
        form="log" if any(transform == "ln" for _, transform in specs) else "linear",
        features=tuple(map(feature, specs, coefficients[1:])),
        intercept=float(coefficients[0]),
        target=target,
        residual_sd=math.sqrt(float(residuals @ residuals) / (len(table) - design.shape[1])),
        n_pairs=len(table),
        errors=_linear_errors(table, design),
        baseline_errors=baseline_errors(table),
        associations=associations(table, [column for column, _ in specs], seed=seed),
        source=source,
        pair_tables=table.files,
        excluded=table.excluded,
        seed=seed,
    )


def form_errors(table: PairTable, features: Sequence[str]) -> FitErrors:
    """Errors of the regression of EER on `features`, as in the card made by `fit`; raises the same errors."""
    return _linear_errors(table, _checked_design(table, features)[1])


def baseline_errors(table: PairTable) -> FitErrors:
    """Errors of face effect + voice effect within each data set: encoder names only, no geometry.

    Effects sum to zero, so an encoder that was left out gets the mean effect of the others.
    """

    def predict(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> Values:
        for data_set in np.unique(table.data_set[test]):
            if data_set not in table.data_set[train]:
                raise _CannotFit(f"no pair of {data_set} remains")
        coefficients = _solve(_additive_design(table, train, train), table.eer[train])
        return np.asarray(_additive_design(table, train, test) @ coefficients)

    everything = np.ones(len(table), dtype=bool)
    return _errors(table, predict, _additive_design(table, everything, everything).shape[1])


def associations(table: PairTable, columns: Iterable[str], *, seed: int) -> dict[str, Association]:
    """Rank association of each column with the EER, by column name."""
    labels = (table.face_encoder, table.voice_encoder, table.data_set)
    return {column: associate(table.column(column), table.eer, *labels, seed=seed) for column in dict.fromkeys(columns)}


def _one_count(table: PairTable, column: str) -> tuple[int | None, str | None]:
    """Value of a column if all pairs agree, else None with the reason."""
    if column not in table.columns:
        return None, f"{column} is unknown"
    counts = np.unique(table.columns[column])
    if len(counts) == 1:
        return int(counts[0]), None
    return None, f"{column} is not the same for all pairs: {', '.join(f'{count:g}' for count in counts)}"


Predict = Callable[[NDArray[np.bool_], NDArray[np.bool_]], Values]
"""Maps (pairs,) masks of the pairs to fit on and of those to predict to the predictions. Raises _CannotFit."""


class _CannotFit(Exception):
    """The remaining pairs do not determine the coefficients."""


def _checked_design(table: PairTable, features: Sequence[str]) -> tuple[list[tuple[str, Transform]], Values]:
    """Features as (column, transform), and the (pairs, 1 + features) design matrix with a column of ones first."""
    if not features or not all(features):
        raise UsageError("A feature name is empty; give column names separated by commas, such as cka,id_mismatch.")
    if len(set(features)) < len(features):
        raise UsageError(f"A feature is named twice in {', '.join(features)}. Name each once.")
    specs: list[tuple[str, Transform]] = [
        (text.removeprefix(LN_PREFIX), "ln" if text.startswith(LN_PREFIX) else "identity") for text in features
    ]
    columns = [np.ones(len(table))]
    for column, transform in specs:
        values = table.column(column)
        if transform == "ln":
            if (bad := values <= 0).any():
                at = int(bad.argmax())
                pair = f"{table.face_encoder[at]} x {table.voice_encoder[at]}"
                raise UsageError(
                    f"{column} is {values[at]:g} for {pair}, which has no logarithm. "
                    f"Use {column} without {LN_PREFIX}, or exclude an encoder."
                )
            values = np.log(values)
        columns.append(values)
    design = np.column_stack(columns)

    where = table.file_names + (f" without {', '.join(table.excluded)}" if table.excluded else "")
    for modality, labels in (("face", table.face_encoder), ("voice", table.voice_encoder)):
        if (n_encoders := len(np.unique(labels))) < 2:
            raise UsageError(
                f"{n_encoders} {modality} encoder{'' if n_encoders == 1 else 's'} in {where}; at least 2 are needed to "
                f"estimate the error on an unseen one. Add pairs with another {modality} encoder."
            )
    if len(table) < design.shape[1] + 1:
        raise UsageError(
            f"{len(table)} pairs in {where}; {len(features)} features need at least {design.shape[1] + 1}. "
            "Add pairs or use fewer features."
        )
    if np.ptp(table.eer) == 0:
        raise UsageError(f"All EERs in {where} are {table.eer[0]:g}; there is nothing to fit. Add pairs that differ.")
    for text, values in zip(features, design.T[1:], strict=True):
        if np.ptp(values) == 0:
            raise UsageError(f"{text} is constant over the pairs in {where}. Leave it out.")
    if _rank(design) < design.shape[1]:
        raise UsageError(
            f"The features {', '.join(features)} determine one another in {where}, so their coefficients are not "
            "unique. Leave one out."
        )
    return specs, design


def _rank(design: Values) -> int:
    """Rank with all columns scaled to the same norm, so that it does not depend on units."""
    scale = np.linalg.norm(design, axis=0)
    return int(np.linalg.matrix_rank(design / np.where(scale > 0, scale, 1)))


def _solve(design: Values, eer: Values) -> Values:
    if len(eer) == 0 or _rank(design) < design.shape[1]:
        raise _CannotFit(f"the {len(eer)} remaining pairs do not determine {design.shape[1]} coefficients")
    return np.asarray(np.linalg.lstsq(design, eer, rcond=None)[0])


def _linear_errors(table: PairTable, design: Values) -> FitErrors:
    def predict(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> Values:
        return np.asarray(design[test] @ _solve(design[train], table.eer[train]))

    return _errors(table, predict, design.shape[1])


def _additive_design(table: PairTable, train: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Values:
    """Design matrix of `rows`, per data set: mean, then effects of the face and voice encoders in `train`."""
    blocks = []
    for data_set in np.unique(table.data_set[train]):
        inside = table.data_set == data_set
        block = [np.ones((int(rows.sum()), 1))]
        for labels in (table.face_encoder, table.voice_encoder):
            encoders = np.unique(labels[train & inside])
            # Sum-to-zero coding: the last encoder's effect is minus the sum of the others, an unseen one's is zero.
            coding = np.vstack([np.eye(len(encoders) - 1), -np.ones(len(encoders) - 1)])
            match = (labels[rows][:, None] == encoders).astype(np.float64)
            block.append(match @ coding)
        blocks.append(np.hstack(block) * inside[rows][:, None])
    return np.hstack(blocks)


def _errors(table: PairTable, predict: Predict, n_parameters: int) -> FitErrors:
    def left_out(groups: NDArray[Any]) -> LeftOutErrors:
        predicted = np.empty(len(table))
        names = np.unique(groups)
        for name in names:
            inside = groups == name
            try:
                predicted[inside] = predict(~inside, inside)
            except _CannotFit as error:
                return LeftOutErrors(None, None, len(names), f"without {name}, {error}")
        r2, rmse = _r2_rmse(table.eer, predicted)
        return LeftOutErrors(r2, rmse, len(names))

    numbers = np.array([f"pair {number}" for number in range(1, len(table) + 1)])
    grouped = (left_out(numbers), left_out(table.face_encoder), left_out(table.voice_encoder))
    everything = np.ones(len(table), dtype=bool)
    try:
        r2, rmse = _r2_rmse(table.eer, predict(everything, everything))
    except _CannotFit as error:
        return FitErrors(n_parameters, None, None, None, *grouped, str(error))
    spare = len(table) - n_parameters
    if spare < 1:
        return FitErrors(n_parameters, r2, None, rmse, *grouped, f"{n_parameters} parameters for {len(table)} pairs")
    return FitErrors(n_parameters, r2, 1 - (1 - r2) * (len(table) - 1) / spare, rmse, *grouped)


def _r2_rmse(eer: Values, predicted: Values) -> tuple[float, float]:
    """R2 around the mean of `eer`, and root mean squared error."""
    squared = float(np.sum((eer - predicted) ** 2))
    return 1 - squared / float(np.sum((eer - eer.mean()) ** 2)), math.sqrt(squared / len(eer))
