"""reliability: CKA of an encoder with itself on split halves of everybody's samples, the ceiling of a pair's CKA."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings
from encsel.data.groups import recordings
from encsel.data.sampling import pick
from encsel.errors import BadCalibration
from encsel.metrics.centroids import centroids
from encsel.metrics.linear_cka import cka_of_grams, gram
from encsel.storage.sections import number
from encsel.validation.result import EncoderValidation, Validation
from encsel.validation.stage import Outcome, Outcomes, Pair, Stage
from encsel.validation.work import Work

MANY_SPLITS, FEW_SPLITS = 4, 2
MAX_FOR_MANY_SPLITS = 400
"""People up to which samples are split more often."""
MIN_FOR_HALVES = 10


@dataclass(frozen=True)
class Reliability:
    """Debiased CKA of an encoder with itself: centroids of one half of each person's samples against the other half.

    No partner can share more with an encoder than the encoder does with itself: the root of two reliabilities is the
    ceiling of a pair's CKA, at half the samples.

    Attributes:
        by: "recordings" if the halves hold different recordings, else "samples".
    """

    value: float
    by: str
    n_people: int
    n_splits: int


def reliability(embeddings: Embeddings, recording: NDArray[np.str_] | None, *, seed: int) -> Reliability:
    """Mean over several splits of everybody's samples.

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
                f"{n} people have two samples or more; split halves need at least {MIN_FOR_HALVES} such people."
            )
        grams = [gram(centroids(embeddings.rows(half == side))) for side in (0, 1)]
        values.append(cka_of_grams(*grams).debiased)
    return Reliability(float(np.mean(values)), by, n, n_splits)


def half_of_samples(
    embeddings: Embeddings, recording: NDArray[np.str_] | None, *, seed: int
) -> tuple[NDArray[np.intp], str]:
    """(rows,) half of each sample, 0 or 1, or -1 for people who cannot be split; and whether recordings were split."""
    names = embeddings.samples if recording is None else recording
    by = "samples" if recording is None else "recordings"
    parts = np.unique(np.stack([embeddings.labels, names]), axis=1)
    people, counts = np.unique(parts[0], return_counts=True)
    if recording is not None and (counts > 1).mean() < 0.5:
        return half_of_samples(embeddings, None, seed=seed)
    half_of: dict[tuple[str, str], int] = {}
    ends = np.cumsum(counts)
    for person, count, end in zip(people.tolist(), counts.tolist(), ends.tolist(), strict=True):
        of_person = parts[1, end - count : end].tolist()
        first = set(pick([f"{person}/{part}" for part in of_person], count // 2, seed=seed).tolist())
        if count > 1:
            half_of.update({(person, part): 0 if i in first else 1 for i, part in enumerate(of_person)})
    keys = zip(embeddings.labels.tolist(), names.tolist(), strict=True)
    return np.array([half_of.get(key, -1) for key in keys], dtype=np.intp), by


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


def encoder_cells(e: EncoderValidation, _: Validation) -> Mapping[str, str]:
    r: Reliability | None = e["reliability"]
    return {"Split half": number(r and r.value)}


def notes(_: Validation) -> Sequence[str]:
    return (
        "Split half: debiased CKA of one half of everybody's samples with the other half. Ceiling: root of both "
        "encoders' split halves, which debiased CKA can hardly exceed at half the samples.",
    )


STAGE = Stage(
    name="reliability",
    meaning="split halves: the ceiling of CKA",
    about="encoder",
    version=1,
    order=24,
    fields={"reliability": Reliability},
    pair_fields={"ceiling": float},
    compute=compute,
    encoder_cells=encoder_cells,
    pair_cells=lambda p: {"Ceiling": number(p["ceiling"])},
    notes=notes,
)
