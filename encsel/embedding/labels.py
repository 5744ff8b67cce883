"""Whether samples are of the people they are named after: wrong labels, samples of nobody, people counted twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import MODALITIES, Embeddings, Modality, Vectors
from encsel.data.sampling import limit_rows
from encsel.metrics.centroids import unit_rows

VERIFIES = 0.1
"""Largest verification EER of an encoder that can tell which samples are misplaced."""
MAX_PEOPLE, MAX_ROWS = 500, 20
"""Most people, and samples of each, that are looked at."""
MIN_ROWS = 3
"""Fewest samples of a person among which one that does not belong is seen."""
SLACK = 1 / 3
"""A sample is unlike its person if it is no more like it than a stranger is, within so much of the distance between a
stranger and a person's own sample; it is like another if it is as like that one as an own sample, within as much."""
FEW, FEW_OF_NOBODY = 0.01, 0.05
"""Shares of the samples that may be like another person, or like nobody, without a word. Of good recordings in the
wild 1 in 50 is like nobody."""
TWINS = 0.1
"""Two people may be one if they are as alike as the halves of all people's samples but for so large a share of them."""


@dataclass(frozen=True)
class Misplaced:
    """Samples of one modality that do not belong to their person, by the encoder that verifies best.

    Attributes:
        like_another: share of the samples that are like another person instead.
        like_nobody: share that are like no person of the set.
        people: numbers of the people, by place in the order of names, who have one that is like another.
    """

    encoder: str
    like_another: float
    like_nobody: float
    people: tuple[int, ...]


def misplaced(embeddings: Embeddings) -> Misplaced | None:
    """The misplaced samples of one encoder; None if no person has MIN_ROWS samples."""
    x, owner, places = _rows(embeddings)
    counts = np.bincount(owner)
    sums = np.zeros((len(counts), x.shape[1]))
    np.add.at(sums, owner, x)
    to_others = x @ unit_rows(sums).T
    own = (x * unit_rows(sums[owner] - x)).sum(axis=1)
    several = counts[owner] >= MIN_ROWS
    if not several.any():
        return None
    to_others[np.arange(len(x)), owner] = np.nan
    stranger, usual = float(np.nanmedian(to_others)), float(np.median(own[several]))
    margin = SLACK * (usual - stranger)
    unlike = several & (own < stranger + margin)
    closest = np.nanmax(to_others, axis=1)
    like_another = unlike & (closest > usual - margin)
    n = several.sum()
    people = tuple(1 + places[i] for i in np.unique(owner[like_another]).tolist())
    share = float(like_another.sum() / n)
    return Misplaced(embeddings.name, share, float(unlike.sum() / n) - share, people)


def twins_of(embeddings: Embeddings) -> set[tuple[int, int]]:
    """Numbers of people, by place in the order of names, who are as alike as two halves of one person's samples."""
    x, owner, places = _rows(embeddings)
    n = int(owner.max()) + 1
    second = np.zeros(len(x), bool)
    for person in range(n):
        second[np.flatnonzero(owner == person)[1::2]] = True
    sums = np.zeros((2, n, x.shape[1]))
    np.add.at(sums, (second.astype(np.intp), owner), x)
    halves = unit_rows(sums[0]), unit_rows(sums[1])
    has_both = np.bincount(owner) >= 2 * MIN_ROWS
    if not has_both.any():
        return set()
    alike = (halves[0] * halves[1]).sum(axis=1)[has_both]
    threshold = float(np.quantile(alike, TWINS))
    # Halves with halves: means of more samples would be more alike.
    close = np.triu(np.maximum(halves[0] @ halves[1].T, halves[1] @ halves[0].T) > threshold, 1)
    return {(1 + places[i], 1 + places[j]) for i, j in np.argwhere(close).tolist()}


def notes_on_labels(embeddings: Sequence[Embeddings], verification: Mapping[tuple[Modality, str], float]) -> list[str]:
    """What looks wrong with the labels of a set, by the encoder of each modality with the lowest verification EER.

    Args:
        embeddings: of the same people.
        verification: verification EERs, as far as they are known, by (modality, name).
    """
    notes, twins = [], []
    for modality in MODALITIES:
        able = [e for e in embeddings if e.modality == modality and verification.get((modality, e.name), 1) <= VERIFIES]
        if not able:
            continue
        best = min(able, key=lambda e: verification[modality, e.name])
        twins.append(twins_of(best))
        found = misplaced(best)
        if found is None:
            continue
        if found.like_another > FEW:
            people = ", ".join(map(str, found.people[:5])) + (", ..." if len(found.people) > 5 else "")
            notes.append(
                f"{100 * found.like_another:.0f} % of the {modality} samples are like another person and unlike their "
                f"own, by {best.name}: check their labels. Predicted EERs are too high with wrong labels. People, by "
                f"their place in the order of names: {people}."
            )
        if found.like_nobody > FEW_OF_NOBODY:
            notes.append(
                f"{100 * found.like_nobody:.0f} % of the {modality} samples are like nobody, by {best.name}: they may "
                f"show no {modality}. Leave them out; predicted EERs are too high with them."
            )
    if len(twins) == len(MODALITIES) and (both := sorted(set.intersection(*twins))):
        people = "; ".join(f"{i} and {j}" for i, j in both[:5]) + ("; ..." if len(both) > 5 else "")
        notes.append(
            f"{len(both)} pairs of people look and sound alike, and may be one person under two names: {people}, by "
            "their place in the order of names. Predicted EERs are too high with them."
        )
    return notes


def _rows(embeddings: Embeddings) -> tuple[Vectors, NDArray[np.intp], list[int]]:
    """Centred unit rows, who each is of, and the place of those people in the order of names."""
    people, counts = np.unique(embeddings.labels, return_counts=True)
    chosen = np.flatnonzero(counts >= min(MIN_ROWS, counts.max()))[:MAX_PEOPLE]
    rows = limit_rows(embeddings.rows(np.isin(embeddings.labels, people[chosen])), MAX_ROWS, seed=0)
    x = unit_rows(rows.vectors.astype(np.float64))
    owner = np.searchsorted(people[chosen], rows.labels)
    return unit_rows(x - x.mean(axis=0)), owner, chosen.tolist()
