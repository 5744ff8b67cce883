"""geodesic: CKA of every pair along the graphs of nearest people."""

from encsel.metrics.geodesic import geodesic_gram
from encsel.metrics.linear_cka import REFERENCE_SIZE, Cka, cka_of_grams
from encsel.validation.stage import Outcomes, Stage, cells
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    return work.of_pairs(
        STAGE, "geodesic",
        lambda pair, grams: cka_of_grams(*(grams[k] for k in pair), matched_to=REFERENCE_SIZE),
        shared=work.for_pairs("geodesic kernels", lambda key: geodesic_gram(work.centroids(key))),
    )  # fmt: skip


STAGE = Stage(
    name="geodesic",
    about="pair",
    order=41,
    fields={"geodesic": Cka},
    compute=compute,
    metrics={"geodesic_cka": "geodesic.debiased"},
    pair_cells=lambda p: cells(p, {"Geodesic CKA": "geodesic.debiased"}),
)
