from __future__ import annotations

import pytest

from encsel.errors import UsageError
from encsel.prediction.card import load_calibrated
from encsel.prediction.plan import plan


@pytest.fixture(scope="module")
def card():
    return load_calibrated("encsel-calibrated")


def test_more_people_give_narrower_intervals_and_tell_smaller_differences(card):
    # Above 300 people what is left is the difference between kinds of population, which people do not lessen.
    by_people = [r for r in plan(card).grid if r.samples_per_identity == 8 and r.n_identities <= 300]
    for few, many in zip(by_people, by_people[2:], strict=False):
        assert many.half_width < few.half_width
        assert many.difference < few.difference
        assert many.difference_sharing < many.difference


def test_more_samples_help(card):
    at_70 = [r.half_width for r in plan(card).grid if r.n_identities == 70]
    assert at_70 == sorted(at_70, reverse=True)


def test_the_fewest_people_for_a_wish_grow_with_the_wish(card):
    loose, tight = plan(card, width=0.12).enough, plan(card, width=0.08).enough
    assert loose[8] < tight[8]
    assert plan(card, width=0.0001).enough[8] is None
    both = plan(card, width=0.12, difference=0.03).enough
    assert both[20] == max(loose[20], plan(card, difference=0.03).enough[20])


def test_a_set_at_hand_gets_its_own_reach(card):
    made = plan(card, own=(70, 8))
    (same,) = [r for r in made.grid if (r.n_identities, r.samples_per_identity) == (70, 8)]
    assert made.own == same


def test_a_set_too_small_reaches_nothing(card):
    assert plan(card, own=(29, 8)).own is None


@pytest.mark.parametrize("eer", [0.001, 0.49])
def test_an_eer_next_to_perfect_or_to_chance_is_not_planned_for(card, eer):
    with pytest.raises(UsageError, match=r"0\.02 to 0\.48"):
        plan(card, eer=eer)


def test_a_wider_coverage_is_a_wider_interval(card):
    assert plan(card, coverage=0.95).grid[0].half_width > plan(card, coverage=0.8).grid[0].half_width


@pytest.mark.parametrize("wish", [{"width": 0.7}, {"difference": 0.0}, {"eer": -0.1}])
def test_a_wish_that_makes_no_sense_is_refused(card, wish):
    with pytest.raises(UsageError, match=r"between 0 and 0\.5"):
        plan(card, **wish)
