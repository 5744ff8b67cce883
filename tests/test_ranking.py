from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from toy import people, population, write_population

import encsel
from encsel.errors import BadCalibration, UsageError
from encsel.ranking import rank as ranking
from encsel.regression.card import GeometricCard, load_geometric_card
from encsel.reports.ranking import as_json

LN = "upadhyay2026-ln"
IN_RANGE = 1.0
"""Weight of the shared trait at which the toy encoders' matched CKA lies within the published cards' range."""


@pytest.fixture(scope="module")
def in_range_set(tmp_path_factory):
    return write_population(tmp_path_factory.mktemp("in_range"), 60, shared=IN_RANGE)


@pytest.fixture(scope="module")
def in_range(in_range_set):
    return encsel.rank(in_range_set)


@pytest.fixture(scope="module")
def by_ln(in_range_set):
    return encsel.rank(in_range_set, regression=LN)


@pytest.fixture(scope="module")
def beyond(tmp_path_factory):
    return encsel.rank(write_population(tmp_path_factory.mktemp("beyond"), 60, shared=2.0), regression=LN)


def edited_card(tmp_path, name: str, **changes) -> str:
    card: GeometricCard = dataclasses.replace(load_geometric_card(name), name="edited", **changes)
    card.save(tmp_path / "edited.json")
    return str(tmp_path / "edited.json")


def test_pairs_are_ordered_by_predicted_eer_when_every_pair_has_one(in_range):
    eers = [p.predicted_eer for p in in_range.pairs]
    assert len(eers) == 4
    assert in_range.ordered_by == "encsel-calibrated"
    assert eers == sorted(eers)
    assert [p.rank for p in in_range.pairs] == [1, 2, 3, 4]


def test_more_shared_structure_ranks_first(in_range):
    assert (in_range.pairs[0].face, in_range.pairs[0].voice) == ("face0", "voice0")


def test_a_published_card_orders_when_asked(by_ln):
    assert by_ln.ordered_by == LN
    eers = [p.predicted_eer for p in by_ln.pairs]
    assert eers == sorted(eers)
    assert all(p.rank_group is None and p.p_best is None for p in by_ln.pairs)


def test_the_cka_that_enters_a_published_card_is_the_matched_one(by_ln):
    card = load_geometric_card(LN)
    for pair in by_ln.pairs:
        assert pair.predicted_eer == card.apply({"cka": pair.cka.matched}).eer
        assert pair.cka.biased > pair.cka.matched + 0.02


def test_interval_contains_the_prediction_and_stays_within_chance(in_range):
    for pair in in_range.pairs:
        low, high = pair.interval
        assert 0 <= low <= pair.predicted_eer <= high <= 0.5


def test_the_studys_prediction_always_stands_beside(in_range, in_range_set):
    names = {"encsel-calibrated", "encsel-calibrated-weighted", "upadhyay2026", "upadhyay2026-ln"}
    assert all(set(p.predictions) == names for p in in_range.pairs)
    first = encsel.rank(in_range_set, regression="upadhyay2026")
    assert all(set(p.predictions) == names for p in first.pairs)
    assert next(iter(first.regressions)) == "upadhyay2026"


def test_outside_the_cards_range_there_is_no_prediction_but_a_flagged_extrapolation(beyond):
    best = beyond.pairs[0]
    assert best.predicted_eer is None
    assert best.interval is None
    assert "above the card's training range" in best.reason
    said = best.predictions["upadhyay2026-ln"]
    assert said.eer is not None
    assert ranking.EXTRAPOLATES in said.flags
    assert said.interval is None


def test_one_pair_without_a_prediction_orders_all_by_matched_cka(beyond):
    assert any(p.predicted_eer is None for p in beyond.pairs)
    matched = [p.cka.matched for p in beyond.pairs]
    assert beyond.ordered_by == "cka_matched"
    assert matched == sorted(matched, reverse=True)
    assert any("ordered by" in note for note in beyond.notes)


def test_id_mismatch_is_measured_at_the_cards_samples_per_person(tmp_path):
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(20), (40, 1)), axis=1)
    x, y = population(40, shared=IN_RANGE, rows=20)
    for side, samples in (("face", x), ("voice", y)):
        for name, rows in (("few", 8), ("many", 20)):
            (tmp_path / name / f"{side}s").mkdir(parents=True)
            np.savez(
                tmp_path / name / f"{side}s" / "e.npz",
                embeddings=np.stack([samples[i, order[i, :rows]] for i in range(40)]).reshape(40 * rows, -1),
                labels=np.repeat(people(40), rows),
            )
    few, many = (encsel.rank(tmp_path / name, regression=LN) for name in ("few", "many"))
    assert few.encoders[0].intrinsic_dimension == pytest.approx(many.encoders[0].intrinsic_dimension, rel=0.05)
    assert ranking.ROWS_UNLIKE in many.pairs[0].flags
    assert ranking.ROWS_UNLIKE not in few.pairs[0].flags


def test_another_number_of_people_than_the_cards_is_said_where_id_mismatch_enters(in_range):
    assert ranking.PEOPLE_UNLIKE in in_range.pairs[0].predictions["upadhyay2026"].flags
    assert ranking.PEOPLE_UNLIKE not in in_range.pairs[0].predictions["upadhyay2026-ln"].flags


def test_shuffled_people_are_flagged_as_chance(tmp_path):
    report = encsel.rank(write_population(tmp_path, 60, shared=0.0, faces=1, voices=1, seed=3))
    (pair,) = report.pairs
    assert pair.cka_null.p > 0.05
    assert pair.prediction.null.p > 0.05
    assert pair.prediction.null.p_familywise == pytest.approx(pair.prediction.null.p)
    assert ranking.AT_CHANCE in pair.flags


def test_shared_structure_is_not_flagged_as_chance(in_range):
    assert in_range.pairs[0].cka_null.p <= 0.01
    assert in_range.pairs[0].prediction.null.p <= 0.01
    assert ranking.AT_CHANCE not in in_range.pairs[0].flags


def test_under_30_people_is_an_error_unless_lowered_and_then_predicts_nothing(tmp_path):
    write_population(tmp_path, 16, shared=IN_RANGE)
    with pytest.raises(BadCalibration, match=r"16 identities .* at least 30 are needed") as caught:
        encsel.rank(tmp_path)
    assert caught.value.exit_code == 3
    report = encsel.rank(tmp_path, min_identities=10)
    assert all(p.predicted_eer is None and "16 people" in p.reason for p in report.pairs)
    assert all(ranking.FEW_PEOPLE in p.flags for p in report.pairs)
    assert report.ordered_by == "cka_matched"


def test_one_person_is_an_error_that_says_so_however_low_the_minimum(tmp_path):
    write_population(tmp_path, 1)
    with pytest.raises(BadCalibration, match="CKA needs at least 4"):
        encsel.rank(tmp_path, min_identities=1)


def test_all_pairs_are_compared_on_the_people_every_encoder_has(tmp_path):
    write_population(tmp_path, 60, shared=IN_RANGE)
    path = tmp_path / "faces" / "face1.npz"
    with np.load(path) as archive:
        kept = ~np.isin(archive["labels"], people(60)[:20])
        arrays = {name: archive[name][kept] for name in archive.files}
    np.savez(path, **arrays)
    assert encsel.rank(tmp_path).n_identities == 40


def test_people_are_joined_by_identity_and_never_by_row(tmp_path, in_range, in_range_set):
    rng = np.random.default_rng(1)
    for path in in_range_set.rglob("*.npz"):
        with np.load(path) as archive:
            order = rng.permutation(len(archive["labels"]))
            (tmp_path / path.parent.name).mkdir(exist_ok=True)
            np.savez(tmp_path / path.parent.name / path.name, **{k: archive[k][order] for k in archive.files})
    shuffled = encsel.rank(tmp_path)
    for one, two in zip(shuffled.pairs, in_range.pairs, strict=True):
        assert (one.face, one.voice) == (two.face, two.voice)
        assert one.cka.matched == pytest.approx(two.cka.matched, rel=1e-9)
        assert one.predicted_eer == pytest.approx(two.predicted_eer, rel=1e-9)


def test_same_input_gives_the_same_json_byte_for_byte(in_range, in_range_set):
    assert as_json(encsel.rank(in_range_set)) == as_json(in_range)


def test_signature_changes_with_data_seed_and_card(tmp_path, in_range_set, in_range):
    other = write_population(tmp_path, 60, shared=IN_RANGE, seed=1)
    one_pair = {"faces": "face0", "voices": "voice0"}
    ids = {
        encsel.rank(in_range_set, **one_pair).signature["id"],
        encsel.rank(other, **one_pair).signature["id"],
        encsel.rank(in_range_set, seed=1, **one_pair).signature["id"],
        encsel.rank(in_range_set, regression="upadhyay2026", **one_pair).signature["id"],
        encsel.rank(in_range_set, identities=50, **one_pair).signature["id"],
        in_range.signature["id"],
    }
    assert len(ids) == 6


def test_encoders_can_be_chosen_by_name_and_a_wrong_name_shows_the_nearest(in_range_set):
    report = encsel.rank(in_range_set, faces=["face1"], voices=["voice0"])
    assert [(p.face, p.voice) for p in report.pairs] == [("face1", "voice0")]
    with pytest.raises(UsageError, match="Did you mean 'face1'"):
        encsel.rank(in_range_set, faces=["facel"])


def test_a_file_of_embeddings_can_be_an_encoder(in_range_set, tmp_path):
    loose = tmp_path / "loose.npz"
    loose.write_bytes((in_range_set / "faces" / "face0.npz").read_bytes())
    report = encsel.rank(in_range_set, faces=["face1", str(loose)], voices=["voice0"])
    assert {p.face for p in report.pairs} == {"face1", "loose"}


def test_a_card_on_features_that_rank_does_not_measure_is_refused(tmp_path, in_range_set):
    feature = dataclasses.replace(
        load_geometric_card("upadhyay2026-ln").features[0], name="gw_distance", transform="identity"
    )
    path = edited_card(tmp_path, "upadhyay2026-ln", features=(feature,), form="linear")
    with pytest.raises(UsageError, match="gw_distance"):
        encsel.rank(in_range_set, regression=path)


def test_a_card_of_mixed_sizes_is_refused(tmp_path, in_range_set):
    feature = dataclasses.replace(
        load_geometric_card("upadhyay2026-ln").features[0], n_identities=None, reason="pooled"
    )
    with pytest.raises(UsageError, match="different numbers of people"):
        encsel.rank(in_range_set, regression=edited_card(tmp_path, "upadhyay2026-ln", features=(feature,)))


def test_a_card_with_another_metric_version_is_refused(tmp_path, in_range_set):
    feature = dataclasses.replace(load_geometric_card("upadhyay2026-ln").features[0], metric_version=99)
    with pytest.raises(UsageError, match="99"):
        encsel.rank(in_range_set, regression=edited_card(tmp_path, "upadhyay2026-ln", features=(feature,)))


def test_an_unknown_card_shows_the_nearest(in_range_set):
    with pytest.raises(UsageError, match="upadhyay2026"):
        encsel.rank(in_range_set, regression="upadhyay2025")


def test_matched_cka_of_a_card_is_at_that_cards_number_of_people(tmp_path, in_range_set, in_range):
    feature = dataclasses.replace(load_geometric_card("upadhyay2026-ln").features[0], n_identities=100)
    report = encsel.rank(in_range_set, regression=edited_card(tmp_path, "upadhyay2026-ln", features=(feature,)))
    assert report.matched_to == 100
    best = {(p.face, p.voice): p.cka.matched for p in report.pairs}
    assert all(best[p.face, p.voice] > p.cka.matched for p in in_range.pairs)


def test_too_few_samples_for_intrinsic_dimension_leaves_the_ln_card_working(tmp_path):
    for side, samples in zip(("face", "voice"), population(20, shared=IN_RANGE, rows=1, dims=(24, 16)), strict=True):
        (tmp_path / f"{side}s").mkdir()
        np.savez(tmp_path / f"{side}s" / "e.npz", embeddings=samples[:, 0], labels=people(20))
    (pair,) = encsel.rank(tmp_path, min_identities=10).pairs
    assert pair.id_mismatch is None
    assert pair.predictions["upadhyay2026"].eer is None
    assert "intrinsic dimension" in pair.predictions["upadhyay2026"].reason
    assert pair.predictions["upadhyay2026-ln"].eer is not None or pair.predictions["upadhyay2026-ln"].reason


def test_json_of_every_report_is_strict(beyond):
    json.loads(as_json(beyond), parse_constant=lambda constant: pytest.fail(f"{constant} in JSON"))


def test_too_many_people_are_refused_before_anything_is_embedded(tmp_path, monkeypatch):
    monkeypatch.setattr(ranking, "MAX_IDENTITIES", 35)
    data = write_population(tmp_path / "set", 36, faces=1, voices=1)
    with pytest.raises(BadCalibration, match=r"at most 35 are ranked\. Choose some with --identities"):
        ranking.rank(data, cache=None)
    assert ranking.rank(data, cache=None, identities=35).n_identities == 35
