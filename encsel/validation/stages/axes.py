"""axes: EER of every pair by number of principal axes."""

from collections.abc import Mapping, Sequence

from encsel.matching.axes import N_AXES
from encsel.matching.evaluate import AXES, eer_by_axes
from encsel.matching.likelihood import N_AXES as LIKELIHOOD_AXES
from encsel.matching.scorers import SCORERS
from encsel.storage.sections import Section, number, table
from encsel.validation.result import Validation
from encsel.validation.shared import PROJECTIONS, projections_of
from encsel.validation.stage import Outcomes, Stage
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    outcomes = work.of_pairs(
        STAGE, "axes",
        lambda pair, sides: eer_by_axes(sides[pair[0]], sides[pair[1]], work.folds, eer_rule=work.eer_rule),
        shared=projections_of(work), more={"protocol": work.protocol},
    )  # fmt: skip
    work.forget(PROJECTIONS)
    return outcomes


def sections(validation: Validation) -> Sequence[Section]:
    rows = [
        {"Face": p.face, "Voice": p.voice}
        | {f"{name} {k}": number(p["axes"][str(k)][name]) for name in SCORERS for k in AXES}
        for p in validation.pairs
        if p["axes"] is not None
    ]
    return table(
        "Principal axes", rows,
        f"EER by number of principal axes per side, over one repeat of the folds, so that the numbers differ a little "
        f"from those over all repeats. Elsewhere: {N_AXES} axes, likelihood up to {LIKELIHOOD_AXES}. Missing: fewer "
        "people or dimensions than axes.", n_names=2,
    )  # fmt: skip


STAGE = Stage(
    name="axes",
    about="pair",
    order=70,
    fields={"axes": Mapping[str, Mapping[str, float | None]]},
    compute=compute,
    version=2,
    sections=sections,
)
