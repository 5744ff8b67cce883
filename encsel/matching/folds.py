"""Cross-validation folds over people, and the matchers of one pair of encoders in every fold."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration
from encsel.matching.axes import N_AXES, Side
from encsel.matching.scorers import SCORERS, PairInFold

N_FOLDS = 5
MIN_FOR_FOLDS = 2 * N_FOLDS
"""Fewest people for two test people per fold: an impostor pair needs two."""
MAX_FOR_REPEATS = 400
"""Largest number of people for which cross-validation is repeated; beyond it, another partition adds little."""
MAX_FOR_ALL_FOLDS = 250
"""Largest number of people for which costly measurements use all folds, not only SOME_FOLDS of the first repeat."""
SOME_FOLDS = 3

MAX_PEOPLE = 5000
"""Largest number of people who are shuffled and cross-validated; of more people, a random sample is."""

Protocol = Literal["crossval", "reference"]
PROTOCOLS: tuple[Protocol, ...] = ("crossval", "reference")
REFERENCE_SEED, REFERENCE_TRAIN_FRACTION = 42, 0.8
"""The study's single split."""

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Row numbers of training and of test people."""
Folds = list[list[Fold]]
"""By repeat and fold."""
SidesByFold = Sequence[Sequence[Side]]
"""By repeat and fold: one encoder's people on its principal axes."""


def people_sampled(n_people: int, *, seed: int) -> NDArray[np.intp]:
    """Numbers of all people, or of a random sample of MAX_PEOPLE of more; ascending."""
    if n_people <= MAX_PEOPLE:
        return np.arange(n_people)
    return np.sort(np.random.default_rng([seed, 17]).choice(n_people, MAX_PEOPLE, replace=False))


def repeats_for(n_people: int) -> int:
    """Number of repeats after which the choice of split adds little to the error."""
    return 6 if n_people <= 100 else 4 if n_people <= 250 else 2


def folds_of(n_people: int, *, n_repeats: int, seed: int) -> Folds:
    """Seeded partitions of at least 10 people (else BadCalibration) into N_FOLDS folds of nearly equal size."""
    if n_people < MIN_FOR_FOLDS:
        raise BadCalibration(
            f"{n_people} people; cross-validation in {N_FOLDS} folds needs at least {MIN_FOR_FOLDS}. Add people."
        )
    rng = np.random.default_rng(seed)
    folds: Folds = []
    for _ in range(n_repeats):
        order = rng.permutation(n_people)
        tests = [np.sort(order[f::N_FOLDS]) for f in range(N_FOLDS)]
        folds.append([(np.setdiff1d(order, test), test) for test in tests])
    return folds


def protocol_folds(n_people: int, protocol: Protocol, *, seed: int) -> Folds:
    """Splits of a protocol: repeated 5-fold cross-validation, or the study's single split; errors as `folds_of`."""
    if protocol == "crossval":
        return folds_of(n_people, n_repeats=repeats_for(n_people) if n_people <= MAX_FOR_REPEATS else 1, seed=seed)
    folds_of(n_people, n_repeats=1, seed=seed)  # the same minimum number of people
    order = np.random.RandomState(REFERENCE_SEED).permutation(n_people)
    cut = int(REFERENCE_TRAIN_FRACTION * n_people)
    return [[(order[:cut], order[cut:])]]


def some_folds(folds: Folds, n_people: int) -> Folds:
    """All folds of a small set, or SOME_FOLDS of the first repeat of a large one, which are enough test people."""
    return folds if n_people <= MAX_FOR_ALL_FOLDS else [folds[0][:SOME_FOLDS]]


def fitted(
    face: SidesByFold, voice: SidesByFold, folds: Folds, *, n_axes: int = N_AXES
) -> Iterator[tuple[NDArray[np.intp], PairInFold]]:
    """Test people of every fold, and the pair fitted on the fold's training people; `n_axes` as in PairInFold."""
    for faces, voices, repeat in zip(face, voice, folds, strict=True):
        for f, v, (_, test) in zip(faces, voices, repeat, strict=True):
            yield test, PairInFold(f, v, n_axes=n_axes)


def scored(
    face: SidesByFold, voice: SidesByFold, folds: Folds, *, n_axes: int = N_AXES
) -> Iterator[tuple[str, NDArray[np.intp], Vectors]]:
    """Scorer, test people and their (faces, voices) scores, for every fold and every scorer."""
    for test, pair in fitted(face, voice, folds, n_axes=n_axes):
        for scorer in SCORERS:
            yield scorer, test, pair.scores(scorer)
