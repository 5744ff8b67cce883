"""joint: CKA and EER on held-out people before and after joint training of two projections; only on request."""

from collections.abc import Mapping, Sequence

from encsel.matching.axes import Side
from encsel.matching.crossval import MEASURED
from encsel.matching.folds import SidesByFold
from encsel.matching.joint import PROJECTIONS, JointTraining, joint_training
from encsel.matching.projections import project_centroids
from encsel.storage.sections import Section, number, span, table
from encsel.validation.result import Validation
from encsel.validation.stage import Key, Outcomes, Pair, Stage
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    def one(pair: Pair, sides: Mapping[Key, list[list[Side]]]) -> JointTraining:
        face, voice = pair
        both: tuple[SidesByFold, SidesByFold] = sides[face], sides[voice]
        return joint_training(work.centroids(face), work.centroids(voice), both, work.folds, seed=work.seed)

    sides_of = work.for_pairs("centroids on axes", lambda key: project_centroids(work.centroids(key), work.folds))
    return work.of_pairs(STAGE, "joint", one, shared=sides_of, more={"protocol": work.protocol})


def sections(validation: Validation) -> Sequence[Section]:
    rows, sizes = [], ""
    for p in validation.pairs:
        joint: JointTraining | None = p["joint"]
        if joint is None:
            continue
        sizes = f"{joint.n_test} held-out people per fold, {joint.n_train} to train on"
        rows.append({
            "Face": p.face, "Voice": p.voice, "CKA before": number(joint.cka), "CKA after": number(joint.after.cka),
            "CKA control": number(joint.control.cka),
            **{f"EER {scorer}": number(joint.eer[scorer]) for scorer in MEASURED},
            "EER after": number(joint.after.eer), "Interval 90 %": span(joint.after.interval),
            "EER control": number(joint.control.eer),
        })  # fmt: skip
    return table(
        "What joint training does", rows,
        f"Debiased CKA and EER of {sizes}. Before: the embeddings as they are, and scorers fitted on the training "
        f"people. After: plain cosine of projections trained jointly on the training people ({PROJECTIONS}). Control: "
        "the same training with the voices of other people. A rise of CKA is evidence of shared information only as "
        "far as the control does not rise.", n_names=2,
    )  # fmt: skip


STAGE = Stage(
    name="joint",
    about="pair",
    order=66,
    fields={"joint": JointTraining},
    compute=compute,
    on_request=True,
    sections=sections,
)
