"""Matchers fitted on some people and measured on others: every scorer, centroids and single samples.

Everything fitted (centre, principal axes, canonical directions) sees training people only. Encoders are projected once;
pairs are then small matrices.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Vectors
from encsel.data.groups import PersonGroups
from encsel.data.sampling import limit_rows
from encsel.errors import UsageError, nearest
from encsel.matching.crossval import pooled_rates
from encsel.matching.eer import EerRule, eer_of_sorted
from encsel.matching.error_rates import Matching, Pool, Tally
from encsel.matching.folds import Folds, fitted, protocol_folds, scored, some_folds
from encsel.matching.projections import MEANS_OF, Fold, Projections, project_centroids, rows_per_person, sides_of
from encsel.matching.scorers import DEFAULT_SCORER, SCORERS, PairInFold, cosines

LEVELS = ("identity", "sample")
AXES = (20, 50, 100, 200)
"""Principal axes of the study's appendix."""


@dataclass(frozen=True)
class WithinGroups:
    """A pair with impostors from the genuine person's group only.

    `eer_of` is by value of the column, then scorer, None if no fold has two test people with the value. `floor` is the
    EER against all impostors of a matcher that knows only the group.
    """

    column: str
    matching: Mapping[str, Matching]
    eer_of: Mapping[str, Mapping[str, float | None]]
    floor: float


@dataclass(frozen=True)
class PairMeasured:
    """One pair: `levels` by LEVELS, then scorer; `within` the groups of each column, for centroids.

    `eer_by_samples` is by the number of samples averaged for a test person ("1", "3", "10", "all"), then scorer; None
    if half of the people have fewer.
    """

    levels: Mapping[str, Mapping[str, Matching]]
    eer_by_samples: Mapping[str, Mapping[str, float | None]]
    within: tuple[WithinGroups, ...]
    n_train: int
    n_test: int
    n_repeats: int


def measure_pair(
    face: Projections,
    voice: Projections,
    folds: Folds,
    groups: Sequence[PersonGroups] = (),
    *,
    eer_rule: EerRule = eer_of_sorted,
) -> PairMeasured:
    """Error rates of every scorer for one pair, on people it was not fitted on."""
    samples = zip(chain.from_iterable(face), chain.from_iterable(voice), strict=True)
    cases = [
        _Case(test, pair, f, v)
        for (test, pair), (f, v) in zip(fitted(sides_of(face), sides_of(voice), folds), samples, strict=True)
    ]
    # One scorer after the other: the scores of single samples are many.
    of = {name: _measure_scorer(cases, name, groups, eer_rule) for name in SCORERS}
    first = of[DEFAULT_SCORER]
    within = [
        WithinGroups(
            group.column,
            {name: one.within[group.column][0] for name, one in of.items()},
            {value: {name: one.within[group.column][1][value] for name, one in of.items()} for value in group.values},
            floor,
        )
        for group in groups
        if group.column in first.within and (floor := _floor(cases, group, eer_rule)) is not None
    ]
    train, test = folds[0][0]
    return PairMeasured(
        {level: {name: one.levels[level] for name, one in of.items()} for level in LEVELS},
        {k: {name: one.eer_by_samples[k] for name, one in of.items()} for k in first.eer_by_samples},
        tuple(within),
        len(train),
        len(test),
        len(folds),
    )


@dataclass(frozen=True)
class _Case:
    """One pair in one fold."""

    test: NDArray[np.intp]
    pair: PairInFold
    face: Fold
    voice: Fold


@dataclass(frozen=True)
class _OfScorer:
    """What `PairMeasured` has of one scorer; `within` is by column, without those that no fold can tell."""

    levels: Mapping[str, Matching]
    eer_by_samples: Mapping[str, float | None]
    within: Mapping[str, tuple[Matching, Mapping[str, float | None]]]


def _measure_scorer(cases: Sequence[_Case], name: str, groups: Sequence[PersonGroups], eer_rule: EerRule) -> _OfScorer:
    # By level or column, and the EER alone: by number of samples, and by column and value.
    tallies = {level: Tally(eer_rule) for level in LEVELS}
    of_groups: defaultdict[str, Tally] = defaultdict(lambda: Tally(eer_rule))
    pools: defaultdict[tuple[str, ...], Pool] = defaultdict(lambda: Pool(eer_rule))
    for case in cases:
        test, f, v = case.test, case.face, case.voice
        scores = case.pair.scores(name)
        tallies["identity"].add(scores, test, test)
        if len(f.rows) and len(v.rows):
            single = case.pair.scores(name, rows=(f.rows, v.rows)).astype(np.float32)
            tallies["sample"].add(single, f.owners, v.owners)
        for k in f.means.keys() & v.means.keys():
            pools[str(k),].add(case.pair.scores(name, rows=(f.means[k], v.means[k])), test, test)
        for group in groups:
            for i, value in enumerate(group.values):
                members = np.flatnonzero(group.index[test] == i)
                block = scores[np.ix_(members, members)], test[members], test[members]
                of_groups[group.column].add(*block)
                pools[group.column, value].add(*block)

    def result(tally: Tally) -> Matching:
        return tally.result(are_ratios=name == "likelihood")

    def eer(*key: str) -> float | None:
        return None if pools[key].is_empty else pools[key].rates().eer

    levels = {level: result(tallies.pop(level)) for level in LEVELS}
    by_samples = {"1": levels["sample"].eer, **{str(k): eer(str(k)) for k in MEANS_OF}, "all": levels["identity"].eer}
    within = {
        group.column: (result(of_groups[group.column]), {value: eer(group.column, value) for value in group.values})
        for group in groups
        if not of_groups[group.column].is_empty
    }
    return _OfScorer(levels, by_samples, within)


def _floor(cases: Sequence[_Case], group: PersonGroups, eer_rule: EerRule) -> float | None:
    """EER of a matcher that knows only the group; None if no fold has pairs within and across groups."""
    pool = Pool(eer_rule)
    for case in cases:
        grouped = case.test[group.index[case.test] >= 0]
        index = group.index[grouped]
        pool.add((index[:, None] == index).astype(np.float64), grouped, grouped)
    return None if pool.is_empty else pool.rates().eer


def tally_by_scorer(scores: Iterable[tuple[str, NDArray[np.intp], Vectors]]) -> dict[str, Matching]:
    """Error rates by scorer of the scores that `scored` yields."""
    tallies = {name: Tally() for name in SCORERS}
    for name, test, matrix in scores:
        tallies[name].add(matrix, test, test)
    return {name: tally.result(are_ratios=name == "likelihood") for name, tally in tallies.items()}


def measure_centroids(face: Vectors, voice: Vectors, *, seed: int) -> dict[str, Matching]:
    """Error rates by scorer from repeated cross-validation of (n, dim) centroids of the same people, at least 10."""
    folds = protocol_folds(len(face), "crossval", seed=seed)
    return tally_by_scorer(scored(project_centroids(face, folds), project_centroids(voice, folds), folds))


def cross_validate(faces: Vectors, voices: Vectors, *, scorer: str = DEFAULT_SCORER, seed: int = 0) -> Matching:
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


def plain_cosine(
    face: Embeddings, voice: Embeddings, *, seed: int, eer_rule: EerRule = eer_of_sorted
) -> dict[str, Matching]:
    """Error rates by level of two encoders in one joint space; nothing is fitted, so all people are tested."""
    results: dict[str, Matching] = {}
    for level in LEVELS:
        sides: list[tuple[Vectors, NDArray[Any]]] = []
        for one in (face, voice):
            people = np.unique(one.labels)
            rows = limit_rows(one, rows_per_person(len(people)), seed=seed) if level == "sample" else None
            sides.append((one.centroids, people) if rows is None else (rows.vectors, rows.labels))
        (x, faces), (y, voices) = sides
        tally = Tally(eer_rule)
        tally.add(cosines(x, y), faces, voices)
        results[level] = tally.result()
    return results


def eer_by_axes(
    face: Projections, voice: Projections, folds: Folds, *, eer_rule: EerRule = eer_of_sorted
) -> dict[str, dict[str, float | None]]:
    """EER by number of principal axes, then scorer, over at most one repeat; None if an encoder has fewer axes."""
    rates: dict[str, dict[str, float | None]] = {}
    folds = some_folds(folds[:1], sum(len(part) for part in folds[0][0]))
    for k in AXES:
        if any(len(fold.side.sd) < k for side in (face, voice) for fold in side[0]):
            rates[str(k)] = dict.fromkeys(SCORERS)
            continue
        n_folds = len(folds[0])
        cut = [[[fold.side.first(k) for fold in side[0][:n_folds]]] for side in (face, voice)]
        measured = pooled_rates(cut[0], cut[1], folds, eer_rule=eer_rule, n_axes=k)
        rates[str(k)] = {name: rate.eer for name, rate in measured.items()}
    return rates
