"""cka: linear CKA of every pair, in all forms, and the upper bound on EER that follows from it."""

from dataclasses import dataclass

from encsel.matching.bound import eer_bound
from encsel.metrics.linear_cka import REFERENCE_SIZE, Cka, Gram, cka_of_grams, gram
from encsel.validation.stage import Outcomes, Stage, cells
from encsel.validation.work import Work

FORMS = ("biased", "debiased", "matched")


@dataclass(frozen=True)
class Alignment(Cka):
    """CKA of one pair, and `eer_bound`, the bound of `encsel.matching.bound` on EER if scores are Gaussian."""

    eer_bound: float


def aligned(face: Gram, voice: Gram) -> Alignment:
    """CKA of one pair and its bound, from `gram`s."""
    cka = cka_of_grams(face, voice, matched_to=REFERENCE_SIZE)
    return Alignment(cka.biased, cka.debiased, cka.matched, eer_bound(cka.debiased))


def compute(work: Work) -> Outcomes:
    return work.of_pairs(
        STAGE, "cka",
        lambda pair, grams: aligned(*(grams[k] for k in pair)),
        shared=work.for_pairs("Gram matrices", lambda key: gram(work.centroids(key))),
    )  # fmt: skip


STAGE = Stage(
    name="cka",
    about="pair",
    order=40,
    fields={"cka": Alignment},
    compute=compute,
    version=2,
    always=True,
    metrics={f"cka_{form}": f"cka.{form}" for form in FORMS},
    pair_cells=lambda p: cells(p, {**{f"CKA {form}": f"cka.{form}" for form in FORMS}, "EER by CKA": "cka.eer_bound"}),
    notes=lambda _: (
        f"CKA matched: what biased CKA would be at {REFERENCE_SIZE} people. EER by CKA: upper bound on "
        "the EER of the best linear matcher, fitted on many people, if scores are Gaussian; it may be far lower.",
    ),
)
