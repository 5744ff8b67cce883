"""cka: linear CKA of every pair, in all forms, and the EER that some matcher would keep by it."""

from dataclasses import dataclass

from encsel.matching.bound import eer_bound
from encsel.metrics.linear_cka import REFERENCE_SIZE, Cka, Gram, cka_of_grams, gram
from encsel.validation.stage import Outcomes, Stage, cells
from encsel.validation.work import Work

FORMS = ("biased", "debiased", "matched")


@dataclass(frozen=True)
class Alignment(Cka):
    """CKA of one pair; by `encsel.matching.bound` some matcher keeps `eer_bound` if scores are Gaussian."""

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
        f"CKA matched: what biased CKA would be at {REFERENCE_SIZE} people. EER by CKA: what some linear "
        "matcher would have at most, fitted on many people, if its scores were Gaussian; it may be far lower.",
    ),
)
