"""How many people, and samples of each, a calibration set needs; and what a given set can and cannot decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encsel.errors import UsageError
from encsel.prediction.card import SURE, CalibratedCard, predicted_eer, spread, tail
from encsel.prediction.evidence import distance_of_eer, eer_of_distance

PEOPLE = (30, 40, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000)
SAMPLES = (4, 8, 20, 50)


@dataclass(frozen=True)
class Reach:
    """What n people with m samples each can tell, typical of simulated sets.

    Attributes:
        half_width: half the width of the interval of a predicted EER.
        difference: smallest difference in predicted EER at which one of two pairs is called better: pairs that share
            no encoder, and pairs that share one.
    """

    n_identities: int
    samples_per_identity: float
    half_width: float
    difference: float
    difference_sharing: float


@dataclass(frozen=True)
class Plan:
    """Reaches over a grid, and the fewest people at each number of samples for what was asked (None: not within 2000).

    Attributes:
        eer: at which all is told; errors grow toward chance.
        width, difference: asked for, whole width of the interval; None when not.
        enough: by samples a person, for the width and for the difference asked.
        own: reach of the set that was given; None without one, or where it is too small.
    """

    card: str
    scorer: str
    eer: float
    coverage: float
    width: float | None
    difference: float | None
    grid: tuple[Reach, ...]
    enough: dict[int, int | None]
    own: Reach | None


def plan(
    card: CalibratedCard,
    *,
    eer: float | None = None,
    coverage: float = 0.9,
    width: float | None = None,
    difference: float | None = None,
    own: tuple[int, float] | None = None,
    people: Sequence[int] = PEOPLE,
    samples: Sequence[int] = SAMPLES,
) -> Plan:
    """What sets of these sizes can tell, and the fewest people for a wish.

    Args:
        eer: EER to plan for, in (0, 0.5); None: the card's training mean.
        width: whole width of the interval wanted. difference: of two pairs' EERs to be told apart.
        own: people, and samples a person, of a set at hand; under the card's fewest people it reaches nothing.
    Raises:
        UsageError: a wish that makes no sense.
    """
    at = card.training_mean if eer is None else eer
    for name, value in (("--eer", at), ("--width", width), ("--difference", difference)):
        if value is not None and not 0 < value < 0.5:
            raise UsageError(f"{name} is {value}; a number between 0 and 0.5 is needed, such as 0.05.")
    if not 0.02 <= at <= 0.48:
        raise UsageError(f"--eer is {at}; plans are made for 0.02 to 0.48, such as 0.3.")
    grid = tuple(reach(card, n, m, at, coverage) for n in people for m in samples)

    def suffices(one: Reach) -> bool:
        return (width is None or 2 * one.half_width <= width) and (difference is None or one.difference <= difference)

    enough = {}
    if width is not None or difference is not None:
        low, high = card.people
        for m in samples:
            # Errors fall with people but for bends of the fit, so the first number that suffices is the answer.
            candidates = (n for n in range(low, high + 1, 5) if suffices(reach(card, n, m, at, coverage)))
            enough[m] = next(candidates, None)
    return Plan(
        card.name, card.scorer, at, coverage, width, difference, grid, enough,
        None if own is None or own[0] < card.people[0] else reach(card, *own, at, coverage),
    )  # fmt: skip


def reach(card: CalibratedCard, n: int, m: float, eer: float, coverage: float) -> Reach:
    """What n people with m samples each can tell of pairs of about this EER."""
    from scipy.special import ndtri

    d = float(distance_of_eer(eer))
    sd = spread(card, n, m, d)
    half = tail(card, coverage, n) * sd
    low, high = (float(predicted_eer(x)) for x in (d + half, d - half))
    s = card.shares
    # Variance of a difference of two equal sds, with what the two have in common taken off.
    apart, sharing = 2 * (1 - s.everyone), 2 * (1 - s.everyone - (s.face + s.voice) / 2)

    def gap(variance: float) -> float:
        needed = float(ndtri(SURE)) * math.sqrt(variance) * sd * card.order_scale
        return float(np.subtract(*(eer_of_distance(x) for x in (d - needed / 2, d + needed / 2))))

    return Reach(n, m, (high - low) / 2, gap(apart), gap(sharing))
