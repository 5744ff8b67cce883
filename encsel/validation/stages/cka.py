"""cka: linear CKA of every pair, in all forms."""

from encsel.metrics.linear_cka import REFERENCE_SIZE, Cka, cka_of_grams, gram
from encsel.validation.stage import Outcomes, Stage, cells
from encsel.validation.work import Work

FORMS = ("biased", "debiased", "matched")


def compute(work: Work) -> Outcomes:
    return work.of_pairs(
        STAGE, "cka",
        lambda pair, grams: cka_of_grams(*(grams[k] for k in pair), matched_to=REFERENCE_SIZE),
        shared=work.for_pairs("Gram matrices", lambda key: gram(work.centroids(key))),
    )  # fmt: skip


STAGE = Stage(
    name="cka",
    about="pair",
    order=40,
    fields={"cka": Cka},
    compute=compute,
    always=True,
    metrics={f"cka_{form}": f"cka.{form}" for form in FORMS},
    pair_cells=lambda p: cells(p, {f"CKA {form}": f"cka.{form}" for form in FORMS}),
    notes=lambda _: (f"CKA matched: what biased CKA would be at {REFERENCE_SIZE} people.",),
)
