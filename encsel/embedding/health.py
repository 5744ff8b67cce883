"""Check whether the embeddings of an encoder are sound, and whether a set is what it seems."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import MODALITIES, Embeddings, Vectors
from encsel.data.identities import twins
from encsel.data.sampling import limit_rows, pick
from encsel.embedding.model_run import BATCH_DEPENDENT, NOT_REPEATABLE
from encsel.errors import BadCalibration
from encsel.matching.eer import eer
from encsel.matching.folds import MIN_FOR_FOLDS
from encsel.metrics.centroids import centred_rows
from encsel.metrics.linear_cka import MIN_FOR_CKA, cka_of_grams, gram
from encsel.metrics.topology import topology
from encsel.prediction.evidence import evidence_folds
from encsel.rows import blocks, equal_rows, mean_of_rows, sums_of_groups, taken, unit_rows

MAX_ROWS = 1500
"""Largest number of rows for the verification EER, which scores all pairs of rows."""
AT_CHANCE = 0.4
ROUNDING = 1e-5
"""Deviation of the rows from their mean, relative to the length of the mean, that may be mere rounding error."""
FEW_SHARED = 0.01
"""Fraction of each person's rows that may equal rows of other people, on average, without harm."""

NO_VERIFICATION = "one sample a person: cannot be checked"
DOES_NOT_VERIFY = "does not tell its own people apart"
CONSTANT = "nearly constant"
SHARED_ROWS = "different people have the same embedding"
LABELS_INSIDE = "the vectors contain the labels"
SAME_VECTORS = "face and voice have the same vectors"
SAME_PEOPLE = "some people may be counted twice"
DOUBTS = {
    SHARED_ROWS: ": the same file or vector under two names, or one placeholder for many; no gate passes",
    LABELS_INSIDE: ": one-hot rows, or columns that number the people, give away who it is; no gate passes",
    SAME_VECTORS: ": copied, cast, scaled or rotated, so no face is matched with a voice; no gate passes",
    SAME_PEOPLE: ": names differ only in letter case, leading zeros, or dots and blanks; no gate passes",
}
"""Flags of pairs whose numbers say nothing about faces and voices, and their meaning."""

LIKE = 0.99
"""Correlation above which two columns of numbers count as the same."""
NEARLY = 1e-4
"""Two rows whose cosine is less than this below 1, or above -1, count as the same."""
N_DIRECTIONS = 16
"""Number of directions from which rows are compared before they are in full."""
MIN_FOR_LABELS = 12
"""Fewest people, and columns, to compare: among fewer a match can occur by chance."""
MAX_PEOPLE = 500
"""Largest number of people in comparisons of two encoders with each other."""
MAX_MEASURED = 2000
"""Largest number of people on whom it is tried whether an encoder can be measured."""


@dataclass(frozen=True)
class Health:
    """One encoder within its own modality.

    Attributes:
        unimodal_eer: verification EER by cosine, same person against different people, in [0, 1]; None with `reason`.
        intra: mean cosine distance of a sample to its own person's centroid, in [0, 2].
        inter: mean cosine distance between centroids of different people, in [0, 2].
        skipped: fraction of the modality's samples that this encoder could not use.
        findings: what is wrong, in words; empty for a sound encoder.
    """

    unimodal_eer: float | None
    reason: str | None
    intra: float
    inter: float
    skipped: float
    findings: tuple[str, ...]


def examine(
    embeddings: Embeddings,
    *,
    seed: int = 0,
    n_skipped: int = 0,
    doubts: Sequence[str] | None = None,
) -> Health:
    """The health of one encoder.

    Args:
        embeddings: at least 2 people.
        n_skipped: number of samples that this encoder could not use.
        doubts: what `doubts_of_encoder` returned, if it was called.
    """
    try:
        apart = topology(embeddings.vectors, embeddings.labels, min_samples=1)
        intra, inter = apart.intra, apart.inter
    except BadCalibration:  # every row is the same
        intra = inter = 0.0
    eer_within = verification_eer(embeddings, seed=seed)
    centre = mean_of_rows(embeddings.vectors)
    tells_apart = eer_within is None or eer_within <= AT_CHANCE
    if not tells_apart:
        # If all vectors point the same way, only the cosines of their deviations from the mean distinguish people.
        centred = verification_eer(embeddings, seed=seed, centre=centre)
        tells_apart = centred is not None and centred <= AT_CHANCE
    wrong = {
        CONSTANT: _deviation(embeddings.vectors, centre) <= ROUNDING * np.linalg.norm(centre),
        **dict.fromkeys(doubts_of_encoder(embeddings) if doubts is None else doubts, True),
        DOES_NOT_VERIFY: not tells_apart,
        NOT_REPEATABLE: NOT_REPEATABLE in embeddings.traits.flags,
        BATCH_DEPENDENT: BATCH_DEPENDENT in embeddings.traits.flags,
    }
    reason = NO_VERIFICATION if eer_within is None else None
    skipped = n_skipped / max(n_skipped + len(embeddings.vectors), 1)
    findings = tuple(finding for finding, holds in wrong.items() if holds)
    return Health(eer_within, reason, intra, inter, skipped, findings)


def _deviation(x: Vectors, centre: Vectors) -> float:
    """Root mean square distance of the rows from a point."""
    squares = np.empty(len(x))
    for start, block in blocks(x):
        squares[start : start + len(block)] = np.square(block - centre).sum(axis=1)
    return float(np.sqrt(squares.mean()))


def verification_eer(embeddings: Embeddings, *, seed: int, centre: Vectors | None = None) -> float | None:
    """EER over all pairs of at most MAX_ROWS rows, minus `centre`; None if nobody has two rows."""
    people, counts = np.array(embeddings.identities), embeddings.counts
    if len(people) > MAX_ROWS // 2:
        several, single = people[counts > 1].tolist(), people[counts == 1].tolist()
        chosen = [several[i] for i in pick(several, MAX_ROWS // 2, seed=seed).tolist()]
        more = [single[i] for i in pick(single, MAX_ROWS // 2 - len(chosen), seed=seed).tolist()]
        embeddings = embeddings.of_people(chosen + more)
    scored = limit_rows(embeddings, max(2, MAX_ROWS // len(embeddings.identities)), seed=seed)
    x = scored.vectors if centre is None else scored.vectors - centre
    rows = unit_rows(x.astype(np.float32))
    upper = ~np.tri(len(rows), dtype=bool)
    same = (scored.owners[:, None] == scored.owners)[upper]
    if not same.any() or same.all():
        return None
    scores = (rows @ rows.T)[upper]
    return eer(scores[same], scores[~same])


def _shared_rows(embeddings: Embeddings) -> list[list[int]]:
    """Equal rows of different people, by content."""
    owners = embeddings.owners
    groups = equal_rows(embeddings.vectors, embeddings.row_hashes)
    return [where for where in groups if (owners[where] != owners[where[0]]).any()]


def _share_many_rows(embeddings: Embeddings, shared: Sequence[Sequence[int]]) -> bool:
    """Whether people share more than FEW_SHARED of their rows."""
    is_shared = np.zeros(len(embeddings.vectors))
    is_shared[[i for where in shared for i in where]] = 1
    return bool((np.bincount(embeddings.owners, is_shared) / embeddings.counts).mean() > FEW_SHARED)


def few_shared_rows(embeddings: Embeddings) -> list[list[str]]:
    """PERSON/SAMPLE of different people with one vector, by vector; empty if there are enough for SHARED_ROWS."""
    shared = _shared_rows(embeddings)
    if not shared or _share_many_rows(embeddings, shared):
        return []
    labels, samples = embeddings.labels, embeddings.samples
    return [[f"{labels[i]}/{samples[i]}" for i in where] for where in shared]


def unmeasurable(embeddings: Embeddings, *, seed: int) -> str | None:
    """The reason why an encoder cannot be measured, such as that all people are alike; None for a usable one.

    In a set of more than MAX_MEASURED people, that many chosen by name and seed stand for all.
    """
    x = embeddings.centroids
    if len(x) < MIN_FOR_CKA:  # the fault of the set
        return None
    if len(x) > MAX_MEASURED:
        x = taken(x, pick(embeddings.identities, MAX_MEASURED, seed=seed))
    try:
        k = gram(x)
        cka_of_grams(k, k)
        largest = np.abs(x).max()
        for repeat in evidence_folds(len(x), seed=seed) if len(x) >= MIN_FOR_FOLDS else ():
            for train, _ in repeat:
                # Two people who differ are enough, and hardly ever are the first two alike.
                if np.abs(x[train[0]] - x[train[1]]).max() <= 1e-9 * largest:
                    centred_rows(x[train], 2, "matching needs")
    except BadCalibration as error:
        return f"{error} {LABELS_INSIDE.capitalize()}." if contains_labels(embeddings) else str(error)
    return None


def doubts_of_encoder(embeddings: Embeddings) -> tuple[str, ...]:
    """SHARED_ROWS and LABELS_INSIDE, if they hold."""
    found = {
        SHARED_ROWS: _share_many_rows(embeddings, _shared_rows(embeddings)),
        LABELS_INSIDE: contains_labels(embeddings),
    }
    return tuple(flag for flag, holds in found.items() if holds)


def doubts_of_pairs(embeddings: Sequence[Embeddings]) -> dict[tuple[str, str], tuple[str, ...]]:
    """SAME_VECTORS and SAME_PEOPLE, if they hold, by (face, voice), for encoders of the same people."""
    faces, voices = ([e for e in embeddings if e.modality == modality] for modality in MODALITIES)
    repeated = (SAME_PEOPLE,) if twins(embeddings[0].identities) else ()
    if len(embeddings[0].identities) < MIN_FOR_LABELS:
        return {(f.name, v.name): repeated for f in faces for v in voices}
    sides = [[_side(e) for e in of_one] for of_one in (faces, voices)]
    alike = np.stack([one.likeness for one in sides[0]]) @ np.stack([one.likeness for one in sides[1]]).T > LIKE
    same = {
        (f.name, v.name): alike[i, j] or _have_same_columns(sides[0][i], sides[1][j])
        for i, f in enumerate(faces) for j, v in enumerate(voices)
    }  # fmt: skip
    return {pair: (*((SAME_VECTORS,) if holds else ()), *repeated) for pair, holds in same.items()}


def contains_labels(embeddings: Embeddings) -> bool:
    """Whether rows or columns of the vectors encode the names of people: one-hot, a number, bits of a number.

    - in nearly every row one value, in a column of that person, outweighs all others;
    - for half of the people, columns that are 0 except for all samples of one person;
    - columns that are the same in all samples of a person, and together differ between people;
    - a column in the order of the people's names, or of the numbers in them.
    """
    embeddings = _first_people(embeddings, MAX_PEOPLE)
    owner, counts = embeddings.owners, embeddings.counts
    n, dim = len(counts), embeddings.dim
    if n < MIN_FOR_LABELS:
        return False
    x = np.asarray(embeddings.vectors, dtype=np.float64)
    x = x / np.abs(x).max()
    if dim > 1 and _is_one_hot(x, owner, n):
        return True
    order = np.argsort(owner, kind="stable")
    starts = np.cumsum(counts) - counts
    several = counts > 1
    sparse = np.flatnonzero((x == 0).any(axis=0))
    if len(sparse):
        filled = np.add.reduceat((x[:, sparse] != 0).astype(np.intp)[order], starts, axis=0)
        of_one = ((filled > 0).sum(axis=0) == 1) & (filled == counts[:, None])[several].any(axis=0)
        if len(set(filled[:, of_one].argmax(axis=0).tolist())) > n / 2:
            return True
    if several.sum() >= MIN_FOR_LABELS:
        span = np.ptp(x, axis=0)
        # Few columns are the same in all samples of the first person, let alone of all.
        still = np.flatnonzero((np.ptp(x[owner == several.argmax()], axis=0) <= 1e-6 * span) & (span > 0))
        low, high = (f.reduceat(x[np.ix_(order, still)], starts, axis=0)[several] for f in (np.minimum, np.maximum))
        low = low[:, (high - low).max(axis=0, initial=0) <= 1e-6 * span[still]]
        if low.size and len(np.unique(np.round(low, 9), axis=0)) > several.sum() / 2:
            return True
    places = _ranks(sums_of_groups(x, owner, counts) / counts[:, None])
    numbers = [int((re.findall(r"\d+", name) or ["0"])[-1][-15:]) for name in embeddings.identities]
    return any(_in_order(places, np.asarray(ranks)) for ranks in (np.arange(n), numbers))


def _is_one_hot(x: Vectors, owner: NDArray[np.intp], n_people: int) -> bool:
    """Whether in nearly every row one value, in a column of that person, outweighs all others."""
    # It can be no further from the median than from the other end, and the median no nearer to all than the mean.
    might = np.ptp(x, axis=1) ** 2 > 0.49 * np.square(x - x.mean(axis=1, keepdims=True)).sum(axis=1)
    if might.mean() <= 0.9:
        return False
    size = np.square(x - np.median(x, axis=1, keepdims=True))
    top = size.argmax(axis=1)
    outweighs = size.max(axis=1) > size.sum(axis=1) / 2
    marks = {(int(person), int(column)) for person, column in zip(owner[outweighs], top[outweighs], strict=True)}
    return bool(
        outweighs.mean() > 0.9 and len(marks) < 1.1 * n_people and len({column for _, column in marks}) > 0.9 * n_people
    )


def _in_order(places: Vectors, numbers: NDArray[Any]) -> bool:
    """Whether some column of ranks is in the order of these numbers, or in the opposite order."""
    wanted = _ranks(numbers[:, None])
    return len(np.unique(wanted)) > len(wanted) / 2 and bool((np.abs(_correlations(places, wanted)) > LIKE).any())


def _ranks(columns: NDArray[Any]) -> Vectors:
    """The rank of each value in its column, from 1; equal ones have their mean rank."""
    order = np.argsort(columns, axis=0, kind="stable")
    ordered = np.take_along_axis(columns, order, axis=0)
    place = np.broadcast_to(np.arange(len(columns))[:, None], columns.shape)
    differs = ordered[1:] != ordered[:-1]
    first, last = place.copy(), place.copy()
    first[1:][~differs] = 0
    last[:-1][~differs] = len(columns)
    first = np.maximum.accumulate(first, axis=0)
    last = np.minimum.accumulate(last[::-1], axis=0)[::-1]
    ranks = np.empty(columns.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=0)
    return ranks


@dataclass(frozen=True)
class _Side:
    """What one encoder is compared by with those of the other modality.

    Attributes:
        likeness: products of centroids for each pair of people, centred, of length 1.
        columns: (dim, people) columns of the centroids, centred, of length 1 or 0.
        few: (people, most rows of one, N_DIRECTIONS) rows of length 1 from a few directions; NaN where a person
            has fewer rows.
    """

    embeddings: Embeddings
    likeness: Vectors
    columns: Vectors
    few: Vectors


def _side(embeddings: Embeddings) -> _Side:
    first = _first_people(embeddings, MAX_PEOPLE)
    x, owners, counts = first.centroids, first.owners, first.counts
    rows = unit_rows(first.vectors.astype(np.float64))
    directions = np.linalg.qr(
        np.random.default_rng(0).normal(size=(embeddings.dim, min(N_DIRECTIONS, embeddings.dim)))
    )[0]
    order = np.argsort(owners, kind="stable")
    few = np.full((len(x), int(counts.max()), directions.shape[1]), np.nan)
    few[owners[order], np.arange(len(order)) - (np.cumsum(counts) - counts)[owners[order]]] = rows[order] @ directions
    likeness = (x @ x.T)[~np.tri(len(x), dtype=bool)]
    return _Side(embeddings, _standard(likeness[:, None])[:, 0], np.ascontiguousarray(_standard(x).T), few)


def _have_same_columns(face: _Side, voice: _Side) -> bool:
    """Whether two encoders have the same columns, or the same rows of most people."""
    dim, n = face.columns.shape
    if dim != len(voice.columns) or dim < MIN_FOR_LABELS:
        return False
    if np.median(np.abs(np.einsum("ij,ij->i", face.columns, voice.columns))) > LIKE:
        return True
    # Other samples of each side may have been chosen, so that the centroids differ.
    if _n_might_share(face.few, voice.few) <= n / 2:
        return False
    shared, firsts = 0, [_first_people(side.embeddings, MAX_PEOPLE) for side in (face, voice)]
    units = [unit_rows(first.vectors.astype(np.float64)) for first in firsts]
    for person in range(n):
        a, b = (rows[first.owners == person] for rows, first in zip(units, firsts, strict=True))
        shared += bool((np.abs(a @ b.T) > 1 - NEARLY).any())
    return shared > n / 2


def _n_might_share(a: Vectors, b: Vectors) -> int:
    """Number of people of whom two rows might be the same but for the sign: they are so from a few directions."""
    squares = np.square(a).sum(axis=2)[:, :, None] + np.square(b).sum(axis=2)[:, None]
    with np.errstate(invalid="ignore"):
        distances = squares - 2 * np.abs(a @ b.transpose(0, 2, 1))
    return int((distances <= 2.01 * NEARLY).any(axis=(1, 2)).sum())


def _first_people(embeddings: Embeddings, n: int) -> Embeddings:
    return embeddings.rows(embeddings.owners < n)


def _correlations(x: Vectors, y: Vectors) -> Vectors:
    """(columns,) Pearson correlation of each column of `x` with that of `y`; 0 for constant ones."""
    return np.asarray((_standard(x) * _standard(y)).sum(axis=0))


def _standard(x: Vectors) -> Vectors:
    """The columns minus their mean, of length 1; zeros for constant ones."""
    x = x - x.mean(axis=0)
    lengths = np.sqrt(np.square(x).sum(axis=0))
    return np.asarray(x / np.where(lengths > 0, lengths, np.inf))
