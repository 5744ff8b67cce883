"""topology: cosine distances within and between people, of every encoder."""

from encsel.metrics.topology import Topology, topology
from encsel.validation.stage import Outcomes, Stage, cells
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    return work.of_encoders(
        STAGE, "topology", lambda key, _: topology(work.encoders[key].vectors, work.encoders[key].labels)
    )


STAGE = Stage(
    name="topology",
    about="encoder",
    order=22,
    fields={"topology": Topology},
    compute=compute,
    metrics={"compactness_gap": "topology.gap"},
    encoder_cells=lambda e, _: cells(e, {"Intra": "topology.intra", "Inter": "topology.inter", "Gap": "topology.gap"}),
    notes=lambda _: ("Intra, Inter, Gap: cosine distance within people, between people, and the difference.",),
)
