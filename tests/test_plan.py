from __future__ import annotations

import pytest
from toy import write_population

from encsel.errors import UsageError
from encsel.prediction.plan import plan
from encsel.prediction.plan import plan as plan_for
from encsel.reports import plan as _  # noqa: F401 - registers how a plan is shown
from encsel.storage.result import render


@pytest.fixture(scope="module")
def plain():
    return plan()


def test_more_people_give_narrower_intervals_and_tell_smaller_differences(plain):
    # Above 300 people what is left is the difference between kinds of population, which people do not lessen.
    by_people = [r for r in plain.grid if r.samples_per_identity == 8 and r.n_identities <= 300]
    for few, many in zip(by_people, by_people[2:], strict=False):
        assert many.half_width < few.half_width
        assert many.difference < few.difference
        assert many.difference_sharing < many.difference


def test_more_samples_help(plain):
    at_70 = [r.half_width for r in plain.grid if r.n_identities == 70]
    assert at_70 == sorted(at_70, reverse=True)


def test_the_fewest_people_for_a_wish_grow_with_the_wish():
    def plan(**options):
        return plan_for(card="encsel-calibrated", **options)

    loose, tight = plan(width=0.12).enough, plan(width=0.08).enough
    assert loose["8"] < tight["8"]
    assert plan(width=0.0001).enough["8"] is None
    both = plan(width=0.12, difference=0.05).enough
    assert both["20"] == max(loose["20"], plan(difference=0.05).enough["20"])


def test_a_set_at_hand_gets_its_own_reach(tmp_path):
    made = plan(write_population(tmp_path, 70, faces=1, voices=1))
    (same,) = [r for r in made.grid if (r.n_identities, r.samples_per_identity) == (70, 4)]
    assert made.own == same
    assert (made.set.n_identities, made.set.samples_per_identity, made.reason) == (70, 4, None)


def test_a_set_too_small_reaches_nothing_and_says_why(tmp_path):
    made = plan(write_population(tmp_path, 29, faces=1, voices=1))
    assert made.own is None
    assert made.set.n_identities == 29
    assert "fewer than 30 people" in made.reason


@pytest.mark.parametrize("eer", [0.001, 0.49])
def test_an_eer_next_to_perfect_or_to_chance_is_not_planned_for(eer):
    with pytest.raises(UsageError, match=r"0\.02 to 0\.48"):
        plan(eer=eer)


def test_a_plan_for_single_samples_is_of_another_level():
    made = plan(train_people=300, probe_samples=1)
    assert (made.n_train_identities, made.n_probe_samples) == (300, 1)
    assert made.eer > plan().eer
    assert "300 people, one photo against one clip" in str(made)


def test_a_wider_coverage_is_a_wider_interval():
    assert plan(coverage=0.95).grid[0].half_width > plan(coverage=0.8).grid[0].half_width


@pytest.mark.parametrize("wish", [{"width": 0.7}, {"difference": 0.0}, {"eer": -0.1}])
def test_a_wish_that_makes_no_sense_is_refused(wish):
    with pytest.raises(UsageError, match=r"between 0 and 0\.5"):
        plan(**wish)


@pytest.mark.parametrize("card", ["encsel-likelihood", "encsel-calibrated"])
@pytest.mark.parametrize("eer", [0.1, 0.29, 0.45])
def test_no_plan_resolves_less_with_more_people_or_samples(card, eer):
    found = plan(card=card, eer=eer).grid
    for one in found:
        for other in found:
            if one.n_identities <= other.n_identities and one.samples_per_identity <= other.samples_per_identity:
                assert other.half_width <= one.half_width
                assert other.difference <= one.difference
                assert other.difference_sharing <= one.difference_sharing


def test_the_answer_for_the_set_at_hand_stands_first(tmp_path):
    root = write_population(tmp_path / "set", 40, faces=1, voices=1)
    text = render(plan(root, width=0.3), "table")
    assert text.startswith("This set: 40 people")
    assert text.index("Fewest people") < text.index("Half-width")
