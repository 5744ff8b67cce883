"""What to do with a set of pairs: the shortlist, places and sentences."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from encsel.matching.sensitivity import distance_of_eer
from encsel.prediction.card import Estimate, load_calibrated
from encsel.prediction.decision import decide, range_of, shortlist_of, standings
from encsel.prediction.order import SURE
from encsel.prediction.plan import people_to_tell, reach
from encsel.prediction.predict import Measured, Shuffling
from encsel.ranking.flags import CONTRADICTED
from encsel.ranking.pairs import _is_contradicted
from encsel.ranking.rank import _decision

FOUR = [("a", "x"), ("b", "x"), ("a", "y"), ("b", "y")]
EERS = [0.24, 0.26, 0.31, 0.35]
INTERVALS = [(e - 0.04, e + 0.05) for e in EERS]
TOLD = [0.01] * 4
SEX = Shuffling("sex", np.arange(70) % 2, compared=True)


def said(p_best, p=TOLD, names=FOUR, **options) -> str:
    n = len(names)
    found = decide(names, EERS[:n], INTERVALS[:n], p_best, p, what="predicted", n_people=70, **options)
    assert (found.chance is None) == (not found.shortlist)
    return found.text


@pytest.mark.parametrize(
    ("p_best", "expected"),
    [([0.95, 0.05], [0]), ([0.5, 0.45, 0.05], [0, 1]), ([0.2, 0.7, 0.1], [1, 0]), ([1.0], [0]), ([0.9, 0.1], [0])],
)
def test_a_shortlist_is_the_fewest_pairs_that_hold_the_best(p_best, expected):
    assert shortlist_of(p_best) == expected


def test_places_chances_and_losses_of_clear_and_of_equal_pairs():
    rng = np.random.default_rng(0)
    drawn = np.array([3.0, 1.0, 1.0]) + 0.1 * rng.normal(size=(20_000, 3))
    chance = np.array([[0.5, 1, 1], [0, 0.5, 0.5], [0, 0.5, 0.5]])
    first, second, third = standings(drawn, chance)
    assert (first.places, second.places, third.places) == ((1, 1), (2, 3), (2, 3))
    assert (first.p_best, first.expected_loss) == (1, 0)
    assert second.expected_loss == pytest.approx(third.expected_loss, abs=0.002)
    assert second.expected_loss > 0.2


def test_a_place_is_sure_from_a_chance_of_nine_in_ten():
    drawn = np.zeros((10, 2))
    for chance, places in ((SURE, (1, 1)), (0.89, (1, 2))):
        found = standings(drawn, np.array([[0.5, chance], [1 - chance, 0.5]]))
        assert found[0].places == places


def test_a_clear_winner_is_named_with_its_interval():
    assert said([0.95, 0.03, 0.01, 0.01]) == (
        "Take a with x (predicted EER 0.24, interval 0.20 to 0.29). "
        "The other 3 are worse than it with a chance of 0.95."
    )


def test_a_tie_is_named_by_what_differs_and_says_what_would_tell():
    text = said([0.5, 0.44, 0.05, 0.01], people_to_tell=lambda i, j: 120)
    assert text.startswith(
        "Take a or b with x (predicted EER 0.24 to 0.26). The other 2 are worse than the best of these"
    )
    assert text.endswith("To separate the two: about 120 people.")
    assert said([0.5, 0.5, 0, 0], people_to_tell=lambda i, j: None).endswith("they are too alike.")
    assert "Take a with x or b with y (" in said([0.5, 0.05, 0.01, 0.44])


def test_many_pairs_that_may_be_the_best_are_counted():
    names = [(f"f{i}", f"v{j}") for i in range(4) for j in range(3)]
    found = decide(
        names, [0.3] * 12, [None] * 12, [1 / 12] * 12, [0.01] * 12, what="measured", n_people=40,
        people_to_tell=lambda i, j: 900,
    )  # fmt: skip
    assert found.text.startswith("11 of the 12 pairs may be the best, and their order is not known; f0 x v0 is as good")
    assert "first two: about 900 people" in found.text


def test_nothing_is_recommended_at_chance():
    assert said([0.9, 0.1, 0, 0], [0.3, 0.2, 0.5, 0.9]).startswith(
        "Each of the 4 pairs may be at chance (p 0.20 or more)"
    )
    within = said([1.0], [0.61], FOUR[:1], shuffling=SEX)
    assert within.startswith("a x x may tell no more than the sex (p 0.61; knowing that alone gives EER 0.33)")
    found = decide(FOUR, EERS, INTERVALS, [1, 0, 0, 0], [0.3] * 4, what="predicted", n_people=70)
    assert found.shortlist == ()


def test_a_pair_of_the_shortlist_that_is_not_above_chance_is_named():
    text = said([0.5, 0.44, 0.05, 0.01], [0.01, 0.2, 0.01, 0.01])
    assert "b with x is not above chance on these people." in text


def test_more_people_tell_smaller_gaps_apart():
    card = load_calibrated("encsel-calibrated")
    wide, narrow = (people_to_tell(card, (0.25, 0.25 + gap), 20, sharing=True) for gap in (0.12, 0.06))
    assert wide is not None
    assert narrow is None or narrow > wide
    assert reach(card, wide, 20, 0.31, 0.9).difference_sharing <= 0.12
    assert people_to_tell(card, (0.3, 0.3001), 20, sharing=True) is None
    assert distance_of_eer(0.25) > distance_of_eer(0.3)


def test_nothing_is_recommended_where_measured_errors_are_far_below_predicted_ones():
    card = load_calibrated("encsel-likelihood")

    def pair(face: str, eer: float, *flags: str) -> SimpleNamespace:
        cross_validated = SimpleNamespace(eer=eer)
        return SimpleNamespace(
            face=face, voice="v", p_best=0.5, p_familywise=0.01, flags=flags, cross_validated=cross_validated
        )

    estimates = {card.name: Estimate(0.1, (0.05, 0.2), 2.0, 0.1)}
    details = {(face, "v"): SimpleNamespace(estimates=estimates, samples=8.0) for face in "ab"}
    prepared = SimpleNamespace(people=range(1249), shuffling=Shuffling())
    pairs = [pair("a", 0.09), pair("b", 0.0004, CONTRADICTED)]
    decision = _decision(pairs, details, card, card.name, prepared)
    assert decision.shortlist == ()
    assert decision.text == (
        "No pair can be recommended: for 1 of 2 pairs the EER measured on these people is far below the predicted one; "
        "no population that predictions were fitted on has such strong links. The measured EER is lowest for b x v "
        "(under 0.001). Run `encsel validate`, and take what it measures."
    )
    assert _decision([pairs[0], pair("b", 0.09)], details, card, card.name, prepared).shortlist


@pytest.mark.parametrize(
    ("measured", "outside", "level", "expected"),
    [
        (0.01, ("d_reference 3 is above all simulated pairs",), (999, 20), True),
        (0.01, (), (999, 20), False),
        (0.1, ("d_reference 3 is above all simulated pairs",), (999, 20), False),
        (0.01, ("d_reference 3 is above all simulated pairs",), (100, 20), False),
        (0.01, ("d_reference 3 is above all simulated pairs",), (999, 1), False),
    ],
)
def test_predictions_are_contradicted_by_far_lower_errors_of_the_same_matcher(measured, outside, level, expected):
    card = load_calibrated("encsel-likelihood").at(*level)
    prediction = SimpleNamespace(
        estimates={card.name: Estimate(0.16, (0.1, 0.2), 2.0, 0.2, outside)},
        measured={"likelihood": Measured("likelihood", measured, 1.0, (measured / 2, 2 * measured))},
    )
    assert _is_contradicted(card, prediction, 1249) is expected


def test_rates_below_half_a_percent_are_in_thousandths():
    assert range_of([0.0004, 0.3]) == "under 0.001 to 0.30"
    assert range_of([0.0, 1e-6]) == "under 0.001"
    assert range_of([0.002], (0.001, 0.006)) == "0.002, interval 0.001 to 0.01"


def test_nothing_is_recommended_if_every_measured_interval_reaches_chance():
    def text(*intervals: tuple[float, float]) -> str:
        names = FOUR[: len(intervals)]
        n = len(names)
        return decide(names, [0.48] * n, intervals, [1 / n] * n, [None] * n, what="measured", n_people=70).text

    assert text((0.44, 0.53)).startswith(
        f"{' x '.join(FOUR[0])} may be at chance (measured EER 0.48; its interval reaches 0.5): these 70 people"
    )
    assert text((0.44, 0.5), (0.45, 0.51)).startswith(
        "Each of the 2 pairs may be at chance (measured EER 0.48; all intervals reach 0.5): these 70 people"
    )
    assert text((0.44, 0.49), (0.45, 0.51)).endswith("Whether that is above chance was not measured.")
