"""health: whether each encoder's embeddings are sound within its own modality."""

from encsel.embedding.health import Health
from encsel.validation.result import EncoderValidation, PairValidation
from encsel.validation.stage import Outcomes, Stage, cells
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    return work.of_encoders(STAGE, "health", lambda key, _: work.prepared.healths[key])


def columns(_: PairValidation, face: EncoderValidation, voice: EncoderValidation) -> dict[str, float | None]:
    rates = [e["health"].unimodal_eer for e in (face, voice)]
    return {"unimodal_eer": None if None in rates else (rates[0] + rates[1]) / 2}


STAGE = Stage(
    name="health",
    about="encoder",
    order=10,
    fields={"health": Health},
    compute=compute,
    version=3,
    always=True,
    columns=columns,
    labels={"unimodal_eer": ("verification EER, mean of the two", "fraction")},
    encoder_cells=lambda e, _: cells(e, {"Verif. EER": "health.unimodal_eer"}),
)
