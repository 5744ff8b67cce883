"""reliability: CKA of an encoder with itself on split halves of each person's samples, the ceiling of a pair's CKA."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings
from encsel.data.groups import recordings
from encsel.errors import BadCalibration
from encsel.metrics.linear_cka import cka_of_grams, gram
from encsel.validation.stage import Outcome, Outcomes, Pair, Stage, cells
from encsel.validation.stages.recordings import shared_halves
from encsel.validation.work import Work

MANY_SPLITS, FEW_SPLITS = 4, 2
MAX_FOR_MANY_SPLITS = 400
"""Largest number of people for which samples are split more often."""
MIN_FOR_HALVES = 10


@dataclass(frozen=True)
class Reliability:
    """Debiased CKA of an encoder with itself: centroids of one half of each person's samples against the other half.

    No partner can share more with an encoder than it shares with itself: the root of the product of two reliabilities
    is the ceiling of a pair's CKA, at half the samples.

    Attributes:
        by: "recordings" if the halves hold different recordings, else "samples".
    """

    value: float
    by: str
    n_people: int
    n_splits: int


def reliability(embeddings: Embeddings, recording: NDArray[np.str_] | None, *, seed: int) -> Reliability:
    """Mean over several splits of each person's samples.

    Args:
        recording: (rows,) recording of each sample; None if it is unknown.
    Raises:
        BadCalibration: fewer than 10 people have two samples.
    """
    values, by, n = [], "", 0
    n_splits = MANY_SPLITS if len(np.unique(embeddings.labels)) <= MAX_FOR_MANY_SPLITS else FEW_SPLITS
    for split in range(n_splits):
        half, by = half_of_samples(embeddings, recording, seed=seed * MANY_SPLITS + split)
        n = len(np.unique(embeddings.labels[half >= 0]))
        if n < MIN_FOR_HALVES:
            raise BadCalibration(
                f"{n} people have two samples or more; split halves need at least {MIN_FOR_HALVES}. Add samples."
            )
        grams = [gram(embeddings.rows(half == side).centroids) for side in (0, 1)]
        values.append(cka_of_grams(*grams).debiased)
    return Reliability(float(np.mean(values)), by, n, n_splits)


def half_of_samples(
    embeddings: Embeddings, recording: NDArray[np.str_] | None, *, seed: int
) -> tuple[NDArray[np.intp], str]:
    """(rows,) half of each sample, 0 or 1, or -1 for people who cannot be split; and what was split."""
    key = embeddings.modality, embeddings.name
    if recording is not None:
        people, halves = shared_halves([embeddings], {key: recording}, seed=seed)
        if len(people) >= len(embeddings.identities) / 2:
            return halves[key], "recordings"
    return shared_halves([embeddings], {key: embeddings.samples}, seed=seed)[1][key], "samples"


def compute(work: Work) -> Outcomes:
    outcomes = work.of_encoders(
        STAGE, "reliability",
        lambda key, _: reliability(work.encoders[key], recordings(work.encoders[key]), seed=work.seed),
    )  # fmt: skip

    def ceiling(pair: Pair) -> float | None:
        face, voice = (outcomes[key]["reliability"].value for key in pair)
        return None if face is None or voice is None else math.sqrt(max(face.value, 0) * max(voice.value, 0))

    for pair in work.pairs:
        outcomes[pair] = {"ceiling": Outcome(ceiling(pair))}
    return outcomes


NOTE = (
    "Split half: debiased CKA of one half of each person's samples with the other half. Ceiling: geometric mean of "
    "both encoders' split halves, which debiased CKA can hardly exceed at half the samples."
)

STAGE = Stage(
    name="reliability",
    about="encoder",
    order=24,
    fields={"reliability": Reliability},
    pair_fields={"ceiling": float},
    compute=compute,
    encoder_cells=lambda e, _: cells(e, {"Split half": "reliability.value"}),
    pair_cells=lambda p: cells(p, {"Ceiling": "ceiling"}),
    notes=lambda _: (NOTE,),
)
