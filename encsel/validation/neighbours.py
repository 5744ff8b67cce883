"""The one search of neighbours per encoder that intrinsic dimensions, curvature and the prediction share."""

from __future__ import annotations

from collections.abc import Sequence

from encsel.core import Vectors
from encsel.errors import BadCalibration
from encsel.metrics.neighbours import Neighbours, distinct_rows, nearest_neighbours
from encsel.validation.stage import Key
from encsel.validation.work import Work

LABEL = "neighbours"
N_NEIGHBOURS = 50
KS = (5, 10, 20, 50)


def neighbours_of(work: Work, keys: Sequence[Key]) -> dict[Key, tuple[Vectors, Neighbours]]:
    """Rows and neighbours of these encoders, searched once and remembered until the prediction has used them."""
    return work.each(LABEL, keys, lambda key: _search(work, key))


def _search(work: Work, key: Key) -> tuple[Vectors, Neighbours]:
    """The distinct rows of an encoder and their neighbours: 50, or as many as there are.

    Raises:
        BadCalibration: fewer than 7 distinct rows.
    """
    vectors = work.encoders[key].vectors
    first = distinct_rows(vectors)
    rows = vectors if len(first) == len(vectors) else vectors[first]
    k = min(N_NEIGHBOURS, len(rows) - 1)
    if k <= KS[0]:
        raise BadCalibration(f"{len(rows)} distinct samples; neighbours need at least {KS[0] + 2}. Add samples.")
    return rows, nearest_neighbours(rows, k, device=work.prepared.device, as_given=work.reference)
