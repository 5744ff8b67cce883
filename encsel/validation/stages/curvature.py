"""curvature: local curvature of every encoder, with a flat control."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encsel.core import Vectors
from encsel.metrics.curvature import Curvature, curvature, curvature_points, flat_control
from encsel.metrics.neighbours import Neighbours
from encsel.storage.sections import Section, significant, table
from encsel.validation.result import Validation
from encsel.validation.shared import neighbours_of_counted
from encsel.validation.stage import Outcomes, Stage, cells
from encsel.validation.work import Work

MEAN_CURVATURE = "curvature.encoder.mean_absolute_median"
CELLS = {
    "|H|": MEAN_CURVATURE, "flat": "curvature.flat.mean_absolute_median", "K": "curvature.encoder.gaussian_median"
}  # fmt: skip
FLAT_POINTS = 300
"""Number of points of the flat control, of which only the median is used."""


@dataclass(frozen=True)
class Curved:
    """Curvature, and that of a flat cloud with the same spread; the reference form has no control."""

    encoder: Curvature
    flat: Curvature | None


def curved(rows: Vectors, neighbours: Neighbours, *, reference: bool, seed: int) -> Curved:
    """Curvature at the points that the released code draws, and of the flat control in the corrected form."""
    points = curvature_points(len(rows))
    index = neighbours.index[np.searchsorted(neighbours.rows, points)]
    measured = curvature(rows, points, index, reference=reference)
    n_flat = min(FLAT_POINTS, len(points))
    flat = None if reference else flat_control(rows, n_points=n_flat, k=index.shape[1], seed=seed)
    return Curved(measured, flat)


def compute(work: Work) -> Outcomes:
    return work.of_encoders(
        STAGE, "curvature",
        lambda key, neighbours: curved(*neighbours[key], reference=work.reference, seed=work.seed),
        shared=lambda keys: neighbours_of_counted(work, keys), more={"protocol": work.protocol},
    )  # fmt: skip


def notes(validation: Validation) -> Sequence[str]:
    form = "released code's" if validation.protocol == "reference" else "corrected"
    return (
        f"|H|, K: median absolute mean curvature and Gaussian curvature ({form} form), in one over the unit of the "
        "embeddings and its square; flat: the same for a Gaussian cloud of equal covariance, which has no curvature.",
    )


def sections(validation: Validation) -> Sequence[Section]:
    rows = []
    for e in validation.encoders:
        curved: Curved | None = e["curvature"]
        if curved is None:
            continue
        c = curved.encoder
        (low, high), median = c.mean_absolute_quartiles, c.mean_absolute_median
        of_mean = {"|H| 25 %": low, "|H| 50 %": median, "|H| 75 %": high, "|H| mean": c.mean_absolute_mean}
        of_gaussian = {"K 50 %": c.gaussian_median, "K mean": c.gaussian_mean, "K sd": c.gaussian_std}
        numbers = {**of_mean, "H sd": c.mean_std, **of_gaussian}
        rows.append({"Encoder": e.name, **{name: significant(value) for name, value in numbers.items()}})
    note = (
        "Over the points at which curvature was measured: quartiles and mean of absolute mean curvature |H|, standard "
        "deviation of H, median, mean and standard deviation of Gaussian curvature K."
    )
    return table("Curvature", rows, note)


STAGE = Stage(
    name="curvature",
    about="encoder",
    order=21,
    fields={"curvature": Curved},
    compute=compute,
    version=2,
    metrics={"mean_curvature": MEAN_CURVATURE},
    encoder_cells=lambda e, _: cells(e, CELLS, significant),
    notes=notes,
    sections=sections,
)
