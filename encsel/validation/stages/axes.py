"""axes: EER of every pair by number of principal axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from encsel.matching.evaluate import AXES, eer_by_axes
from encsel.matching.scorers import N_AXES, SCORERS
from encsel.storage.sections import Section, number
from encsel.validation.projections import LABEL, projections_of
from encsel.validation.result import Validation
from encsel.validation.stage import Outcomes, Stage
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    outcomes = work.of_pairs(
        STAGE, "axes", lambda pair, sides: eer_by_axes(sides[pair[0]], sides[pair[1]], work.folds),
        shared=projections_of(work), more={"protocol": work.protocol},
    )  # fmt: skip
    work.forget(LABEL)
    return outcomes


def sections(validation: Validation) -> Sequence[Section]:
    rows = tuple(
        (p.face, p.voice, *(number(p["axes"][str(k)][name]) for name in SCORERS for k in AXES))
        for p in validation.pairs
        if p["axes"] is not None
    )
    if not rows:
        return []
    header = ("Face", "Voice", *(f"{name} {k}" for name in SCORERS for k in AXES))
    note = (
        f"EER by number of principal axes kept of each side; {N_AXES} everywhere else. Missing: fewer people or "
        "dimensions than axes."
    )
    return [Section("Principal axes", header, rows, (note,), n_names=2)]


STAGE = Stage(
    name="axes",
    meaning="EER by number of principal axes",
    about="pair",
    version=1,
    order=70,
    fields={"axes": Mapping[str, Mapping[str, float | None]]},
    compute=compute,
    sections=sections,
)
