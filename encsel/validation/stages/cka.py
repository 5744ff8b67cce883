"""cka: linear CKA of every pair, in all forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from encsel.metrics.linear_cka import REFERENCE_SIZE, Cka, cka_of_grams, gram
from encsel.storage.sections import number
from encsel.validation.result import PairValidation, Validation
from encsel.validation.stage import Outcomes, Stage
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    return work.of_pairs(
        STAGE, "cka",
        lambda pair, grams: cka_of_grams(*(grams[k] for k in pair), matched_to=REFERENCE_SIZE),
        shared=work.for_pairs("Gram matrices", lambda key: gram(work.centroids(key))),
    )  # fmt: skip


def pair_cells(p: PairValidation) -> Mapping[str, str]:
    c: Cka | None = p["cka"]
    return {
        "CKA biased": number(c and c.biased), "CKA debiased": number(c and c.debiased),
        "CKA matched": number(c and c.matched),
    }  # fmt: skip


def notes(_: Validation) -> Sequence[str]:
    return (f"CKA matched: what biased CKA would be at {REFERENCE_SIZE} people.",)


STAGE = Stage(
    name="cka",
    meaning="linear CKA in all forms",
    about="pair",
    version=1,
    order=40,
    fields={"cka": Cka},
    compute=compute,
    always=True,
    metrics={
        "cka_biased": lambda p: p["cka"] and p["cka"].biased,
        "cka_debiased": lambda p: p["cka"] and p["cka"].debiased,
        "cka_matched": lambda p: p["cka"] and p["cka"].matched,
    },
    pair_cells=pair_cells,
    notes=notes,
)
