"""Numbers of pairs against their EER: correlations, trends, regressions, errors of predictions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from encsel.regression.analysis import Analysis, analyse, prediction_errors
from encsel.regression.pair_tables import PairTable


def table(eer, n_face=3, n_voice=4, data_set="toy", unusable=None, **columns) -> PairTable:
    """Every pair of these encoders with its EER, voices running fastest."""
    face = np.repeat([f"f{i}" for i in range(n_face)], n_voice)
    voice = np.tile([f"v{j}" for j in range(n_voice)], n_face)
    of_columns = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    return PairTable(
        np.full(len(face), data_set), face, voice, np.asarray(eer, dtype=np.float64), of_columns, unusable or {}, ()
    )


def drawn(n=12, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.4, n)


def analysed(one: PairTable) -> Analysis:
    return analyse(one, scorer="reference", seed=0)


# Columns


def test_column_that_falls_as_the_eer_rises_has_spearman_minus_one():
    eer = drawn()
    found = analysed(table(eer, cka=np.exp(-5 * eer))).columns["cka"]
    assert found.rank.spearman == pytest.approx(-1, abs=1e-12)
    assert found.rank.p == pytest.approx(0, abs=1e-12)
    assert -1 < found.pearson < -0.95


def test_straight_line_has_pearson_one_and_p_zero():
    eer = drawn()
    found = analysed(table(eer, cka=3 * eer + 1)).columns["cka"]
    assert found.pearson == pytest.approx(1, abs=1e-12)
    assert found.pearson_p == pytest.approx(0, abs=1e-12)


def test_correlations_equal_scipy_s():
    eer, x = drawn(), drawn(seed=1)
    found = analysed(table(eer, cka=x)).columns["cka"]
    r, rho = pearsonr(x, eer), spearmanr(x, eer)
    assert (found.pearson, found.pearson_p) == pytest.approx((r.statistic, r.pvalue), rel=1e-9)
    assert (found.rank.spearman, found.rank.p) == pytest.approx((rho.statistic, rho.pvalue), rel=1e-9)


def test_constant_column_has_no_correlation():
    found = analysed(table(drawn(), cka=np.full(12, 0.3))).columns["cka"]
    assert (found.rank.spearman, found.pearson, found.pearson_p) == (None, None, None)
    assert "is constant" in found.rank.reason


@pytest.mark.parametrize("eer", [0.0, 0.3, 0.5])
def test_nothing_goes_with_an_eer_that_is_the_same_for_all(eer):
    found = analysed(table(np.full(12, eer), cka=drawn()))
    assert found.columns == {}
    assert found.baseline is None
    assert f"all pairs have the same EER ({eer:g})" in found.reason


@pytest.mark.parametrize("column", ["n_identities", "n_train_identities", "n_test_identities", "rows_per_identity"])
def test_counts_are_not_analysed(column):
    assert list(analysed(table(drawn(), cka=drawn(seed=1), **{column: range(12)})).columns) == ["cka"]


def test_same_seed_gives_the_same_analysis():
    one = table(drawn(), cka=drawn(seed=1))
    assert analysed(one) == analysed(one)
    other = analyse(one, scorer="reference", seed=1)
    assert other.columns["cka"].rank.interval != analysed(one).columns["cka"].rank.interval


# Trends


def test_trends_are_of_each_encoder_over_its_own_pairs():
    eer, x = drawn(), drawn(seed=1)
    one = table(eer, cka=x)
    found = {(t.modality, t.encoder): t for t in analysed(one).trends}
    assert set(found) == {("face", f"f{i}") for i in range(3)} | {("voice", f"v{j}") for j in range(4)}
    for (modality, encoder), trend in found.items():
        own = (one.face_encoder if modality == "face" else one.voice_encoder) == encoder
        assert trend.spearman == pytest.approx(spearmanr(x[own], eer[own]).statistic)
        assert trend.n_pairs == own.sum()


def test_order_within_encoders_may_be_the_opposite_of_that_overall():
    shift = np.repeat([0, 10, 20], 4)
    step = np.tile(np.arange(4), 3)
    found = analysed(table((shift + step) / 100, cka=shift - step))
    assert found.columns["cka"].rank.spearman > 0.5
    assert [t.spearman for t in found.trends if t.modality == "face"] == pytest.approx([-1, -1, -1], abs=1e-12)


def test_encoder_with_two_pairs_has_no_trend():
    found = analysed(table(drawn(10), n_face=2, n_voice=5, cka=drawn(10, seed=1)))
    assert {t.modality for t in found.trends} == {"face"}


def test_trend_of_a_constant_column_is_missing():
    assert {t.spearman for t in analysed(table(drawn(), cka=np.full(12, 0.3))).trends} == {None}


def test_encoder_in_two_data_sets_has_no_trend():
    parts = [table(drawn(seed=i), cka=drawn(seed=i + 2), data_set=name) for i, name in enumerate("ab")]
    both = PairTable(
        *(np.concatenate([getattr(p, n) for p in parts]) for n in ("data_set", "face_encoder", "voice_encoder", "eer")),
        {"cka": np.concatenate([p.columns["cka"] for p in parts])}, {}, (),
    )  # fmt: skip
    found = analysed(both)
    assert found.n_pairs == 24
    assert found.trends == ()


# Regressions


def test_form_that_made_the_eer_fits_it_exactly():
    x, y = drawn(seed=1), drawn(seed=2)
    found = analysed(table(0.4 - 0.5 * x + 0.1 * y, cka=x, id_mismatch=y)).forms
    assert set(found) == {"cka", "ln_cka", "cka + id_mismatch"}
    assert found["cka + id_mismatch"].r2 == pytest.approx(1)
    assert found["cka + id_mismatch"].leave_voice.r2 == pytest.approx(1)
    assert found["cka"].r2 < 1


def test_sum_of_effects_of_encoders_fits_the_baseline_exactly():
    eer = np.add.outer([0.1, 0.15, 0.2], [0.0, 0.05, 0.07, 0.1]).ravel()
    found = analysed(table(eer, cka=drawn(seed=1)))
    assert found.baseline.r2 == pytest.approx(1)
    assert found.forms["cka"].r2 < 1


def test_form_that_cannot_be_fitted_is_left_out_with_the_reason():
    x = drawn(seed=1)
    x[0] = -0.01
    found = analysed(table(drawn(), cka=x))
    assert set(found.forms) == {"cka"}
    assert "no logarithm" in found.left_out["ln_cka"]


def test_unusable_columns_are_left_out_with_their_reason():
    assert analysed(table(drawn(), unusable={"gw_distance": "why"}, cka=drawn(seed=1))).left_out == {
        "gw_distance": "why"
    }


@pytest.mark.parametrize(("n_face", "n_voice"), [(1, 1), (1, 10), (10, 1), (2, 4)])
def test_too_few_pairs_or_encoders_are_a_reason_and_nothing_else(n_face, n_voice):
    n = n_face * n_voice
    fared = prediction_errors("card", "reference", [0.2], [None], [0.3], "all")
    found = analyse(
        table(drawn(n), n_face, n_voice, unusable={"x": "why"}, cka=drawn(n, 1)),
        scorer="reference", fared=[fared], seed=0,
    )  # fmt: skip
    assert found.reason == (
        f"{n} pairs of {n_face} face and {n_voice} voice encoders; correlations need at least 9 pairs and 2 "
        "encoders of each modality. Add encoders."
    )
    assert (found.columns, found.trends, found.forms, found.baseline) == ({}, (), {}, None)
    assert (found.fared, found.left_out) == ((fared,), {"x": "why"})


def test_nine_pairs_of_three_and_three_are_enough():
    found = analysed(table(drawn(9), 3, 3, cka=drawn(9, seed=1)))
    assert found.reason is None
    assert found.columns["cka"].rank.spearman is not None


# Errors of predictions


def test_prediction_errors_by_hand():
    found = prediction_errors(
        "card", "reference", [0.2, 0.3, 0.5, 0.1], [(0.1, 0.3), (0.2, 0.35), (0.3, 0.6), (0.0, 0.2)],
        [0.1, 0.4, 0.4, 0.2], "measured here",
    )  # fmt: skip
    # Errors 0.1, -0.1, 0.1, -0.1; an interval holds its ends, so that 0.1 and 0.2 are inside.
    assert found.bias == pytest.approx(0)
    assert found.rmse == pytest.approx(0.1)
    assert found.inside == 0.75
    # Ranks 2 3 4 1 against 1 3.5 3.5 2.
    assert found.spearman == pytest.approx(spearmanr([2, 3, 4, 1], [1, 3.5, 3.5, 2]).statistic)
    assert (found.card, found.scorer, found.against, found.n_pairs) == ("card", "reference", "measured here", 4)


def test_bias_is_predicted_minus_measured():
    found = prediction_errors("card", "reference", [0.2, 0.3], [None, None], [0.1, 0.1], "all")
    assert found.bias == pytest.approx(0.15)
    assert found.rmse == pytest.approx(np.sqrt((0.01 + 0.04) / 2))


def test_pairs_without_both_numbers_do_not_count():
    found = prediction_errors("card", "reference", [0.2, None, 0.3, 0.4], [None] * 4, [None, 0.2, 0.1, 0.3], "all")
    assert (found.n_pairs, found.bias) == (2, pytest.approx(0.15))


def test_share_inside_is_over_the_pairs_that_have_an_interval():
    found = prediction_errors("card", "reference", [0.2, 0.2, 0.2], [None, (0.1, 0.3), (0.3, 0.4)], [0.2] * 3, "all")
    assert found.inside == 0.5


def test_what_cannot_be_said_of_predictions_is_missing():
    found = prediction_errors("card", "reference", [0.2, 0.3], [None, None], [0.1, 0.2], "all")
    assert (found.spearman, found.inside) == (None, None)
    assert prediction_errors("card", "reference", [0.2] * 3, [None] * 3, [0.1, 0.2, 0.3], "all").spearman is None


@pytest.mark.parametrize(("predicted", "measured"), [([], []), ([None], [0.2]), ([0.2], [None]), ([None], [None])])
def test_predictions_without_measured_values_have_no_errors(predicted, measured):
    assert prediction_errors("card", "reference", predicted, [None] * len(predicted), measured, "all") is None
