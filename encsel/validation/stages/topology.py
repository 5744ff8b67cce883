"""topology: cosine distances within and between people, of every encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from encsel.metrics.topology import Topology, topology
from encsel.storage.sections import number
from encsel.validation.result import EncoderValidation, Validation
from encsel.validation.stage import Key, Outcomes, Stage
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    def one(key: Key, _: None) -> Topology:
        return topology(work.encoders[key].vectors, work.encoders[key].labels)

    return work.of_encoders(STAGE, "topology", one)


def encoder_cells(e: EncoderValidation, _: Validation) -> Mapping[str, str]:
    t: Topology | None = e["topology"]
    return {"Intra": number(t and t.intra), "Inter": number(t and t.inter), "Gap": number(t and t.gap)}


def notes(_: Validation) -> Sequence[str]:
    return ("Intra, Inter, Gap: cosine distance within people, between people, and the difference.",)


STAGE = Stage(
    name="topology",
    meaning="distances within and between people",
    about="encoder",
    version=1,
    order=22,
    fields={"topology": Topology},
    compute=compute,
    metrics={"compactness_gap": lambda e: e["topology"].gap if e["topology"] else None},
    encoder_cells=encoder_cells,
    notes=notes,
)
