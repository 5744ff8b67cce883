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
from encsel.rows import blocks, equal_rows, mean_of_rows, taken, unit_rows

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
    upper = np.triu_indices(len(rows), 1)
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
        for repeat in evidence_folds(len(x), seed=seed) if len(x) >= MIN_FOR_FOLDS else ():
            for train, _ in repeat:
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
    few = {(e.modality, e.name): _first_people(e, MAX_PEOPLE) for e in embeddings}
    centres = {key: e.centroids for key, e in few.items()}
    repeated = (SAME_PEOPLE,) if twins(embeddings[0].identities) else ()
    return {
        (f[1], v[1]): (*((SAME_VECTORS,) if _are_same(few[f], few[v], centres[f], centres[v]) else ()), *repeated)
        for f in few for v in few if (f[0], v[0]) == MODALITIES
    }  # fmt: skip


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
    order = np.argsort(owner, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    if dim > 1:
        size = np.square(x - np.median(x, axis=1, keepdims=True))
        top = size.argmax(axis=1)
        outweighs = size.max(axis=1) > size.sum(axis=1) / 2
        marks = {(int(person), int(column)) for person, column in zip(owner[outweighs], top[outweighs], strict=True)}
        if outweighs.mean() > 0.9 and len(marks) < 1.1 * n and len({column for _, column in marks}) > 0.9 * n:
            return True
    several = counts > 1
    filled = np.add.reduceat((x != 0).astype(np.intp)[order], starts, axis=0)
    of_one = ((filled > 0).sum(axis=0) == 1) & (filled == counts[:, None])[several].any(axis=0)
    if len(set(filled[:, of_one].argmax(axis=0).tolist())) > n / 2:
        return True
    low, high = (f.reduceat(x[order], starts, axis=0) for f in (np.minimum, np.maximum))
    if several.sum() >= MIN_FOR_LABELS:
        still = (high - low)[several].max(axis=0) <= 1e-6 * np.ptp(x, axis=0)
        still &= np.ptp(x, axis=0) > 0
        if still.any() and len(np.unique(np.round(low[several][:, still], 9), axis=0)) > several.sum() / 2:
            return True
    means = np.add.reduceat(x[order], starts, axis=0) / counts[:, None]
    numbers = [int((re.findall(r"\d+", name) or ["0"])[-1][-15:]) for name in embeddings.identities]
    return any(_in_order(means, np.asarray(ranks)) for ranks in (np.arange(n), numbers))


def _in_order(columns: Vectors, numbers: NDArray[Any]) -> bool:
    """Whether some column is in the order of these numbers, or in the opposite order."""
    from scipy.stats import rankdata

    places, wanted = rankdata(columns, axis=0), rankdata(numbers)
    return len(np.unique(wanted)) > len(wanted) / 2 and bool(
        (np.abs(_correlations(places, wanted[:, None])) > LIKE).any()
    )


def _are_same(face: Embeddings, voice: Embeddings, x: Vectors, y: Vectors) -> bool:
    """Whether two encoders have the same vectors: copied, cast, scaled, shifted or rotated; `x`, `y` are centroids."""
    if len(x) < MIN_FOR_LABELS:
        return False
    upper = np.triu_indices(len(x), 1)
    distances = [(side @ side.T)[upper][:, None] for side in (x, y)]
    if (_correlations(*distances) > LIKE).any():
        return True
    if face.dim != voice.dim or face.dim < MIN_FOR_LABELS:
        return False
    if np.median(np.abs(_correlations(x, y))) > LIKE:
        return True
    # Other samples of each side may have been chosen, so that the centroids differ.
    sides = [(unit_rows(e.vectors.astype(np.float64)), e.owners) for e in (face, voice)]
    shared = 0
    for person in range(len(x)):
        a, b = (rows[owners == person] for rows, owners in sides)
        shared += bool((np.abs(a @ b.T) > 1 - 1e-4).any())
    return shared > len(x) / 2


def _first_people(embeddings: Embeddings, n: int) -> Embeddings:
    return embeddings.rows(embeddings.owners < n)


def _correlations(x: Vectors, y: Vectors) -> Vectors:
    """(columns,) Pearson correlation of each column of `x` with that of `y`; 0 for constant ones."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = np.sqrt(np.square(x).sum(axis=0) * np.square(y).sum(axis=0))
    return np.asarray((x * y).sum(axis=0) / np.where(scale > 0, scale, np.inf))
