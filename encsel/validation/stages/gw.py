"""gw: Gromov-Wasserstein distance of every pair, with its lower bound."""

from collections.abc import Mapping, Sequence

from encsel.core import Vectors
from encsel.metrics.transport import (
    GromovWasserstein,
    drawn_people,
    gromov_wasserstein,
    gromov_wasserstein_reference,
    people_distances,
    reference_draws,
)
from encsel.storage.sections import MISSING
from encsel.validation.result import PairValidation, Validation
from encsel.validation.stage import Outcomes, Stage
from encsel.validation.work import Work


def gromov_wasserstein_of(face: Vectors, voice: Vectors, *, reference: bool, seed: int) -> GromovWasserstein:
    """Distance of one pair's centroids (n, dim), of at most 500 people."""
    if reference:
        of_faces, of_voices = reference_draws(len(face))
        return gromov_wasserstein_reference(people_distances(face[of_faces]), people_distances(voice[of_voices]))
    drawn = drawn_people(len(face), seed)
    return gromov_wasserstein(people_distances(face[drawn]), people_distances(voice[drawn]))


def compute(work: Work) -> Outcomes:
    return work.of_pairs(
        STAGE, "gromov_wasserstein",
        lambda pair, _: gromov_wasserstein_of(
            work.centroids(pair[0]), work.centroids(pair[1]), reference=work.reference, seed=work.seed
        ),
        more={"protocol": work.protocol},
    )  # fmt: skip


def pair_cells(p: PairValidation) -> Mapping[str, str]:
    gw: GromovWasserstein | None = p["gromov_wasserstein"]
    if gw is None:
        return {"GW": MISSING, "GW start": MISSING}
    start = gw.start + ("" if gw.converged else ", not converged")
    return {"GW": f"{gw.lower_bound:.4f} to {gw.value:.4f}", "GW start": start}


def notes(validation: Validation) -> Sequence[str]:
    form = (
        "squared, faces and voices of different people, as in the released code"
        if validation.protocol == "reference"
        else "root, the same people on both sides"
    )
    return (f"GW: Gromov-Wasserstein distance ({form}), from the lower bound to the best coupling found.",)


STAGE = Stage(
    name="gw",
    about="pair",
    order=43,
    fields={"gromov_wasserstein": GromovWasserstein},
    compute=compute,
    needs=("ot",),
    metrics={
        "gromov_wasserstein": "gromov_wasserstein.value",
        "gromov_wasserstein_bound": "gromov_wasserstein.lower_bound",
    },
    pair_cells=pair_cells,
    notes=notes,
)
