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
from encsel.matching.projections import MEANS_OF, Projections, project_centroids, rows_per_person, sides_of
from encsel.matching.scorers import DEFAULT_SCORER, SCORERS, cosines

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
    # By level and scorer, or "within", column and scorer.
    tallies: defaultdict[tuple[str, ...], Tally] = defaultdict(lambda: Tally(eer_rule))
    # The EER alone: by number of samples and scorer; by column, scorer and value; by column, for the floor.
    pools: defaultdict[tuple[str, ...], Pool] = defaultdict(lambda: Pool(eer_rule))
    samples = zip(chain.from_iterable(face), chain.from_iterable(voice), strict=True)
    for (test, pair), (f, v) in zip(fitted(sides_of(face), sides_of(voice), folds), samples, strict=True):
        for name in SCORERS:
            scores = pair.scores(name)
            tallies["identity", name].add(scores, test, test)
            if len(f.rows) and len(v.rows):
                single = pair.scores(name, rows=(f.rows, v.rows)).astype(np.float32)
                tallies["sample", name].add(single, f.owners, v.owners)
            for k in f.means.keys() & v.means.keys():
                pools[str(k), name].add(pair.scores(name, rows=(f.means[k], v.means[k])), test, test)
            for group in groups:
                for i, value in enumerate(group.values):
                    members = np.flatnonzero(group.index[test] == i)
                    block = scores[np.ix_(members, members)], test[members], test[members]
                    tallies["within", group.column, name].add(*block)
                    pools[group.column, name, value].add(*block)
        for group in groups:
            grouped = test[group.index[test] >= 0]
            index = group.index[grouped]
            pools[group.column,].add((index[:, None] == index).astype(np.float64), grouped, grouped)

    def result(*key: str) -> Matching:
        return tallies[key].result(are_ratios=key[-1] == "likelihood")

    def eer(*key: str) -> float | None:
        return None if pools[key].is_empty else pools[key].rates().eer

    def can_tell(group: PersonGroups) -> bool:
        needed = pools[group.column,], *(tallies["within", group.column, name] for name in SCORERS)
        return not any(pool.is_empty for pool in needed)

    def within(group: PersonGroups) -> WithinGroups:
        rates = {value: {name: eer(group.column, name, value) for name in SCORERS} for value in group.values}
        matching = {name: result("within", group.column, name) for name in SCORERS}
        return WithinGroups(group.column, matching, rates, pools[group.column,].rates().eer)

    levels = {level: {name: result(level, name) for name in SCORERS} for level in LEVELS}
    of_whole, of_single = ({name: rates.eer for name, rates in levels[level].items()} for level in LEVELS)
    train, test = folds[0][0]
    return PairMeasured(
        levels,
        {"1": of_single, **{str(k): {name: eer(str(k), name) for name in SCORERS} for k in MEANS_OF}, "all": of_whole},
        tuple(within(group) for group in groups if can_tell(group)),
        len(train),
        len(test),
        len(folds),
    )


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
