from __future__ import annotations

import dataclasses
import json
from statistics import NormalDist

import numpy as np
import pytest

from encsel.errors import UsageError
from encsel.matching.crossval import CrossValidated
from encsel.prediction.card import (
    COVERAGES,
    SIZE_TERMS,
    SPREAD_TERMS,
    CalibratedCard,
    Shares,
    distances,
    estimate,
    expected_from_cka,
    load_calibrated,
    place,
    predicted_eer,
    shipped_calibrated,
    size_terms,
    spread,
    tail,
)
from encsel.prediction.evidence import FEATURES, Evidence
from encsel.prediction.order import SURE, chance_of_best, chance_of_order, covariance, drawn_distances
from encsel.storage import documents as cardfile

SCORERS = {"encsel-calibrated": "reference", "encsel-likelihood": "likelihood"}


def evidence(error: float = 0.1, **values: float) -> Evidence:
    middle = {"d_reference": 1.0, "d_likelihood": 1.0, "correlations": 2.0}
    found = {name: values.get(name, middle.get(name, 0.5)) for name in FEATURES}
    return Evidence(found, dict.fromkeys(SCORERS.values(), error), CrossValidated({}, np.zeros(12), 70, 6))


@pytest.fixture(params=SCORERS)
def card(request) -> CalibratedCard:
    return load_calibrated(request.param)


def test_both_cards_ship_and_say_their_scorer():
    assert set(shipped_calibrated()) == set(SCORERS)
    for name, scorer in SCORERS.items():
        assert load_calibrated(name).scorer == scorer


def test_a_card_survives_its_file(card, tmp_path):
    cardfile.save(card, tmp_path / "copy.json")
    assert load_calibrated(tmp_path / "copy.json") == card


def test_an_edited_card_is_refused(card, tmp_path):
    content = json.loads(cardfile.text_of(card))
    content["training_mean"] += 0.01
    (tmp_path / "edited.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="checksum"):
        load_calibrated(tmp_path / "edited.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": ("nothing",)}, "does not measure"),
        ({"coefficients": ()}, "do not fit its features"),
        ({"spread": ()}, "do not fit its sizes"),
        ({"tails": ((30.0,),)}, "do not fit the coverages"),
        ({"training_mean": 0.6}, "no better than chance"),
        ({"target": {"n_train_identities": 999}}, "lacks the training people or the samples"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(card, tmp_path, changes, words):
    cardfile.save(dataclasses.replace(card, **changes), tmp_path / "bad.json")
    with pytest.raises(UsageError, match=words):
        load_calibrated(tmp_path / "bad.json")


def test_a_card_at_its_own_level_is_itself_and_at_a_known_one_holds_its_numbers(card):
    assert card.at(999, 20) is card
    for level in card.levels:
        at = card.at(level.n_train_identities, level.probe_samples)
        assert (at.coefficients, at.tails, at.shares) == (level.coefficients, level.tails, level.shares)
        assert (at.n_train_identities, at.probe_samples) == (level.n_train_identities, level.probe_samples)
        assert at.sha256 != card.sha256


def test_a_card_of_another_level_still_knows_its_own(card):
    again = card.at(300, 20).at(999, 20)
    assert (again.coefficients, again.target) == (card.coefficients, card.target)


def test_more_people_to_train_on_and_more_samples_at_test_predict_a_lower_eer(card):
    found = [estimate(card.at(n, 20), evidence(), 70, 20) for n in (100, 200, 300, 999, 2000, 3000)]
    assert [e.eer for e in found] == sorted((e.eer for e in found), reverse=True)
    assert found[2].eer < found[1].eer < found[0].eer
    for n in (100, 999, 3000):
        assert estimate(card.at(n, 1), evidence(), 70, 20).eer > estimate(card.at(n, 20), evidence(), 70, 20).eer


def test_between_two_levels_the_prediction_is_between_theirs(card):
    low, middle, high = (estimate(card.at(n, 20), evidence(), 70, 20) for n in (300, 547, 999))
    assert middle.distance == pytest.approx((low.distance + high.distance) / 2, abs=0.002)


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ((99, 20), "--train-people is 99.*100 to 3000"),
        ((3001, 1), "100 to 3000"),
        ((999, 5), "--probe-samples is 5.*1 or 20"),
    ],
)
def test_a_level_that_was_not_simulated_is_refused(card, level, words):
    with pytest.raises(UsageError, match=words):
        card.at(*level)


def test_a_card_of_one_level_predicts_for_no_other(card):
    alone = dataclasses.replace(card, levels=())
    with pytest.raises(UsageError, match="999 people only"):
        alone.at(300, 20)


def test_an_unknown_card_shows_the_nearest():
    with pytest.raises(UsageError, match="encsel-calibrated"):
        load_calibrated("encsel-calibrate")


def test_better_evidence_is_a_lower_predicted_eer(card):
    low = evidence(d_reference=0.3, d_likelihood=0.3, correlations=0.5, root_cka=0.2, shared=0.3)
    high = evidence(d_reference=1.6, d_likelihood=2.0, correlations=4.0, root_cka=0.8, shared=2.0)
    for n in (30, 70, 200, 1000):
        assert estimate(card, high, n, 8).eer < estimate(card, low, n, 8).eer - 0.05


def test_coefficients_are_smooth_in_people_and_samples(card):
    values = np.array([evidence().values[name] for name in FEATURES])
    sizes = np.unique(np.geomspace(30, 2000, 60).astype(int))
    eers = [float(predicted_eer(distances(card, values, int(n), 8))) for n in sizes]
    assert np.abs(np.diff(eers)).max() < 0.015


def test_beyond_its_sizes_a_card_takes_the_nearest(card):
    values = np.array([evidence().values[name] for name in FEATURES])
    assert distances(card, values, 20, 1) == distances(card, values, 30, 2)
    assert distances(card, values, 9000, 400) == distances(card, values, 2000, 50)


def test_the_interval_holds_the_prediction_and_widens_with_coverage_and_own_error(card):
    narrow, usual, wide = (estimate(card, evidence(), 70, 8, coverage=c) for c in (0.5, 0.9, 0.99))
    widths = [e.interval[1] - e.interval[0] for e in (narrow, usual, wide)]
    assert widths == sorted(widths)
    assert usual.interval[0] < usual.eer < usual.interval[1] <= 0.5
    assert estimate(card, evidence(error=0.3), 70, 8).sd > usual.sd
    assert spread(card, 200, 8, 1.0) < spread(card, 30, 8, 1.0)


@pytest.mark.parametrize("coverage", COVERAGES)
def test_the_interval_reaches_as_far_as_the_tail_of_held_out_errors(card, coverage):
    e = estimate(card, evidence(), 70, 8, coverage=coverage)
    half = tail(card, coverage, 70) * e.sd
    assert e.interval == pytest.approx([float(predicted_eer(e.distance + side * half)) for side in (1, -1)])


@pytest.mark.parametrize("coverage", [0.3, 0.999])
def test_a_coverage_without_errors_is_refused(card, coverage):
    with pytest.raises(UsageError, match=r"such as 0\.9"):
        tail(card, coverage, 70)


def test_prediction_is_never_worse_than_chance(card):
    bad = evidence(d_reference=-1.0, d_likelihood=-1.0, correlations=0.0, root_cka=0.0, shared=0.0)
    assert estimate(card, bad, 30, 4).eer <= 0.5


def test_pairs_with_a_common_encoder_are_told_apart_from_a_smaller_gap(card):
    distance, sd = np.array([1.2, 1.0]), np.array([0.15, 0.15])
    apart = chance_of_order(card, distance, sd, ["a", "b"], ["x", "y"])[0, 1]
    sharing = chance_of_order(card, distance, sd, ["a", "a"], ["x", "y"])[0, 1]
    assert 0.5 < apart < sharing < 1


def test_chances_of_order_are_complementary_and_the_covariance_is_one(card):
    rng = np.random.default_rng(0)
    faces, voices = np.repeat(["a", "b", "c"], 3), np.tile(["x", "y", "z"], 3)
    distance, sd = rng.normal(1, 0.2, 9), rng.uniform(0.1, 0.2, 9)
    chance = chance_of_order(card, distance, sd, faces, voices)
    assert chance + chance.T == pytest.approx(np.ones((9, 9)))
    c = covariance(card, sd, faces, voices)
    assert np.linalg.eigvalsh(c).min() > 0
    assert np.diag(c) == pytest.approx((sd * card.order_scale) ** 2)


def best_of(card: CalibratedCard, distance: list[float]) -> np.ndarray:
    """Chances of pairs without common encoders, all with a sd of 0.1."""
    names = [f"encoder {i}" for i in range(len(distance))]
    return chance_of_best(drawn_distances(card, np.array(distance), np.full(len(names), 0.1), names, names, seed=0))


def test_chance_of_best_sums_to_one_and_follows_the_distance(card):
    best = best_of(card, [2.0, 1.0, 1.0])
    assert best.sum() == pytest.approx(1)
    assert best[0] > 0.99
    assert (best == best_of(card, [2.0, 1.0, 1.0])).all()
    assert best_of(card, [0.0, 0.0]) == pytest.approx([0.5, 0.5], abs=0.02)


def test_chance_of_best_of_two_is_that_of_a_normal_error(card):
    card = dataclasses.replace(card, best_scale=2.0)
    best, _ = best_of(card, [1.1, 1.0])
    sd = 2.0 * 0.1 * np.sqrt(2 * (1 - card.shares.everyone))
    assert best == pytest.approx(NormalDist(sigma=sd).cdf(0.1), abs=0.015)  # of 20,000 draws: sd 0.0035


def test_place_among_simulated_pairs_is_a_share_that_grows(card):
    values = [place(card, "root_cka", x, 70) for x in (-1.0, 0.3, 0.5, 0.7, 2.0)]
    assert values == sorted(values)
    assert values[0] == 0
    assert values[-1] == 1


def test_evidence_beyond_all_simulated_is_said(card):
    assert estimate(card, evidence(), 70, 8).outside == ()
    (sentence,) = estimate(card, evidence(d_reference=9.0), 70, 8).outside
    assert "above all simulated pairs" in sentence


def test_more_cka_leads_one_to_expect_more(card):
    low, high = (expected_from_cka(card, x, 70, 8) for x in (0.2, 0.7))
    assert high[0] > low[0]
    assert low[1] > 0


def test_size_terms_are_zero_but_for_the_constant_at_100_people_with_20_samples():
    assert size_terms(100.0, 20.0) == pytest.approx(np.eye(len(SIZE_TERMS))[0])


def test_a_card_states_what_was_tested_on_kinds_kept_out(card):
    everyone = {row.n_identities: row for row in card.held_out if row.kind == "all"}
    assert {30, 50, 70, 100, 200} <= set(everyone)
    for row in everyone.values():
        # Of fewer sets a share of intervals says little.
        if row.n_sets >= 50:
            assert 0.87 <= row.coverage <= 0.97, row
            assert row.rmse < (0.9 if card.scorer == "reference" else 0.95) * row.rivals["training mean"]
    # Small gaps are rarely called an order, and of new kinds a little less often rightly than promised.
    assert sum(b.right * b.n for b in card.gaps) >= SURE * sum(b.n for b in card.gaps)
    assert all(b.right >= SURE - 0.05 for b in card.gaps if b.n >= 200)
    assert all(abs(p - was) <= 0.1 for p, was, n in card.p_best if n >= 100)
    assert len(card.spread) == len(SPREAD_TERMS)
    assert [len(row) for row in card.tails] == [1 + len(COVERAGES)] * len(card.tails)
    assert isinstance(card.shares, Shares)
