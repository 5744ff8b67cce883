"""mutual: fraction of the nearest people that both encoders of a pair agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from encsel.metrics.mutual_neighbours import K, mutual_knn, nearest_people
from encsel.storage.sections import number
from encsel.validation.result import PairValidation
from encsel.validation.stage import Outcomes, Stage
from encsel.validation.work import Work


@dataclass(frozen=True)
class Mutual:
    """Fraction of the 10 nearest people that are the same, and what chance gives, in [0, 1]."""

    value: float
    chance: float


def compute(work: Work) -> Outcomes:
    chance = K / (len(work.people) - 1)
    return work.of_pairs(
        STAGE, "mutual",
        lambda pair, nearest: Mutual(mutual_knn(*(nearest[k] for k in pair)), chance),
        shared=work.for_pairs("nearest people", lambda key: nearest_people(work.centroids(key))),
    )  # fmt: skip


def pair_cells(p: PairValidation) -> Mapping[str, str]:
    m: Mutual | None = p["mutual"]
    return {f"Mutual {K}-NN": number(m and m.value), "Chance": number(m and m.chance)}


STAGE = Stage(
    name="mutual",
    meaning="mutual neighbours",
    about="pair",
    version=1,
    order=42,
    fields={"mutual": Mutual},
    compute=compute,
    metrics={"mutual_knn": lambda p: p["mutual"] and p["mutual"].value},
    pair_cells=pair_cells,
)
