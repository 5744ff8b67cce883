"""spectral: spectra of the graphs of nearest people, and the distance between those of a pair."""

from dataclasses import dataclass

import numpy as np

from encsel.metrics.spectral import spectral_gap, spectrum
from encsel.validation.stage import Outcome, Outcomes, Pair, Stage, cells
from encsel.validation.work import Work


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the normalised Laplacian of neighbours, divided by the largest, ascending."""

    values: tuple[float, ...]


def compute(work: Work) -> Outcomes:
    outcomes = work.of_encoders(
        STAGE, "spectrum", lambda key, _: Spectrum(tuple(spectrum(work.centroids(key)).tolist()))
    )

    def gap(pair: Pair) -> float | None:
        face, voice = (outcomes[key]["spectrum"].value for key in pair)
        return None if face is None or voice is None else spectral_gap(np.array(face.values), np.array(voice.values))

    for pair in work.pairs:
        outcomes[pair] = {"spectral_gap": Outcome(gap(pair))}
    return outcomes


STAGE = Stage(
    name="spectral",
    about="encoder",
    order=23,
    fields={"spectrum": Spectrum},
    pair_fields={"spectral_gap": float},
    compute=compute,
    metrics={"spectral_gap": "spectral_gap"},
    pair_cells=lambda p: cells(p, {"Spectral gap": "spectral_gap"}),
)
