"""Check whether samples belong to their person: wrong labels, samples of nobody, people counted twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from encsel.core import MODALITIES, Embeddings, Vectors
from encsel.data.sampling import limit_rows
from encsel.matching.eer import eer
from encsel.progress import Progress, Silent, each
from encsel.rows import add_rows, unit_rows

ABLE = 0.045
"""Largest EER of people's own samples against strangers (misplaced ones left out) of an encoder that can find misplaced
samples: in 12 simulated and 3 real sets without a fault it found at most 2 in 1000 samples like another person."""
MAX_PEOPLE, MAX_ROWS = 500, 20
"""Largest number of people, and of samples of each, that are examined."""
MIN_PEOPLE = 12
"""Fewest people among whom misplaced samples are looked for."""
MIN_ROWS = 3
"""Fewest samples of a person among which one that does not belong can be found."""
SLACK = 1 / 3
"""A sample is unlike its person if it is no closer to that person than a stranger is, within this fraction of the
difference between a stranger and one of the person's samples; it is like another person if it is as close as that
person's samples, within the same fraction."""
FEW, FEW_OF_NOBODY = 0.01, 0.05
"""Fractions of the samples that may be like another person, or like nobody, without a note. In good recordings made in
the wild 1 in 50 is like nobody."""
TWINS = 0.1
"""Two people may be one if they are more alike than this fraction of the halves of single people's samples."""
MOST_TWINS = 0.2
"""Number of such pairs per person from which the encoder is taken to be unable to tell."""


@dataclass(frozen=True)
class Misplaced:
    """Samples that do not belong to their person, by one encoder.

    Attributes:
        eer: EER of people's own samples, misplaced ones left out, against strangers.
        like_another: share of the samples that are like another person instead.
        like_nobody: share that are like no person of the set.
        people: positions, in the order of names, of the people who have a sample that is like another person.
    """

    eer: float
    like_another: float
    like_nobody: float
    people: tuple[int, ...]


def misplaced(embeddings: Embeddings, *, at_most: float = 1.0) -> Misplaced | None:
    """The misplaced samples of one encoder; None if no person has MIN_ROWS samples, or the EER is over `at_most`."""
    x, owner, places = _rows(embeddings)
    counts = np.bincount(owner)
    sums = np.zeros((len(counts), x.shape[1]))
    add_rows(sums, owner, x)
    to_others = x @ unit_rows(sums).T
    own = (x * unit_rows(sums[owner] - x)).sum(axis=1)
    several = counts[owner] >= MIN_ROWS
    if not several.any():
        return None
    is_other = owner[:, None] != np.arange(len(counts))
    stranger, usual = float(np.median(to_others[is_other])), float(np.median(own[several]))
    margin = SLACK * (usual - stranger)
    unlike = several & (own < stranger + margin)
    like_another = unlike & (np.where(is_other, to_others, -1).max(axis=1) > usual - margin)
    kept = several & ~unlike
    # Where errors of one kind are over `at_most` and those of the other kind yet more, so is the EER: nothing to sort.
    genuine = np.sort(own[kept])
    place = min(int(at_most * len(genuine)) + 1, len(genuine) - 1)
    rejected = float((genuine < genuine[place]).mean())
    accepted = float(((to_others >= genuine[place]) & is_other)[kept].sum() / is_other[kept].sum())
    if accepted > rejected > at_most:
        return None
    rate = eer(own[kept], to_others[kept][is_other[kept]])
    if rate > at_most:
        return None
    people = tuple(1 + places[i] for i in np.unique(owner[like_another]).tolist())
    share, share_unlike = (float(found.sum() / several.sum()) for found in (like_another, unlike))
    return Misplaced(rate, share, share_unlike - share, people)


def twins_of(embeddings: Embeddings) -> set[tuple[int, int]]:
    """Positions, in the order of names, of pairs of people who are as alike as two halves of one person's samples.

    Empty if there are so many that the encoder cannot tell.
    """
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
    means = unit_rows(sums.sum(axis=0))
    close = np.triu(means @ means.T > threshold, 1)
    pairs = np.argwhere(close).tolist()
    return {(1 + places[i], 1 + places[j]) for i, j in pairs} if len(pairs) <= MOST_TWINS * n else set()


def notes_on_labels(embeddings: Sequence[Embeddings], progress: Progress | None = None) -> list[str]:
    """Notes on labels that look wrong, by the best encoder of each modality, which all have the same people."""
    notes: list[str] = []
    twins = []
    if len(embeddings[0].identities) < MIN_PEOPLE:
        return notes
    able = partial(misplaced, at_most=ABLE)
    found_by = each(able, progress or Silent(), "looking for wrong labels", embeddings)
    for modality in MODALITIES:
        by_encoder = zip(found_by, embeddings, strict=True)
        of_encoders = [(m, e) for m, e in by_encoder if e.modality == modality and m is not None]
        found, best = min(of_encoders, key=lambda one: one[0].eer, default=(None, None))
        if found is None or best is None:
            continue
        twins.append(twins_of(best))
        if found.like_another > FEW:
            people = ", ".join(map(str, found.people[:5])) + (", ..." if len(found.people) > 5 else "")
            notes.append(
                f"{100 * found.like_another:.0f} % of the {modality} samples are like another person and unlike their "
                f"own, according to {best.name}: check their labels. Wrong labels make predicted EERs a little too "
                f"high. People, by position in the order of names: {people}."
            )
        if found.like_nobody > FEW_OF_NOBODY:
            notes.append(
                f"{100 * found.like_nobody:.0f} % of the {modality} samples are like nobody, according to {best.name}: "
                f"they may contain no {modality}. Leave them out; they make predicted EERs a little too high."
            )
    if len(twins) == len(MODALITIES) and (both := sorted(set.intersection(*twins))):
        people = "; ".join(f"{i} and {j}" for i, j in both[:5]) + ("; ..." if len(both) > 5 else "")
        notes.append(
            f"{len(both)} pairs of people look and sound alike, and may be one person under two names: {people}, by "
            "position in the order of names. They make predicted EERs too low."
        )
    return notes


def _rows(embeddings: Embeddings) -> tuple[Vectors, NDArray[np.intp], list[int]]:
    """Centred unit rows, the person of each, and the positions of those people in the order of names."""
    counts = embeddings.counts
    chosen = np.flatnonzero(counts >= min(MIN_ROWS, counts.max()))[:MAX_PEOPLE]
    rows = limit_rows(embeddings.rows(np.isin(embeddings.owners, chosen)), MAX_ROWS, seed=0)
    x = unit_rows(rows.vectors.astype(np.float64))
    return unit_rows(x - x.mean(axis=0)), rows.owners, chosen.tolist()
