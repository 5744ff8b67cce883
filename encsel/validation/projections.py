"""Encoders on their principal axes in every fold, shared by the stages that fit matchers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from encsel.matching.evaluate import AXES
from encsel.matching.projections import Projections, project_encoder
from encsel.matching.scorers import N_AXES
from encsel.validation.stage import Key, Pair
from encsel.validation.work import Work

LABEL = "projections"


def projections_of(work: Work) -> Callable[[Sequence[Pair]], dict[Key, Projections]]:
    """An argument `shared` of `Work.of_pairs`: projections on as many axes as any stage wants."""
    n_axes = max(AXES) if "axes" in work.wanted else N_AXES
    return work.for_pairs(
        LABEL, lambda key: project_encoder(work.encoders[key], work.folds, seed=work.seed, n_axes=n_axes)
    )
