"""Computations on encoders that several stages share: neighbours of samples, projections on principal axes."""

from collections.abc import Callable, Sequence

import numpy as np

from encsel.core import Vectors
from encsel.errors import BadCalibration
from encsel.matching.projections import Projections, project_encoder
from encsel.metrics.curvature import curvature_points
from encsel.metrics.neighbours import Neighbours, distinct_rows, nearest_neighbours, rows_to_search
from encsel.validation.stage import Key, Pair
from encsel.validation.work import Work

NEIGHBOURS, PROJECTIONS = "neighbours", "projections"
"""Labels for `Work.forget`."""
N_NEIGHBOURS = 50
KS = (5, 10, 20, 50)


def neighbours_of(work: Work, keys: Sequence[Key]) -> dict[Key, tuple[Vectors, Neighbours]]:
    """Distinct rows of encoders and their 50 neighbours, or fewer; BadCalibration for fewer than 7 distinct rows."""

    def search(key: Key) -> tuple[Vectors, Neighbours]:
        rows = distinct_rows(work.encoders[key])
        k = min(N_NEIGHBOURS, len(rows) - 1)
        if k <= KS[0]:
            raise BadCalibration(
                f"{len(rows)} distinct samples; a neighbour search needs at least {KS[0] + 2}. Add samples."
            )
        # A sample of many rows, and the points at which curvature is measured.
        some = np.union1d(rows_to_search(len(rows), seed=work.seed), curvature_points(len(rows)))
        return rows, nearest_neighbours(rows, k, of=some, device=work.prepared.device, as_given=work.reference)

    return work.each(NEIGHBOURS, keys, search)


def neighbours_of_counted(work: Work, keys: Sequence[Key]) -> dict[Key, tuple[Vectors, Neighbours]]:
    """Like `neighbours_of`, but in the reference protocol rows count as often as they are listed."""
    distinct = neighbours_of(work, keys)
    if not work.reference:
        return distinct

    def search(key: Key) -> tuple[Vectors, Neighbours]:
        rows = work.counted(key).vectors
        if len(rows) == len(distinct[key][0]):
            return distinct[key]
        some = np.union1d(rows_to_search(len(rows), seed=work.seed), curvature_points(len(rows)))
        return rows, nearest_neighbours(rows, min(N_NEIGHBOURS, len(rows) - 1), of=some, as_given=True)

    return work.each(f"{NEIGHBOURS} of listed rows", keys, search)


def projections_of(work: Work) -> Callable[[Sequence[Pair]], dict[Key, Projections]]:
    """An argument `shared` of `Work.of_pairs`: encoders on as many principal axes as any stage needs, in every fold."""
    return work.for_pairs(
        PROJECTIONS,
        lambda key: project_encoder(work.encoders[key], work.centroids(key), work.folds, seed=work.seed),
    )
