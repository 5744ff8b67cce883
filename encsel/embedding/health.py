"""Whether the embeddings of an encoder are sound."""

from dataclasses import dataclass

import numpy as np

from encsel.core import Embeddings
from encsel.data.sampling import limit_rows, pick
from encsel.embedding.model_run import BATCH_DEPENDENT, NOT_REPEATABLE
from encsel.errors import BadCalibration
from encsel.matching.eer import eer
from encsel.metrics.centroids import unit_rows
from encsel.metrics.topology import topology

MAX_ROWS = 1500
"""Most rows of the verification EER, which scores all pairs of rows."""
AT_CHANCE = 0.4
CLOSE = 0.3
NEARLY_CONSTANT = 1e-4

NO_VERIFICATION = "one sample a person: cannot be checked"
DOES_NOT_VERIFY = "does not tell its own people apart"
COLLAPSED = "different people nearly alike"
CONSTANT = "nearly constant"
SHARED_ROWS = "different people have the same embedding"


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


def examine(embeddings: Embeddings, *, seed: int = 0, n_skipped: int = 0, identity_trained: bool = False) -> Health:
    """The health of one encoder.

    Args:
        embeddings: at least 2 people.
        n_skipped: number of samples that this encoder could not use.
        identity_trained: it was trained to tell people apart, so centroids of different people must be far apart.
    """
    try:
        apart = topology(embeddings.vectors, embeddings.labels, min_samples=1)
        intra, inter = apart.intra, apart.inter
    except BadCalibration:  # every row is the same
        intra = inter = 0.0
    verification_eer = _verification_eer(embeddings, seed)
    wrong = {
        CONSTANT: intra + inter < NEARLY_CONSTANT,
        SHARED_ROWS: _shares_rows(embeddings),
        DOES_NOT_VERIFY: verification_eer is not None and verification_eer > AT_CHANCE,
        COLLAPSED: identity_trained and inter < CLOSE,
        NOT_REPEATABLE: NOT_REPEATABLE in embeddings.traits.flags,
        BATCH_DEPENDENT: BATCH_DEPENDENT in embeddings.traits.flags,
    }
    reason = NO_VERIFICATION if verification_eer is None else None
    skipped = n_skipped / max(n_skipped + len(embeddings.vectors), 1)
    findings = tuple(finding for finding, holds in wrong.items() if holds)
    return Health(verification_eer, reason, intra, inter, skipped, findings)


def _verification_eer(embeddings: Embeddings, seed: int) -> float | None:
    """EER over all pairs of at most MAX_ROWS rows; None if nobody has two."""
    people, counts = np.unique(embeddings.labels, return_counts=True)
    if len(people) > MAX_ROWS // 2:
        several, single = people[counts > 1], people[counts == 1]
        chosen = several[pick(several.tolist(), MAX_ROWS // 2, seed=seed)]
        more = single[pick(single.tolist(), MAX_ROWS // 2 - len(chosen), seed=seed)]
        people = np.concatenate([chosen, more])
        embeddings = embeddings.rows(np.isin(embeddings.labels, people))
    scored = limit_rows(embeddings, max(2, MAX_ROWS // len(people)), seed=seed)
    rows = unit_rows(scored.vectors.astype(np.float32))
    upper = np.triu_indices(len(rows), 1)
    same = (scored.labels[:, None] == scored.labels)[upper]
    if not same.any() or same.all():
        return None
    scores = (rows @ rows.T)[upper]
    return eer(scores[same], scores[~same])


def _shares_rows(embeddings: Embeddings) -> bool:
    """Whether a row equals a row of somebody else."""
    owner: dict[bytes, str] = {}
    rows = zip(np.ascontiguousarray(embeddings.vectors), embeddings.labels, strict=True)
    return any(owner.setdefault(row.tobytes(), label) != label for row, label in rows)
