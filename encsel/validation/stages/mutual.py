"""mutual: fraction of the nearest people on which both encoders of a pair agree."""

from dataclasses import dataclass

from encsel.metrics.mutual_neighbours import K, mutual_knn, nearest_people
from encsel.validation.stage import Outcomes, Stage, cells
from encsel.validation.work import Work


@dataclass(frozen=True)
class Mutual:
    """Fraction of the 10 nearest people that are the same, and the fraction expected by chance, in [0, 1]."""

    value: float
    chance: float


def compute(work: Work) -> Outcomes:
    chance = K / (len(work.people) - 1)
    return work.of_pairs(
        STAGE, "mutual",
        lambda pair, nearest: Mutual(mutual_knn(*(nearest[k] for k in pair)), chance),
        shared=work.for_pairs("nearest people", lambda key: nearest_people(work.centroids(key))),
    )  # fmt: skip


STAGE = Stage(
    name="mutual",
    about="pair",
    order=42,
    fields={"mutual": Mutual},
    compute=compute,
    metrics={"mutual_knn": "mutual.value"},
    pair_cells=lambda p: cells(p, {f"Mutual {K}-NN": "mutual.value", "Chance": "mutual.chance"}),
)
