"""topology: cosine distances within and between people, of every encoder."""

from encsel.metrics.silhouette import silhouette
from encsel.metrics.topology import Topology, topology
from encsel.validation.stage import Key, Outcomes, Stage, cells
from encsel.validation.work import Work

CELLS = {"Intra": "topology.intra", "Inter": "topology.inter", "Gap": "topology.gap", "Silhouette": "silhouette"}


def compute(work: Work) -> Outcomes:
    def one(key: Key, _: object) -> Topology:
        e = work.counted(key)
        return topology(e.vectors, e.labels, reference=work.reference)

    def silhouette_of(key: Key, _: object) -> float:
        e = work.counted(key)
        return silhouette(e.vectors, e.labels)

    outcomes = work.of_encoders(STAGE, "topology", one, more={"protocol": work.protocol})
    for key, outcome in work.of_encoders(STAGE, "silhouette", silhouette_of).items():
        outcomes[key] |= outcome
    return outcomes


STAGE = Stage(
    name="topology",
    about="encoder",
    order=22,
    fields={"topology": Topology, "silhouette": float},
    compute=compute,
    version=2,
    metrics={"compactness_gap": "topology.gap", "silhouette": "silhouette"},
    encoder_cells=lambda e, _: cells(e, CELLS),
    notes=lambda _: (
        "Intra, Inter, Gap: cosine distance within people, between people, and the difference. Silhouette: -1 to 1, "
        "larger if samples lie closer to their person than to the next one.",
    ),
)
