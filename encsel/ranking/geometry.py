"""The geometry of every encoder, computed once, and CKA of every face-voice pair with people shuffled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings
from encsel.data.sampling import limit_rows
from encsel.errors import BadCalibration
from encsel.metrics.distance_ratio import two_nn
from encsel.metrics.linear_cka import Gram, cka_of_grams, gram, null_of_matched
from encsel.metrics.mle import K, error_of_median, mle_harmonic, mle_median
from encsel.metrics.neighbours import Neighbours, distinct_rows, nearest_neighbours, rows_to_search
from encsel.threads import in_threads, one_thread

MAX_DRAWS = 10
ROWS_FOR_DRAWS = 20_000
"""Total rows of the draws that intrinsic dimension is averaged over; at most MAX_DRAWS draws."""

ESTIMATORS: Mapping[str, Callable[[NDArray[Any]], float]] = {
    "mle_median": mle_median,
    "mle_harmonic": mle_harmonic,
    "two_nn": two_nn,
    "two_nn_reference": partial(two_nn, discard=0.0),
}


@dataclass(frozen=True)
class IntrinsicDimension:
    """Estimates by metric, in dimensions; None with the reason where undefined.

    `note` states the sample and the standard error of the first, if not the neighbours of all rows were searched.
    """

    values: Mapping[str, float] | None
    reason: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class EncoderGeometry:
    """The geometry of one encoder that `rank` needs."""

    embeddings: Embeddings
    gram: Gram
    intrinsic_dimension: IntrinsicDimension


@dataclass(frozen=True)
class Null:
    """Matched CKA of one pair with people shuffled.

    Attributes:
        p: fraction of shuffles at or above the observed value, which is one of them.
        p_familywise: fraction of shuffles in which any pair of the set does as well (Westfall and Young's maximum
            statistic): among many pairs, some look good by chance.
    """

    mean: float
    quantile_95: float
    p: float
    p_familywise: float
    n_permutations: int


def measure_encoder(
    embeddings: Embeddings,
    *,
    rows_per_identity: int | None,
    seed: int,
    device: str = "cpu",
    searched: Neighbours | None = None,
) -> EncoderGeometry:
    """Geometry of one encoder over all its people.

    Args:
        searched: neighbours of its distinct rows, if known already.
    Raises:
        BadCalibration: too few people or constant embeddings; names the encoder.
    """
    try:
        k = gram(embeddings.centroids)
        dimension = intrinsic_dimension(
            embeddings, rows_per_identity=rows_per_identity, seed=seed, device=device, searched=searched
        )
        return EncoderGeometry(embeddings, k, dimension)
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
    """Estimates over the distinct rows of all people, pooled; averaged over seeded draws if rows are left out."""
    counts = embeddings.counts
    limit = rows_per_identity if rows_per_identity is not None and counts.max() > rows_per_identity else None
    n_rows = int(np.minimum(counts, limit or counts.max()).sum())
    n_draws = 1 if limit is None else int(np.clip(ROWS_FOR_DRAWS // n_rows, 1, MAX_DRAWS))

    def draw(number: int) -> tuple[dict[str, float], str | None]:
        if limit is None and searched is not None and searched.distances.shape[1] >= K:
            found = searched
        else:
            rows = embeddings if limit is None else limit_rows(embeddings, limit, seed=seed * MAX_DRAWS + number)
            vectors = distinct_rows(rows)
            found = nearest_neighbours(vectors, K, of=rows_to_search(len(vectors), seed=seed), device=device)
        values = {name: estimate(found.distances) for name, estimate in ESTIMATORS.items()}
        if len(found.rows) == found.n_rows:
            return values, None
        return values, (
            f"{embeddings.modality} encoder {embeddings.name}: intrinsic dimension is that of a random "
            f"{len(found.rows)} of {found.n_rows} rows, with neighbours among all of them: "
            f"{values['mle_median']:.1f}, standard error {error_of_median(found.distances):.2g}."
        )

    try:
        with one_thread():
            draws, notes = zip(*in_threads(draw, range(n_draws)), strict=True)
    except BadCalibration as error:
        return IntrinsicDimension(None, str(error))
    means = {name: float(np.mean([values[name] for values in draws])) for name in ESTIMATORS}
    return IntrinsicDimension(means, note=notes[0])


def permutation_null(
    faces: Sequence[Gram],
    voices: Sequence[Gram],
    *,
    matched_to: int,
    n_permutations: int,
    seed: int,
    groups: NDArray[np.intp] | None = None,
    device: str = "cpu",
) -> list[list[Null]]:
    """The null of matched CKA of each pair (faces x voices) of encoders of the same people.

    Args:
        groups: (n,) group of each person, within which people are shuffled; None: shuffle all people.
    """
    rng = np.random.default_rng(seed)
    n = len(faces[0])
    blocks = [np.arange(n)] if groups is None else [np.flatnonzero(groups == g) for g in np.unique(groups)]
    permutations = np.empty((n_permutations, n), dtype=np.intp)
    for order in permutations:
        for block in blocks:
            order[block] = rng.permutation(block)
    observed = np.array([[cka_of_grams(f, v, matched_to=matched_to).matched for v in voices] for f in faces])
    values = null_of_matched(faces, voices, permutations=permutations, matched_to=matched_to, device=device)
    means, high = values.mean(axis=0), np.quantile(values, 0.95, axis=0)
    p = (1 + (values >= observed).sum(axis=0)) / (1 + n_permutations)
    spread = np.maximum(values.std(axis=0), np.finfo(np.float64).tiny)
    largest = ((values - means) / spread).max(axis=(1, 2))
    p_familywise = (1 + (largest[:, None, None] >= (observed - means) / spread).sum(axis=0)) / (1 + n_permutations)
    table = np.stack([means, high, p, p_familywise], axis=-1).tolist()
    return [[Null(mean, q, p, familywise, n_permutations) for mean, q, p, familywise in row] for row in table]
