"""Planning: the people and samples that a calibration set needs, and what a given set can resolve."""

import bisect
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encsel.core import MODALITIES, SetOptions
from encsel.data.calibration_set import CalibrationSet
from encsel.errors import BadCalibration, UsageError
from encsel.matching.sensitivity import distance_of_eer, eer_of_distance
from encsel.metrics.centroids import harmonic_mean
from encsel.prediction.card import (
    PROBE_SAMPLES,
    TRAIN_PEOPLE,
    CalibratedCard,
    load_calibrated,
    predicted_eer,
    spread,
    tail,
)
from encsel.prediction.order import SURE
from encsel.prediction.predict import MIN_TO_PREDICT
from encsel.storage.result import Result

PLAN_SCHEMA = "encsel.plan/1"
PEOPLE = (30, 40, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000)
SAMPLES = (4, 8, 20, 50)


@dataclass(frozen=True)
class Reach:
    """Resolution of n people with m samples each, typical of simulated sets.

    `difference` is the smallest difference in predicted EER at which one of two pairs is called better;
    `difference_sharing` is the same for pairs with a common encoder.
    """

    n_identities: int
    samples_per_identity: float
    half_width: float
    difference: float
    difference_sharing: float


@dataclass(frozen=True)
class SetSize:
    """People in both modalities, and samples of each: harmonic mean of the two medians."""

    n_identities: int
    samples_per_identity: float


@dataclass(frozen=True, eq=False, repr=False)
class Plan(Result):
    """Resolution of sets of many sizes, made by `encsel.plan`.

    Attributes:
        n_train_identities, n_probe_samples: training people, and samples per person at test, of the planned matcher.
        eer: EER planned for; errors grow toward chance.
        width, difference: requirements, if any.
        grid: what each number of people and samples can resolve.
        enough: fewest people that meet the requirements, by samples per person; None: more than 2000.
        own: what the given set, of size `set`, can resolve; None without a set, or if `reason` is set.
    """

    schema: str
    card: str
    scorer: str
    n_train_identities: int
    n_probe_samples: int
    eer: float
    coverage: float
    width: float | None
    difference: float | None
    grid: tuple[Reach, ...]
    enough: Mapping[str, int | None]
    own: Reach | None
    set: SetSize | None
    reason: str | None


def plan(
    data: str | Path | CalibrationSet | None = None,
    *,
    eer: float | None = None,
    coverage: float = 0.9,
    train_people: int = TRAIN_PEOPLE,
    probe_samples: int = PROBE_SAMPLES,
    width: float | None = None,
    difference: float | None = None,
    card: str | Path | CalibratedCard = "encsel-likelihood",
    allow_outside: bool = False,
) -> Plan:
    """People and samples needed for an interval or for the order of two pairs, and what a given set can resolve.

    Args:
        data: a calibration set, which is listed but not embedded, or None.
        eer: EER to plan for, from 0.02 to 0.48; None: the card's training mean.
        coverage: coverage of the intervals, in [0.5, 0.99].
        train_people, probe_samples: what is predicted, as for `encsel.rank`.
        width: required width of the interval.
        difference: difference between two pairs' EERs to resolve.
        card: calibrated card.
        allow_outside: count files that a manifest names outside its own folder.
    Raises:
        UsageError: a number out of range, or no such card.
        BadCalibration: the set cannot be read.

    >>> plan(width=0.1, card="encsel-calibrated").enough["20"]
    85
    """
    loaded = (card if isinstance(card, CalibratedCard) else load_calibrated(card)).at(train_people, probe_samples)
    at = loaded.training_mean if eer is None else eer
    for name, value in (("--eer", at), ("--width", width), ("--difference", difference)):
        if value is not None and not 0 < value < 0.5:
            raise UsageError(f"{name} is {value}; it must be between 0 and 0.5, such as 0.05.")
    if not 0.02 <= at <= 0.48:
        raise UsageError(f"--eer is {at}; plans are made for 0.02 to 0.48, such as 0.3.")
    size = None if data is None else _size(data, allow_outside=allow_outside)

    def suffices(n: int, m: int) -> bool:
        one = reach(loaded, n, m, at, coverage)
        return (width is None or 2 * one.half_width <= width) and (difference is None or one.difference <= difference)

    enough: dict[str, int | None] = {}
    if width is not None or difference is not None:
        low, high = loaded.people
        for m in SAMPLES:
            enough[str(m)] = _fewest(range(low, high + 1, 5), functools.partial(suffices, m=m))
    own = reason = None
    if size is not None and size.n_identities < loaded.people[0]:
        reason = f"fewer than {MIN_TO_PREDICT} people are too few for a prediction"
    elif size is not None:
        own = reach(loaded, size.n_identities, size.samples_per_identity, at, coverage)
    grid = tuple(reach(loaded, n, m, at, coverage) for n in PEOPLE for m in SAMPLES)
    return Plan(
        PLAN_SCHEMA, loaded.name, loaded.scorer, train_people, probe_samples, at, coverage, width, difference, grid,
        enough, own, size, reason,
    )  # fmt: skip


def reach(card: CalibratedCard, n: int, m: float, eer: float, coverage: float) -> Reach:
    """Resolution of n people with m samples each for pairs of about this EER; never below that of a smaller set."""
    from scipy.special import ndtri

    d = float(distance_of_eer(eer))
    # The fit to simulated sets bends a little; more people or samples cannot resolve less.
    people, samples = [*(k for k in PEOPLE if k < n), n], [*(k for k in SAMPLES if k < m), m]
    spreads = np.array([[spread(card, i, j, d) for j in samples] for i in people])
    tails = np.array([tail(card, coverage, i) for i in people])
    sd, half = float(spreads.min()), float((tails[:, None] * spreads).min())
    low, high = (float(predicted_eer(x)) for x in (d + half, d - half))
    s = card.shares
    # Variance of a difference of two errors of equal sd, without what they share.
    apart, sharing = 2 * (1 - s.everyone), 2 * (1 - s.everyone - (s.face + s.voice) / 2)

    def gap(variance: float) -> float:
        needed = float(ndtri(SURE)) * math.sqrt(variance) * sd * card.order_scale
        return float(np.subtract(*(eer_of_distance(x) for x in (d - needed / 2, d + needed / 2))))

    return Reach(n, m, (high - low) / 2, gap(apart), gap(sharing))


def people_to_tell(card: CalibratedCard, eers: tuple[float, float], m: float, *, sharing: bool) -> int | None:
    """Fewest people, in tens, that separate two pairs with these EERs; None if they are more than the card covers.

    Args:
        m: samples of each person.
        sharing: whether the two pairs share an encoder.
    """
    gap, middle = abs(eers[1] - eers[0]), sum(eers) / 2

    def tells(n: int) -> bool:
        one = reach(card, n, m, middle, 0.9)
        return (one.difference_sharing if sharing else one.difference) <= gap

    return _fewest(range(card.people[0], card.people[1] + 1, 10), tells)


def _fewest(numbers: range, suffices: Callable[[int], bool]) -> int | None:
    """The first of ascending numbers that suffices (then all larger ones do); None if the last does not."""
    at = bisect.bisect_left(numbers, True, key=suffices)
    return numbers[at] if at < len(numbers) else None


def _size(data: str | Path | CalibrationSet, *, allow_outside: bool) -> SetSize:
    opened = data
    if not isinstance(opened, CalibrationSet):
        opened = CalibrationSet.from_path(Path(opened), SetOptions(allow_outside=allow_outside))
    people = set(opened.identities).intersection(*(e.identities for e in opened.embeddings))
    if not people:
        raise BadCalibration(
            f"No identity of {opened.root} has samples for every encoder. Use the same names for the same people."
        )
    medians = []
    for modality in MODALITIES:
        ready = [e.labels for e in opened.embeddings if e.modality == modality]
        labels = ready or [np.array([s.identity for s in opened.samples if s.modality == modality])]
        counts = [np.unique(one[np.isin(one, sorted(people))], return_counts=True)[1] for one in labels]
        medians.append(min(float(np.median(count)) for count in counts))
    return SetSize(len(people), harmonic_mean(*medians))
