"""health: whether each encoder's embeddings are sound within its own modality."""

from __future__ import annotations

from collections.abc import Mapping

from encsel.embedding.health import Health
from encsel.storage.sections import number
from encsel.validation.result import EncoderValidation, PairValidation, Validation
from encsel.validation.stage import Outcomes, Stage
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    return work.of_encoders(STAGE, "health", lambda key, _: work.prepared.health(work.encoders[key]))


def columns(_: PairValidation, face: EncoderValidation, voice: EncoderValidation) -> dict[str, float | None]:
    rates = [e["health"].unimodal_eer for e in (face, voice)]
    return {"unimodal_eer": None if None in rates else (rates[0] + rates[1]) / 2}


def encoder_cells(e: EncoderValidation, _: Validation) -> Mapping[str, str]:
    return {"Verif. EER": number(e["health"].unimodal_eer)}


STAGE = Stage(
    name="health",
    meaning="verification EER and soundness of every encoder",
    about="encoder",
    version=1,
    order=10,
    fields={"health": Health},
    compute=compute,
    always=True,
    columns=columns,
    labels={"unimodal_eer": ("verification EER, mean of the two", "fraction")},
    encoder_cells=encoder_cells,
)
