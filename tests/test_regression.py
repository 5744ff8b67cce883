"""Pair tables in, cards out: the fit, its errors, its prediction, the command."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy.stats import t as student_t

from encsel.cli.fit import fit as fit_command
from encsel.errors import UsageError
from encsel.metrics.registry import metrics
from encsel.regression import card as cards
from encsel.regression import fit as regression
from encsel.regression import pair_tables as pairs
from encsel.regression.card import GeometricCard
from encsel.regression.pair_tables import PairTable, read_pairs
from encsel.storage.documents import cards_folder

VOXCELEB = cards_folder() / "pairs_voxceleb1.csv"
MAVCELEB = cards_folder() / "pairs_mavceleb.csv"
ALL_FOUR = ["cka", "id_mismatch", "gw_distance", "spectral_gap"]
VERSIONS = {"cka_biased": 1, "mle_median": 1}


@pytest.fixture(scope="module")
def published() -> PairTable:
    return read_pairs([VOXCELEB], rows_per_identity=8)


@pytest.fixture(scope="module")
def pooled() -> PairTable:
    return read_pairs([VOXCELEB, MAVCELEB], rows_per_identity=8)


def fitted(table: PairTable, features: list[str], **options: object) -> GeometricCard:
    return regression.fit_table(table, features, name="test", metric_versions=VERSIONS, **options)


def written(path: Path, eer: Mapping[tuple[str, str], float], **columns: Mapping[tuple[str, str], float]) -> Path:
    """A pair table on disk with these EERs and feature columns."""
    lines = [",".join(["face_encoder", "voice_encoder", "n_identities", "eer", *columns])]
    for pair, value in eer.items():
        lines.append(",".join(map(str, [*pair, 100, value, *(column[pair] for column in columns.values())])))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def grid(n_face: int, n_voice: int, seed: int = 0) -> dict[tuple[str, str], float]:
    random = np.random.default_rng(seed)
    return {(f"f{i}", f"v{j}"): float(random.uniform(0.1, 0.4)) for i in range(n_face) for j in range(n_voice)}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(fit_command, [str(argument) for argument in arguments])


# What the published pairs say


@pytest.mark.parametrize(
    ("column", "rho"), [("cka", -0.874), ("id_mismatch", -0.790), ("gw_distance", -0.154), ("spectral_gap", 0.063)]
)
def test_published_rank_correlations_come_out(published: PairTable, column: str, rho: float) -> None:
    assert regression.associations(published, [column], seed=0)[column].spearman == pytest.approx(rho, abs=0.0005)


@pytest.mark.parametrize(("column", "p", "crossed"), [("cka", 0.0002, 0.028), ("id_mismatch", 0.0022, 0.042)])
def test_published_p_is_far_below_the_crossed_one(published: PairTable, column: str, p: float, crossed: float) -> None:
    found = regression.associations(published, [column], seed=0)[column]
    assert found.p == pytest.approx(p, abs=0.00005)
    assert found.crossed.p == pytest.approx(crossed, abs=0.0005)
    assert (found.crossed.how, found.crossed.n_orders) == ("exact", 144)


def test_without_arcface_no_crossed_p_is_small(published: PairTable) -> None:
    found = regression.associations(pairs.exclude(published, ["arcface"]), ["cka", "id_mismatch"], seed=0)
    assert found["cka"].crossed.p == pytest.approx(0.139, abs=0.0005)
    assert found["cka"].spearman == pytest.approx(-0.85, abs=0.005)
    assert found["id_mismatch"].spearman == pytest.approx(-0.92, abs=0.005)


def test_published_form_fails_for_unseen_voice_encoders(published: PairTable) -> None:
    errors = regression.form_errors(published, ["cka", "id_mismatch"])
    assert errors.r2 == pytest.approx(0.84, abs=0.005)
    assert errors.adjusted_r2 == pytest.approx(0.80, abs=0.005)
    assert errors.leave_pair.r2 == pytest.approx(0.72, abs=0.005)
    # Exactly -1.56494 (by rational arithmetic, too); quoted as -1.57 elsewhere by rounding -1.565 once more.
    assert errors.leave_voice.r2 == pytest.approx(-1.565, abs=0.0005)


def test_log_form_holds_for_unseen_encoders(published: PairTable) -> None:
    errors = regression.form_errors(published, ["ln_cka"])
    found = (errors.leave_pair.r2, errors.leave_face.r2, errors.leave_voice.r2)
    assert found == pytest.approx((0.84, 0.80, 0.75), abs=0.005)
    assert (errors.leave_pair.n_groups, errors.leave_face.n_groups, errors.leave_voice.n_groups) == (12, 4, 3)


def test_four_predictors_come_out_as_published(published: PairTable, pooled: PairTable) -> None:
    errors, of_pooled = (regression.form_errors(table, ALL_FOUR) for table in (published, pooled))
    assert (errors.r2, errors.leave_pair.r2) == pytest.approx((0.92, 0.77), abs=0.005)
    assert (of_pooled.r2, of_pooled.leave_pair.r2) == pytest.approx((0.59, 0.38), abs=0.005)


def test_names_alone_beat_every_form_on_the_published_pairs(published: PairTable) -> None:
    names = regression.baseline_errors(published)
    assert (names.r2, names.leave_pair.r2) == pytest.approx((0.97, 0.89), abs=0.005)
    for features in (["cka", "id_mismatch"], ["ln_cka"], ALL_FOUR):
        errors = regression.form_errors(published, features)
        assert names.r2 > errors.r2
        assert names.leave_pair.r2 > errors.leave_pair.r2


def test_pooled_rank_correlations_come_out_with_an_exact_crossed_p(pooled: PairTable) -> None:
    found = regression.associations(pooled, ["cka", "id_mismatch"], seed=0)
    assert found["cka"].spearman == pytest.approx(-0.606, abs=0.0005)
    assert found["id_mismatch"].spearman == pytest.approx(-0.456, abs=0.0005)
    assert (found["cka"].crossed.how, found["cka"].crossed.n_orders) == ("exact", 144 * 144)


# Fit and errors


def test_fit_finds_the_coefficients_that_made_the_data(tmp_path: Path) -> None:
    cka, size = grid(3, 3, seed=1), grid(3, 3, seed=2)
    eer = {pair: 0.2 - 0.05 * math.log(cka[pair]) + 0.3 * size[pair] for pair in cka}
    card = fitted(read_pairs([written(tmp_path / "p.csv", eer, cka=cka, size=size)]), ["ln_cka", "size"])
    assert (card.intercept, *(f.coefficient for f in card.features)) == pytest.approx((0.2, -0.05, 0.3), abs=1e-12)
    assert card.errors.r2 == pytest.approx(1)
    assert card.residual_sd == pytest.approx(0, abs=1e-12)
    assert card.form == "log"


def test_left_out_r2_is_against_the_mean_of_all_pairs(tmp_path: Path) -> None:
    # Fit on (0, .1), (1, .2) predicts .3 and .4 for v1; fit on those (2, .2), (3, .4) predicts -.2 and 0 for v0.
    x = {("a", "v0"): 0, ("b", "v0"): 1, ("a", "v1"): 2, ("b", "v1"): 3}
    eer = {("a", "v0"): 0.1, ("b", "v0"): 0.2, ("a", "v1"): 0.2, ("b", "v1"): 0.4}
    errors = regression.form_errors(read_pairs([written(tmp_path / "p.csv", eer, x=x)]), ["x"])
    squared = 0.3**2 + 0.2**2 + 0.1**2 + 0
    around_mean = sum((value - 0.225) ** 2 for value in eer.values())
    assert errors.leave_voice.r2 == pytest.approx(1 - squared / around_mean)
    assert errors.leave_voice.rmse == pytest.approx(math.sqrt(squared / 4))


def test_baseline_is_exact_on_additive_pairs_and_gives_an_unseen_encoder_the_mean(tmp_path: Path) -> None:
    face, voice = {"a": 0.1, "b": 0.2, "c": 0.27}, {"v": 0.0, "w": 0.05, "x": 0.11}
    eer = {(f, v): face[f] + voice[v] for f in face for v in voice}
    errors = regression.baseline_errors(read_pairs([written(tmp_path / "p.csv", eer)]))
    assert (errors.n_parameters, errors.r2, errors.leave_pair.r2) == pytest.approx((5, 1, 1))
    off = [face["a"] - (0.2 + 0.27) / 2, face["b"] - (0.1 + 0.27) / 2, face["c"] - (0.1 + 0.2) / 2]
    assert errors.leave_face.rmse == pytest.approx(math.sqrt(np.mean(np.square(off))))


def test_baseline_effects_are_per_data_set(tmp_path: Path) -> None:
    first = {("a", "v"): 0.1, ("a", "w"): 0.2, ("b", "v"): 0.15, ("b", "w"): 0.25}
    second = {("a", "v"): 0.4, ("a", "w"): 0.3, ("c", "v"): 0.45, ("c", "w"): 0.35}
    table = read_pairs([written(tmp_path / "one.csv", first), written(tmp_path / "two.csv", second)])
    errors = regression.baseline_errors(table)
    assert (errors.n_parameters, errors.r2) == pytest.approx((6, 1))


def test_errors_that_the_pairs_cannot_tell_are_missing_with_a_reason(tmp_path: Path) -> None:
    # Left without v1, x does not vary any more.
    x = {("a", "v0"): 0, ("b", "v0"): 0, ("a", "v1"): 0.5, ("b", "v1"): 1}
    eer = {("a", "v0"): 0.1, ("b", "v0"): 0.2, ("a", "v1"): 0.3, ("b", "v1"): 0.2}
    errors = regression.form_errors(read_pairs([written(tmp_path / "q.csv", eer, x=x)]), ["x"])
    assert errors.leave_voice.r2 is None
    assert errors.leave_voice.reason == "without v1, the 2 remaining pairs do not determine 2 coefficients"
    assert errors.leave_face.r2 is not None


def test_pairs_that_do_not_connect_the_encoders_leave_the_baseline_without_errors(tmp_path: Path) -> None:
    eer = {("a", "v"): 0.1, ("b", "w"): 0.2, ("c", "x"): 0.3, ("d", "y"): 0.25}
    errors = regression.baseline_errors(read_pairs([written(tmp_path / "p.csv", eer)]))
    assert errors.r2 is None
    assert errors.reason is not None


def test_fit_does_not_depend_on_the_order_of_rows(published: PairTable, tmp_path: Path) -> None:
    header, *lines = VOXCELEB.read_text(encoding="utf-8").splitlines()
    (tmp_path / VOXCELEB.name).write_text("\n".join([header, *reversed(lines)]), encoding="utf-8")
    tables = (published, read_pairs([tmp_path / VOXCELEB.name]))
    one, other = (fitted(table, ["cka", "id_mismatch"]) for table in tables)
    assert one.intercept == pytest.approx(other.intercept, rel=1e-9)
    assert one.errors.leave_pair.r2 == pytest.approx(other.errors.leave_pair.r2, rel=1e-9)
    assert one.associations["cka"].crossed == other.associations["cka"].crossed


def test_card_says_what_it_was_fitted_on(published: PairTable) -> None:
    card = fitted(pairs.exclude(published, ["arcface"]), ["ln_cka", "gw_distance"], source="here", scorer="closed")
    cka, gw = card.features
    assert (cka.metric, cka.metric_version, cka.n_identities, cka.rows_per_identity) == ("cka_biased", 1, 1249, 8)
    assert (gw.metric, gw.metric_version, gw.reason) == (None, None, "no metric of this encsel computes gw_distance")
    assert cka.range == pytest.approx((0.0256, 0.2107), abs=0.00005)
    assert card.target == {"name": "eer", "scorer": "closed", "n_train_identities": 999, "n_test_identities": 250}
    assert (card.excluded, card.n_pairs, card.source) == (("arcface",), 9, "here")
    assert [file.name for file in card.pair_tables] == [VOXCELEB.name]


def test_card_pooled_over_sizes_says_so(pooled: PairTable, published: PairTable) -> None:
    card = fitted(pooled, ["cka"])
    assert card.sizes_mixed
    assert card.features[0].n_identities is None
    assert card.features[0].reason == "n_identities is not the same for all pairs: 70, 1249"
    assert card.target["n_train_identities"] is None
    assert not fitted(published, ["cka"]).sizes_mixed


def test_rows_per_identity_comes_from_its_column_else_from_the_caller(tmp_path: Path) -> None:
    eer = grid(2, 3)
    stated = written(tmp_path / "p.csv", eer, x=grid(2, 3, 1), rows_per_identity=dict.fromkeys(eer, 20))
    silent = written(tmp_path / "q.csv", eer, x=grid(2, 3, 1))
    assert fitted(read_pairs([stated]), ["x"]).features[0].rows_per_identity == 20
    assert fitted(read_pairs([silent], rows_per_identity=9), ["x"]).features[0].rows_per_identity == 9
    unknown = fitted(read_pairs([silent]), ["x"]).features[0]
    assert unknown.rows_per_identity is None
    assert "rows_per_identity is unknown" in str(unknown.reason)
    with pytest.raises(UsageError, match=r"states rows_per_identity 20, but 9 was given"):
        read_pairs([stated], rows_per_identity=9)
    with pytest.raises(UsageError, match=r"q\.csv has no column 'rows_per_identity'.*pass --rows-per-identity"):
        read_pairs([stated, silent])
    assert set(read_pairs([stated, silent], rows_per_identity=9).columns["rows_per_identity"]) == {20.0, 9.0}


def test_data_set_comes_from_its_column_else_from_the_file_name(tmp_path: Path) -> None:
    assert set(read_pairs([written(tmp_path / "pairs.csv", grid(2, 2))]).data_set) == {"pairs"}
    path = tmp_path / "named.csv"
    path.write_text("face_encoder,voice_encoder,n_identities,eer,data_set\na,v,9,0.1,one\na,v,9,0.2,two\n")
    assert read_pairs([path]).data_set.tolist() == ["one", "two"]


def test_table_with_byte_order_mark_blank_lines_and_spaces_reads_the_same(published: PairTable, tmp_path: Path) -> None:
    text = VOXCELEB.read_text(encoding="utf-8").replace(",", " , ").replace("\n", "\r\n\r\n")
    (tmp_path / VOXCELEB.name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    read = read_pairs([tmp_path / VOXCELEB.name], rows_per_identity=8)
    assert read.eer.tolist() == published.eer.tolist()
    assert read.column("cka").tolist() == published.column("cka").tolist()


# Prediction


def test_prediction_is_the_equation_with_the_wider_grouped_interval(published: PairTable) -> None:
    card = fitted(published, ["cka", "id_mismatch"])
    found = card.apply({"cka": 0.1, "id_mismatch": 15, "other": 3}, coverage=0.8)
    eer = card.intercept + 0.1 * card.features[0].coefficient + 15 * card.features[1].coefficient
    assert found.raw == pytest.approx(eer, abs=1e-12)
    half = student_t.ppf(0.9, 2) * card.errors.leave_voice.rmse
    assert half > student_t.ppf(0.9, 3) * card.errors.leave_face.rmse
    assert found.interval == pytest.approx((eer - half, min(0.5, eer + half)), abs=1e-9)
    assert found.outside == ()


def test_prediction_is_clipped_and_its_interval_holds_it(published: PairTable) -> None:
    card = fitted(published, ["ln_cka"])
    low, high = card.apply({"cka": 100.0}), card.apply({"cka": 1e-9})
    assert (low.eer, high.eer) == (0.0, 0.5)
    assert low.raw < 0 < 0.5 < high.raw
    assert low.interval[0] == 0.0
    assert low.interval[1] > 0
    assert high.interval[1] == 0.5


def test_prediction_names_each_feature_outside_the_training_range(published: PairTable) -> None:
    card = fitted(published, ["cka", "ln_cka", "id_mismatch"])
    found = card.apply({"cka": 0.402, "id_mismatch": 3.0})
    assert found.outside == (
        "cka 0.402 is above the card's training range 0.01519 to 0.2107",
        "id_mismatch 3 is below the card's training range 9.495 to 23.01",
    )


@pytest.mark.parametrize("cka", [0.0, -0.02])
def test_prediction_is_missing_where_the_logarithm_is(published: PairTable, cka: float) -> None:
    found = fitted(published, ["ln_cka"]).apply({"cka": cka})
    assert (found.eer, found.raw, found.interval) == (None, None, None)
    assert "logarithm" in str(found.reason)


def test_prediction_without_grouped_errors_has_no_interval(tmp_path: Path) -> None:
    x = {("a", "v"): 0.0, ("b", "v"): 0.0, ("a", "w"): 0.0, ("b", "w"): 1.0}
    eer = {("a", "v"): 0.1, ("b", "v"): 0.2, ("a", "w"): 0.15, ("b", "w"): 0.3}
    found = fitted(read_pairs([written(tmp_path / "p.csv", eer, x=x)]), ["x"]).apply({"x": 0.5})
    assert found.eer is not None
    assert found.interval is None


@pytest.mark.parametrize(
    ("values", "coverage", "says"),
    [
        ({}, 0.9, r"needs cka, which was not given \(given: nothing\)"),
        ({"cka": math.nan}, 0.9, r"cka is nan; .* finite"),
        ({"cka": 0.1}, 1.0, r"coverage is 1.0; it must be between 0 and 1"),
    ],
)
def test_prediction_refuses_what_it_cannot_use(
    published: PairTable, values: dict[str, float], coverage: float, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        fitted(published, ["ln_cka"]).apply(values, coverage=coverage)


def test_metric_versions_must_be_those_of_the_card(published: PairTable) -> None:
    card = fitted(published, ["cka", "id_mismatch"])
    cards.check_metric_versions(card, {**VERSIONS, "other": 7})
    with pytest.raises(UsageError, match=r"cka by cka_biased version 1; this encsel has version 2.*Refit"):
        cards.check_metric_versions(card, {**VERSIONS, "cka_biased": 2})
    with pytest.raises(UsageError, match=r"id_mismatch by mle_median version 1; this encsel has no such metric"):
        cards.check_metric_versions(card, {"cka_biased": 1})
    with pytest.raises(UsageError, match="gw_distance, which no metric of encsel computes"):
        cards.check_metric_versions(fitted(published, ["gw_distance"]), VERSIONS)


# Bad input

HEADER = "face_encoder,voice_encoder,n_identities,eer,cka"
GOOD = ["a,v,70,0.3,0.1", "a,w,70,0.35,0.2", "b,v,70,0.25,0.3", "b,w,70,0.2,0.35"]


@pytest.mark.parametrize(
    ("lines", "features", "says"),
    [
        ([], "cka", r"has no column face_encoder, voice_encoder, n_identities, eer \(found: nothing\)"),
        (["face_encoder,eer,x"], "x", r"no column voice_encoder, n_identities \(found: face_encoder, eer, x\)"),
        (["face_encoder;voice_encoder;n_identities;eer"], "cka", r"separated by commas"),
        ([HEADER], "cka", r"a header and no pairs"),
        ([HEADER + ",cka", *(line + ",1" for line in GOOD)], "cka", r"column cka twice"),
        ([HEADER, *GOOD, "c,v,70,0.3"], "cka", r"t.csv line 6 has 4 fields; its header has 5"),
        ([HEADER, *GOOD, "c,,70,0.3,0.1"], "cka", r"line 6 has an empty face_encoder, voice_encoder"),
        ([HEADER, *GOOD, "a,v,70,0.3,0.1"], "cka", r"line 6 repeats the pair a x v of data set t, first .* line 2"),
        ([HEADER, *GOOD, "c,v,70,high,0.1"], "cka", r"eer in t.csv line 6 is 'high'; it must be a finite number"),
        ([HEADER, *GOOD, "c,v,70,,0.1"], "cka", r"eer in t.csv line 6 is ''"),
        ([HEADER, *GOOD, "c,v,70,30.5,0.1"], "cka", r"eer in t.csv line 6 is 30.5; .* Divide percentages by 100"),
        ([HEADER, *GOOD, "c,v,70.5,0.3,0.1"], "cka", r"line 6 is 70.5; it must be a whole number"),
        ([HEADER, *GOOD, "c,v,70,0.3,nan"], "cka", r"cka in t.csv line 6 is 'nan'; it must be a finite number"),
        ([HEADER, *GOOD], "ckaa", r"No column 'ckaa' in t.csv. Did you mean 'cka'\?"),
        ([HEADER, *GOOD], "cka,cka", r"named twice"),
        ([HEADER, *GOOD], "cka,", r"A feature name is empty"),
        ([HEADER, *GOOD], "cka,ln_cka,n_identities", r"4 pairs in t.csv; 3 features need at least 5"),
        ([HEADER, *GOOD, "c,v,70,0.3,0.1"], "n_identities", r"n_identities is constant"),
        ([HEADER, *GOOD, "c,v,70,0.3,-0.1"], "ln_cka", r"cka is -0.1 for c x v, which has no logarithm"),
        ([HEADER, *GOOD[:2], "a,x,70,0.1,0.4"], "cka", r"1 face encoder in t.csv; at least 2 are needed"),
        ([HEADER, GOOD[0], GOOD[2], "c,v,70,0.3,0.4"], "cka", r"1 voice encoder in t.csv"),
        ([HEADER, *(line.replace(line.split(",")[3], "0.3") for line in GOOD)], "cka", r"All EERs in t.csv are 0.3"),
        ([HEADER + ",same", *(f"{line},{line.rpartition(',')[2]}" for line in GOOD)], "cka,same", r"one another"),
        (['"open,v,70,0.3,0.1'], "cka", r"not CSV text"),
    ],
)  # fmt: skip
def test_bad_pair_table_gets_one_sentence_and_a_clean_stdout(
    tmp_path: Path, lines: list[str], features: str, says: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = run(path, "--features", features, "-o", tmp_path / "card.json")
    assert isinstance(found.exception, UsageError)
    assert found.stdout == ""
    assert not (tmp_path / "card.json").exists()
    with pytest.raises(UsageError, match=says):
        raise found.exception


def test_binary_missing_or_folder_in_place_of_a_table_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 4)
    for name, says in (("binary.csv", "not CSV text"), ("none.csv", "No such file"), (".", "Cannot read")):
        with pytest.raises(UsageError, match=says):
            read_pairs([tmp_path / name])


def test_column_that_only_some_tables_have_is_named_with_the_table(tmp_path: Path) -> None:
    one = written(tmp_path / "one.csv", grid(2, 2), cka=grid(2, 2, 1))
    two = written(tmp_path / "two.csv", grid(2, 2), other=grid(2, 2, 1))
    with pytest.raises(UsageError, match=r"two.csv has no column 'cka', which another pair table has"):
        fitted(read_pairs([one, two]), ["cka"])


def test_column_that_is_not_used_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n".join([HEADER + ",note", *(line + ",fine" for line in GOOD)]) + "\n", encoding="utf-8")
    assert fitted(read_pairs([path]), ["cka"]).n_pairs == 4


def test_excluding_an_unknown_encoder_names_the_nearest(published: PairTable) -> None:
    with pytest.raises(UsageError, match=r"has the encoder 'arcfase'. Did you mean 'arcface'\?"):
        pairs.exclude(published, ["arcfase"])


def test_excluding_nearly_everything_says_what_is_left(published: PairTable) -> None:
    table = pairs.exclude(published, ["arcface", "clip", "siglip", "dinov2"])
    with pytest.raises(UsageError, match=r"0 face encoders in pairs_voxceleb1.csv without arcface, clip"):
        fitted(table, ["cka"])


# The function


def test_fit_reads_files_and_records_metric_versions() -> None:
    card = regression.fit(str(VOXCELEB), "cka, id_mismatch", exclude=["arcface"], rows_per_identity=8)
    table = pairs.exclude(read_pairs([VOXCELEB], rows_per_identity=8), ["arcface"])
    versions = {metric.name: metric.version for metric in metrics().values()}
    assert card == regression.fit_table(table, ["cka", "id_mismatch"], name="pairs_voxceleb1", metric_versions=versions)
    assert regression.fit(table, ["cka", "id_mismatch"]) == card
    assert regression.fit([VOXCELEB, MAVCELEB]).name == "pairs_voxceleb1+pairs_mavceleb"


def test_fit_refuses_rows_per_identity_for_a_table(published: PairTable) -> None:
    with pytest.raises(UsageError, match="rows_per_identity applies only to files"):
        regression.fit(published, rows_per_identity=8)


# The command


def test_command_shows_that_names_alone_beat_the_form_and_keeps_the_card(tmp_path: Path) -> None:
    found = run(VOXCELEB, "--rows-per-identity", 8, "-o", tmp_path / "mine.json")
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    correlations, forms = (part.splitlines() for part in found.stdout.split("REGRESSIONS"))
    row = next(cells for cells in map(str.split, correlations) if "cka" in cells)
    assert {"-0.874", "0.0002", "0.028"} <= set(row)
    assert "over all 144 orders of the face and voice labels" in " ".join(found.stdout.split())
    rows = {line.strip().split("  ")[0]: line.split() for line in forms}
    assert {"0.972", "0.889"} <= set(rows["no geometry: face effect + voice effect"])
    assert "-1.565" in rows["cka + id_mismatch"]
    assert "0.753" in rows["ln_cka (chosen)"]
    assert any("beats ln_cka on these 12 pairs" in line for line in lines)
    assert lines[-1] == f"Card written to {tmp_path / 'mine.json'}."
    assert found.stderr == ""
    assert cards.load_geometric_card(str(tmp_path / "mine.json")).name == "mine"


def test_command_says_nothing_of_the_baseline_where_geometry_wins(tmp_path: Path) -> None:
    cka = grid(3, 3, seed=1)
    eer = {pair: 0.2 - 0.3 * value for pair, value in cka.items()}
    found = run(written(tmp_path / "p.csv", eer, cka=cka), "--features", "cka")
    assert found.exit_code == 0, found.output
    assert "beats" not in found.stdout


def test_command_with_json_prints_exactly_the_card(tmp_path: Path) -> None:
    found = run(VOXCELEB, "--format", "json", "-o", tmp_path / "card.json", "--source", "naïve")
    assert found.stdout == (tmp_path / "card.json").read_text(encoding="utf-8")
    assert json.loads(found.stdout)["schema"] == "encsel.card/1"


def test_command_warns_of_a_card_pooled_over_sizes() -> None:
    found = run(VOXCELEB, MAVCELEB, "--features", "cka,id_mismatch,gw_distance,spectral_gap")
    assert found.exit_code == 0, found.output
    assert "`encsel rank` will refuse this card" in found.stderr
    assert sum("(chosen)" in line for line in found.stdout.splitlines()) == 1


def test_command_compares_only_the_forms_the_table_allows(tmp_path: Path) -> None:
    cka = grid(3, 3, seed=1) | {("f0", "v0"): 0.0}
    found = run(written(tmp_path / "p.csv", grid(3, 3), cka=cka), "--features", "cka")
    assert found.exit_code == 0, found.output
    assert "Not compared, ln_cka: cka is 0 for f0 x v0, which has no logarithm" in found.stdout
    assert "id_mismatch" not in found.stdout


def test_command_that_cannot_write_the_card_prints_no_result(tmp_path: Path) -> None:
    found = run(VOXCELEB, "-o", tmp_path / "missing" / "card.json")
    assert isinstance(found.exception, UsageError)
    assert "Cannot write the card" in str(found.exception)
    assert found.stdout == ""


def test_command_gives_the_same_card_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(VOXCELEB, "--seed", seed, "--name", "x", "-o", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.parametrize(("module", "heavy"), [("encsel.cli.fit", "numpy"), ("encsel.regression", "scipy")])
def test_import_stays_light(module: str, heavy: str) -> None:
    code = f"import {module}, sys; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
