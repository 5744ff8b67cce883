"""The decision on a set of pairs: a shortlist that holds the best, the places each pair may have, and a sentence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from encsel.prediction.card import Values, predicted_eer
from encsel.prediction.order import SURE, chance_of_best
from encsel.prediction.predict import ALPHA, CHANCE, Shuffling

SHORTLIST = 0.9
"""Chance with which the shortlist holds the best pair."""
MOST_NAMED = 6
"""Largest number of pairs of a shortlist that a sentence names one by one."""

PairName = tuple[str, str]
"""Face and voice encoder."""


@dataclass(frozen=True)
class Standing:
    """The standing of one pair among the others.

    Attributes:
        places: first and last place it may have; another pair counts as better, or worse, from a chance of 0.9.
        p_best: chance that it is the best.
        expected_loss: EER that one loses on average by taking it instead of the best.
    """

    places: tuple[int, int]
    p_best: float
    expected_loss: float


@dataclass(frozen=True)
class Decision:
    """A recommendation.

    Attributes:
        shortlist: fewest (face, voice) pairs that hold the best with a chance of 0.9, likeliest first; empty if none
            can be recommended.
        chance: chance that the shortlist holds the best pair.
        text: what to do, in one to three sentences.
    """

    shortlist: tuple[PairName, ...]
    chance: float | None
    text: str


def standings(drawn: Values, chance: Values) -> list[Standing]:
    """Standing of each pair.

    Args:
        drawn: (draws, pairs) d', of `drawn_distances`.
        chance: (pairs, pairs) chance that the row's pair is better than the column's.
    """
    n = drawn.shape[1]
    p_best = chance_of_best(drawn)
    eer = predicted_eer(drawn)
    loss = (eer - eer.min(axis=1, keepdims=True)).mean(axis=0)
    surely = chance >= SURE
    np.fill_diagonal(surely, False)
    return [
        Standing((1 + int(surely[:, i].sum()), n - int(surely[i].sum())), float(p_best[i]), float(loss[i]))
        for i in range(n)
    ]


def shortlist_of(p_best: Sequence[float]) -> list[int]:
    """The fewest pairs, likeliest first, that hold the best with a chance of SHORTLIST."""
    order = np.argsort(-np.asarray(p_best), kind="stable")
    needed = int(np.searchsorted(np.cumsum(np.asarray(p_best)[order]), SHORTLIST - 1e-9)) + 1
    return [int(i) for i in order[:needed]]


def undecided(reason: str) -> Decision:
    """No pair can be recommended."""
    return Decision((), None, reason)


def decide(
    names: Sequence[PairName],
    eers: Sequence[float],
    intervals: Sequence[tuple[float, float] | None],
    p_best: Sequence[float],
    p: Sequence[float | None],
    *,
    what: str,
    n_people: int,
    shuffling: Shuffling | None = None,
    people_to_tell: Callable[[int, int], int | None] | None = None,
) -> Decision:
    """The decision on pairs with an EER, best first.

    Args:
        p_best: chance of each to be the best.
        p: family-wise p-value of each against shuffled people; None where it was not measured.
        what: "predicted" or "measured".
        shuffling: groups within which people were shuffled.
        people_to_tell: people needed to separate two pairs, by index; returns None beyond what can be planned.
    """
    chosen = shortlist_of(p_best)
    told = [i for i in range(len(names)) if (value := p[i]) is not None and value <= ALPHA]
    subject = " x ".join(names[0]) if len(names) == 1 else f"Each of the {len(names)} pairs"
    if all(value is None for value in p) and all(interval and interval[1] >= CHANCE for interval in intervals):
        reaches = "its interval reaches" if len(names) == 1 else "all intervals reach"
        return undecided(
            f"{subject} may be at chance ({what} EER {range_of(eers)}; {reaches} {CHANCE:g}): these {n_people} people "
            "provide no evidence for any pair. A weak link may need more people to show."
        )
    if not told and any(value is not None for value in p):
        least = min(value for value in p if value is not None)
        beyond, alone = "may be at chance", ""
        if shuffling is not None and shuffling.within:
            beyond = f"may tell no more than the {shuffling.within}"
            alone = f"; knowing that alone gives EER {shuffling.chance:.2f}"
        return undecided(
            f"{subject} {beyond} (p {least:.2f}{' or more' if len(names) > 1 else ''}{alone}): these {n_people} people "
            "provide no evidence for any pair. A weak link may need more people to show."
        )
    holds = float(sum(p_best[i] for i in chosen))
    listed = [names[i] for i in chosen]
    shown = range_of([eers[i] for i in chosen], intervals[chosen[0]])
    text = f"Take {named(listed)} ({what} EER {shown})."
    n_others = len(names) - len(chosen)
    if len(chosen) > MOST_NAMED:
        text = (
            f"{len(chosen)} of the {len(names)} pairs may be the best, and their order is not known; "
            f"{' x '.join(names[0])} is as good a choice as any ({what} EER {rate(eers[0])})."
        )
    elif n_others:
        others = f"The other {n_others} are"
        if n_others == 1:
            others = f"{' x '.join(next(name for i, name in enumerate(names) if i not in chosen))} is"
        best = "it" if len(chosen) == 1 else "the best of these"
        text += f" {others} worse than {best} with a chance of {holds:.2f}."
    if all(p[i] is None for i in chosen):
        text += " Whether that is above chance was not measured."
    elif unproven := [names[i] for i in chosen if i not in told]:
        is_or_are = "is" if len(unproven) == 1 else "are"
        doubt = f"{is_or_are} not above chance on these people"
        if shuffling is not None and shuffling.within:
            doubt = f"may tell no more than the {shuffling.within}"
        text += f" {named(unproven)} {doubt}."
    if len(chosen) > 1 and people_to_tell is not None:
        needed = people_to_tell(chosen[0], chosen[1])
        which = "the two" if len(chosen) == 2 else "the first two"
        text += (
            f" To separate {which}: about {needed} people."
            if needed
            else f" More people would hardly separate {which}: they are too alike."
        )
    return Decision(tuple(listed), holds, text)


def range_of(eers: Sequence[float], interval: tuple[float, float] | None = None) -> str:
    """EERs in words; a single one with its interval."""
    low, high = rate(min(eers)), rate(max(eers))
    if len(eers) > 1:
        return low if low == high else f"{low} to {high}"
    return low if interval is None else f"{low}, interval {rate(interval[0])} to {rate(interval[1])}"


def rate(value: float) -> str:
    """An error rate with two decimals; one below half a percent in thousandths."""
    if value >= 0.005:
        return f"{value:.2f}"
    return f"{value:.3f}" if value >= 0.001 else "under 0.001"


def named(pairs: Sequence[PairName]) -> str:
    """The pairs in words: "clip or dinov2 with wavlm" if all combinations are meant."""
    faces, voices = (list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1))
    if len(faces) * len(voices) == len(pairs):
        return f"{_either(faces)} with {_either(voices)}"
    return _either([f"{face} with {voice}" for face, voice in pairs])


def _either(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
