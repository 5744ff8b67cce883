"""The geometry of every encoder, computed once, and of every face-voice pair from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings
from encsel.data.sampling import limit_rows
from encsel.errors import BadCalibration
from encsel.metrics.centroids import centroids, median_samples
from encsel.metrics.distance_ratio import two_nn
from encsel.metrics.linear_cka import Gram, gram, null_of_matched
from encsel.metrics.mle import K, mle_harmonic, mle_median
from encsel.metrics.neighbours import Neighbours, distinct_rows, neighbour_distances

MAX_DRAWS = 10
ROWS_FOR_DRAWS = 20_000
"""Intrinsic dimension averages as many draws of rows as fit in this many rows in all, at most MAX_DRAWS."""


@dataclass(frozen=True)
class IntrinsicDimension:
    """Estimates at one number of rows per identity, in dimensions; None with the reason where undefined."""

    rows_per_identity: int | None
    """Rows of each person that entered, at most; None: all."""
    values: Mapping[str, float] | None
    reason: str | None = None


@dataclass(frozen=True)
class EncoderGeometry:
    """What `rank` needs to know of one encoder."""

    embeddings: Embeddings
    gram: Gram
    intrinsic_dimension: IntrinsicDimension

    @property
    def median_rows_per_identity(self) -> float:
        return median_samples(self.embeddings)


@dataclass(frozen=True)
class Null:
    """Matched CKA of one pair with people shuffled.

    Attributes:
        p: share of shuffles at or above the observed value, itself included.
        p_familywise: share of shuffles in which any pair of the set stands out as much as this one does (Westfall and
            Young's maximum statistic): of many pairs some look good by luck, and this p allows for it.
    """

    mean: float
    quantile_95: float
    p: float
    p_familywise: float
    n_permutations: int


def measure_encoder(
    embeddings: Embeddings,
    identities: Sequence[str],
    *,
    rows_per_identity: int | None,
    seed: int,
    device: str = "cpu",
    searched: Neighbours | None = None,
) -> EncoderGeometry:
    """Geometry of one encoder over `identities`, which it must all have.

    Args:
        searched: neighbours of its distinct rows, where the caller has them.
    Raises:
        BadCalibration: too few people or constant embeddings; names the encoder.
    """
    kept = embeddings.rows(np.isin(embeddings.labels, identities))
    try:
        return EncoderGeometry(
            kept,
            gram(centroids(kept), device=device),
            intrinsic_dimension(kept, rows_per_identity=rows_per_identity, seed=seed, device=device, searched=searched),
        )
    except BadCalibration as error:
        raise BadCalibration(f"{embeddings.modality} encoder {embeddings.name}: {error}") from error


def intrinsic_dimension(
    embeddings: Embeddings,
    *,
    rows_per_identity: int | None,
    seed: int,
    device: str = "cpu",
    searched: Neighbours | None = None,
) -> IntrinsicDimension:
    """All estimates over the distinct rows of all people pooled, the mean over seeded draws where rows are left out.

    Args:
        searched: neighbours of all distinct rows, used where none are left out.
    """
    counts = np.unique(embeddings.labels, return_counts=True)[1]
    limit = rows_per_identity if rows_per_identity is not None and counts.max() > rows_per_identity else None
    n_rows = int(np.minimum(counts, limit or counts.max()).sum())
    n_draws = 1 if limit is None else int(np.clip(ROWS_FOR_DRAWS // n_rows, 1, MAX_DRAWS))
    draws = []
    try:
        for draw in range(n_draws):
            if limit is None and searched is not None and searched.distances.shape[1] >= K:
                distances = searched.distances
            else:
                rows = embeddings if limit is None else limit_rows(embeddings, limit, seed=seed * MAX_DRAWS + draw)
                distances = neighbour_distances(rows.vectors[distinct_rows(rows.vectors)], K, device=device)
            draws.append(
                {
                    "mle_median": mle_median(distances),
                    "mle_harmonic": mle_harmonic(distances),
                    "two_nn": two_nn(distances),
                    "two_nn_reference": two_nn(distances, discard=0.0),
                }
            )
    except BadCalibration as error:
        return IntrinsicDimension(rows_per_identity, None, str(error))
    return IntrinsicDimension(
        rows_per_identity, {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}
    )


def permutation_null(
    faces: Sequence[EncoderGeometry],
    voices: Sequence[EncoderGeometry],
    observed: NDArray[np.float64],
    *,
    matched_to: int,
    n_permutations: int,
    seed: int,
    groups: NDArray[np.intp] | None = None,
    device: str = "cpu",
) -> list[list[Null]]:
    """The null of each pair (faces x voices).

    Args:
        observed: (faces, voices) of matched CKA.
        groups: (n,) group of each person, within which people are shuffled; None: all of them.
    """
    rng = np.random.default_rng(seed)
    n = len(faces[0].gram)
    blocks = [np.arange(n)] if groups is None else [np.flatnonzero(groups == g) for g in np.unique(groups)]
    permutations = np.empty((n_permutations, n), dtype=np.intp)
    for order in permutations:
        for block in blocks:
            order[block] = rng.permutation(block)
    values = null_of_matched(
        [f.gram for f in faces], [v.gram for v in voices],
        permutations=permutations, matched_to=matched_to, device=device,
    )  # fmt: skip
    means, high = values.mean(axis=0), np.quantile(values, 0.95, axis=0)
    p = (1 + (values >= observed).sum(axis=0)) / (1 + n_permutations)
    spread = np.maximum(values.std(axis=0), np.finfo(np.float64).tiny)
    largest = ((values - means) / spread).max(axis=(1, 2))
    p_familywise = (1 + (largest[:, None, None] >= (observed - means) / spread).sum(axis=0)) / (1 + n_permutations)

    def null(i: int, j: int) -> Null:
        return Null(
            mean=float(means[i, j]),
            quantile_95=float(high[i, j]),
            p=float(p[i, j]),
            p_familywise=float(p_familywise[i, j]),
            n_permutations=n_permutations,
        )

    return [[null(i, j) for j in range(len(voices))] for i in range(len(faces))]
