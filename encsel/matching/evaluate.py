"""Matchers fitted on some people and measured on others: every scorer, centroids and single samples.

Everything fitted (centre, principal axes, canonical directions) sees training people only. Encoders are projected once;
pairs are then small matrices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Vectors
from encsel.data.groups import PersonGroups
from encsel.data.sampling import limit_rows
from encsel.errors import UsageError, nearest
from encsel.matching.crossval import pooled_rates
from encsel.matching.error_rates import Matching, Tally
from encsel.matching.folds import Folds, fitted, protocol_folds, scored, some_folds
from encsel.matching.projections import (
    Projections,
    first_axes_of,
    project_centroids,
    rows_per_person,
    sides_of,
)
from encsel.matching.scorers import SCORERS, cosines
from encsel.metrics.centroids import centroids

Level = Literal["identity", "sample"]
LEVELS: tuple[Level, ...] = ("identity", "sample")
AXES = (20, 50, 100, 200)
"""Principal axes of the study's appendix."""


@dataclass(frozen=True)
class WithinGroups:
    """A pair with impostors of the genuine person's own group only.

    Attributes:
        matching: by scorer.
        eer_of: by value of the column, then scorer; None where no fold has two test people of a value.
        floor: EER that knowing the group and nothing else would reach against all impostors.
    """

    column: str
    matching: Mapping[str, Matching]
    eer_of: Mapping[str, Mapping[str, float | None]]
    floor: float


@dataclass(frozen=True)
class PairMeasured:
    """One pair: by level (identity, sample), then scorer; and within each column's groups, centroids."""

    levels: Mapping[str, Mapping[str, Matching]]
    within: tuple[WithinGroups, ...]
    n_train: int
    n_test: int
    n_repeats: int


def measure_pair(
    face: Projections, voice: Projections, folds: Folds, groups: Sequence[PersonGroups] = ()
) -> PairMeasured:
    """Error rates of every scorer for one pair, on people it was not fitted on."""
    tallies = {level: {name: Tally() for name in SCORERS} for level in LEVELS}
    inside = [{name: {value: Tally() for value in (None, *g.values)} for name in SCORERS} for g in groups]
    floors = [Tally() for _ in groups]
    samples = zip((f for repeat in face for f in repeat), (v for repeat in voice for v in repeat), strict=True)
    for (test, pair), (f, v) in zip(fitted(sides_of(face), sides_of(voice), folds), samples, strict=True):
        for name in SCORERS:
            scores = pair.scores(name)
            tallies["identity"][name].add(scores, test, test)
            if len(f.rows) and len(v.rows):
                single = pair.scores(name, rows=(f.rows, v.rows)).astype(np.float32)
                tallies["sample"][name].add(single, f.owners, v.owners)
            for group, of_group in zip(groups, inside, strict=True):
                for i, value in enumerate(group.values):
                    members = np.flatnonzero(group.index[test] == i)
                    block = scores[np.ix_(members, members)]
                    of_group[name][None].add(block, test[members], test[members])
                    of_group[name][value].add(block, test[members], test[members])
        for group, floor in zip(groups, floors, strict=True):
            grouped = test[group.index[test] >= 0]
            index = group.index[grouped]
            floor.add((index[:, None] == index).astype(np.float64), grouped, grouped)
    train, test = folds[0][0]
    return PairMeasured(
        {level: {name: t.result() for name, t in of_level.items()} for level, of_level in tallies.items()},
        tuple(
            _within(group, of_group, floor)
            for group, of_group, floor in zip(groups, inside, floors, strict=True)
            if not floor.is_empty and not any(values[None].is_empty for values in of_group.values())
        ),
        len(train),
        len(test),
        len(folds),
    )


def _within(group: PersonGroups, tallies: Mapping[str, Mapping[str | None, Tally]], floor: Tally) -> WithinGroups:
    """Results of the tallies of one column, by scorer and value, None being all values."""

    def rate(tally: Tally) -> float | None:
        return None if tally.is_empty else tally.result().eer

    return WithinGroups(
        group.column,
        {name: values[None].result() for name, values in tallies.items()},
        {value: {name: rate(tallies[name][value]) for name in SCORERS} for value in group.values},
        floor.result().eer,
    )


def tally_by_scorer(scores: Iterable[tuple[str, NDArray[np.intp], Vectors]]) -> dict[str, Matching]:
    """Error rates by scorer of what `scored` yields."""
    tallies = {name: Tally() for name in SCORERS}
    for name, test, matrix in scores:
        tallies[name].add(matrix, test, test)
    return {name: tally.result() for name, tally in tallies.items()}


def measure_centroids(face: Vectors, voice: Vectors, *, seed: int) -> dict[str, Matching]:
    """Error rates by scorer from repeated cross-validation of (n, dim) centroids of the same people.

    Raises:
        BadCalibration: fewer than 10 people.
    """
    folds = protocol_folds(len(face), "crossval", seed=seed)
    return tally_by_scorer(scored(project_centroids(face, folds), project_centroids(voice, folds), folds))


def cross_validate(faces: Vectors, voices: Vectors, *, scorer: str = "weighted", seed: int = 0) -> Matching:
    """Error rates of a scorer on held-out people: 5-fold cross-validation, repeated on small sets.

    Args:
        faces, voices: (n, dim) centroids, one row per person, the same people in the same order; 10 people or more.
        scorer: one of `encsel.matching.SCORERS`.
        seed: random seed of the folds.
    Raises:
        UsageError: unknown scorer.
        BadCalibration: too few people, or rows that do not differ.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> trait = rng.normal(size=(60, 4))
    >>> faces = trait @ rng.normal(size=(4, 16)) + 0.5 * rng.normal(size=(60, 16))
    >>> voices = trait @ rng.normal(size=(4, 12)) + 0.5 * rng.normal(size=(60, 12))
    >>> cross_validate(faces, voices).eer < 0.2
    True
    """
    if scorer not in SCORERS:
        raise UsageError(f"No scorer is named {scorer!r}. {nearest(scorer, SCORERS)}")
    return measure_centroids(np.asarray(faces), np.asarray(voices), seed=seed)[scorer]


def plain_cosine(face: Embeddings, voice: Embeddings, *, seed: int) -> dict[str, Matching]:
    """By level, two encoders of one joint space compared as they are; nothing is fitted, so all people are tested."""
    results: dict[str, Matching] = {}
    for level in LEVELS:
        sides: list[tuple[Vectors, NDArray[Any]]] = []
        for one in (face, voice):
            if level == "identity":
                sides.append((centroids(one), np.unique(one.labels)))
            else:
                kept = limit_rows(one, rows_per_person(len(np.unique(one.labels))), seed=seed)
                sides.append((kept.vectors, kept.labels))
        tally = Tally()
        tally.add(cosines(sides[0][0], sides[1][0]), sides[0][1], sides[1][1])
        results[level] = tally.result()
    return results


def eer_by_axes(face: Projections, voice: Projections, folds: Folds) -> dict[str, dict[str, float | None]]:
    """EER by number of principal axes, then scorer, over the first repeat (three of its folds for large sets).

    None where an encoder has fewer axes.

    Args:
        face, voice: projected on max(AXES) axes.
    """
    rates: dict[str, dict[str, float | None]] = {}
    folds = some_folds(folds[:1], sum(len(part) for part in folds[0][0]))
    for k in AXES:
        if any(len(fold.side.sd) < k for side in (face, voice) for fold in side[0]):
            rates[str(k)] = dict.fromkeys(SCORERS)
            continue
        n_folds = len(folds[0])
        cut = [[[first_axes_of(fold.side, k) for fold in side[0][:n_folds]]] for side in (face, voice)]
        rates[str(k)] = {name: rate.eer for name, rate in pooled_rates(cut[0], cut[1], folds).items()}
    return rates
