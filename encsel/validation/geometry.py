"""The whole geometry of an encoder, and of a face-voice pair: what `encsel validate` measures beyond what `rank` needs.

Two forms: the released code's ("reference") and the corrected one. Each number says which it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Modality, Vectors
from encsel.data.sampling import pick
from encsel.errors import BadCalibration
from encsel.metrics import curvature as curving
from encsel.metrics.cka import REFERENCE_SIZE, Cka, Gram, cka, gram
from encsel.metrics.curvature import Curvature
from encsel.metrics.geodesic_cka import geodesic_gram
from encsel.metrics.gromov_wasserstein import (
    GromovWasserstein,
    drawn_people,
    gromov_wasserstein,
    gromov_wasserstein_reference,
    people_distances,
    reference_draws,
)
from encsel.metrics.mle import mle_harmonic, mle_median
from encsel.metrics.mutual_knn import K as MUTUAL_K
from encsel.metrics.mutual_knn import mutual_knn, nearest_people
from encsel.metrics.neighbours import Neighbours, distinct_rows, nearest_neighbours
from encsel.metrics.spectral import spectral_gap, spectrum
from encsel.metrics.two_nn import two_nn
from encsel.ranking.geometry import centroids

N_NEIGHBOURS = 50
"""Of the one search that intrinsic dimensions and curvature share."""
KS = (5, 10, 20, 50)
FLAT_POINTS = 300
"""Points of the flat control, of whose curvature only the middle is wanted."""
N_HALVES, FEW_HALVES = 4, 2
"""Divisions of everybody's samples behind a split-half reliability, up to 400 people and beyond."""
MANY_PEOPLE = 400


@dataclass(frozen=True)
class Dimensions:
    """Intrinsic dimensions of all distinct rows pooled.

    Attributes:
        mle_median, mle_harmonic: Levina and Bickel, by number of neighbours; the study's is the median at 20.
        two_nn: Facco et al., the largest tenth of ratios left out; two_nn_reference: all ratios, as the study.
    """

    mle_median: Mapping[str, float]
    mle_harmonic: Mapping[str, float]
    two_nn: float
    two_nn_reference: float
    n_rows: int


@dataclass(frozen=True)
class Curved:
    """Curvature, with that of a flat cloud of the same spread; the reference form has no such control."""

    encoder: Curvature
    flat: Curvature | None


@dataclass(frozen=True)
class Reliability:
    """Debiased CKA of an encoder with itself: centroids of one half of each person's samples against the other half.

    No partner can share more with an encoder than the encoder does with itself: the root of two reliabilities is the
    ceiling of a pair's CKA, at half the samples.

    Attributes:
        by: "recordings", where halves hold different recordings, else "samples".
    """

    value: float
    by: str
    n_people: int
    n_splits: int


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the normalised Laplacian of neighbours, over the largest, ascending."""

    values: tuple[float, ...]


def search(embeddings: Embeddings, *, reference: bool, device: str = "cpu") -> tuple[Vectors, Neighbours]:
    """The distinct rows of an encoder and their neighbours, 50 or as many as there are.

    Raises:
        BadCalibration: fewer than 7 distinct rows.
    """
    kept = distinct_rows(embeddings.vectors)
    rows = embeddings.vectors if len(kept) == len(embeddings.vectors) else embeddings.vectors[kept]
    k = min(N_NEIGHBOURS, len(rows) - 1)
    if k <= KS[0]:
        raise BadCalibration(f"{len(rows)} distinct samples; neighbours need at least {KS[0] + 2}. Add samples.")
    return rows, nearest_neighbours(rows, k, device=device, as_given=reference)


def dimensions(found: Neighbours) -> Dimensions:
    """Intrinsic dimensions at every number of neighbours that there is.

    Raises:
        BadCalibration: rows that do not differ enough.
    """
    distances = found.distances
    ks = [k for k in KS if k <= distances.shape[1]]
    return Dimensions(
        {str(k): mle_median(distances, k=k) for k in ks},
        {str(k): mle_harmonic(distances, k=k) for k in ks},
        two_nn(distances),
        two_nn(distances, discard=0.0),
        len(distances),
    )


def curved(rows: Vectors, found: Neighbours, *, reference: bool, seed: int) -> Curved:
    """Curvature at the released code's draw of points, and of the flat control in the corrected form."""
    points = curving.curvature_points(len(rows))
    index = found.index[points]
    own = curving.curvature(rows, points, index, reference=reference)
    n_flat = min(FLAT_POINTS, len(points))
    flat = None if reference else curving.flat_control(rows, n_points=n_flat, k=index.shape[1], seed=seed)
    return Curved(own, flat)


def spectrum_of(embeddings: Embeddings) -> Spectrum:
    """Of the encoder's centroids."""
    return Spectrum(tuple(spectrum(centroids(embeddings)).tolist()))


def half_of_samples(
    embeddings: Embeddings, recordings: NDArray[np.str_] | None, *, seed: int
) -> tuple[NDArray[np.intp], str]:
    """(rows,) half of each sample, 0 or 1, -1 for those of people who cannot be divided; and by what."""
    names = embeddings.samples if recordings is None else recordings
    by = "samples" if recordings is None else "recordings"
    parts = np.unique(np.stack([embeddings.labels, names]), axis=1)
    people, counts = np.unique(parts[0], return_counts=True)
    if recordings is not None and (counts > 1).mean() < 0.5:
        return half_of_samples(embeddings, None, seed=seed)
    half_of: dict[tuple[str, str], int] = {}
    ends = np.cumsum(counts)
    for person, count, end in zip(people.tolist(), counts.tolist(), ends.tolist(), strict=True):
        own = parts[1, end - count : end].tolist()
        first = set(pick([f"{person}/{part}" for part in own], count // 2, seed=seed).tolist())
        if count > 1:
            half_of.update({(person, part): 0 if i in first else 1 for i, part in enumerate(own)})
    keys = zip(embeddings.labels.tolist(), names.tolist(), strict=True)
    return np.array([half_of.get(key, -1) for key in keys], dtype=np.intp), by


def reliability(embeddings: Embeddings, recordings: NDArray[np.str_] | None, *, seed: int) -> Reliability:
    """Mean over divisions of everybody's samples.

    Raises:
        BadCalibration: fewer than 10 people have two samples.
    """
    values, by, n = [], "", 0
    n_splits = N_HALVES if len(np.unique(embeddings.labels)) <= MANY_PEOPLE else FEW_HALVES
    for split in range(n_splits):
        half, by = half_of_samples(embeddings, recordings, seed=seed * N_HALVES + split)
        n = len(np.unique(embeddings.labels[half >= 0]))
        if n < 10:
            raise BadCalibration(f"{n} people have two samples or more; split halves need at least 10 such.")
        grams = [gram(centroids(embeddings.rows(half == side))) for side in (0, 1)]
        values.append(cka(*grams).debiased)
    return Reliability(float(np.mean(values)), by, n, n_splits)


@dataclass(frozen=True)
class Alignment:
    """How alike a pair's people are, all in about [0, 1], more is more alike.

    Attributes:
        geodesic: CKA of Isomap kernels; None with `reasons`.
        mutual_knn: share of the 10 nearest people that are the same; `mutual_knn_chance`: what luck gives.
    """

    linear: Cka
    geodesic: Cka | None
    mutual_knn: float | None
    mutual_knn_chance: float
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class People:
    """One encoder's centroids and what pairs need of them, computed once. None where the reason says why."""

    x: Vectors
    gram: Gram
    geodesic: Gram | None
    nearest: NDArray[np.intp] | None
    reasons: Mapping[str, str]


def people_of(embeddings: Embeddings, *, geodesic: bool = True, mutual: bool = True) -> People:
    """One encoder's part of `alignment`."""
    x = centroids(embeddings)
    reasons: dict[str, str] = {}
    kernel = nearest = None
    for name, wanted in (("geodesic", geodesic), ("mutual", mutual)):
        if not wanted:
            reasons[name] = "skipped"
            continue
        try:
            if name == "geodesic":
                kernel = geodesic_gram(x)
            else:
                nearest = nearest_people(x)
        except BadCalibration as error:
            reasons[name] = str(error)
    return People(x, gram(x), kernel, nearest, reasons)


def alignment(face: People, voice: People) -> Alignment:
    """CKA in all forms and mutual neighbours of one pair."""
    reasons = {**face.reasons, **voice.reasons}
    geodesic = None
    if face.geodesic is not None and voice.geodesic is not None:
        try:
            geodesic = cka(face.geodesic, voice.geodesic, matched_to=REFERENCE_SIZE)
        except BadCalibration as error:
            reasons["geodesic"] = str(error)
    mutual = None if face.nearest is None or voice.nearest is None else mutual_knn(face.nearest, voice.nearest)
    return Alignment(
        cka(face.gram, voice.gram, matched_to=REFERENCE_SIZE), geodesic, mutual, MUTUAL_K / (len(face.x) - 1), reasons
    )


def gromov_wasserstein_of(face: Vectors, voice: Vectors, *, reference: bool, seed: int) -> GromovWasserstein:
    """Of one pair's centroids (n, dim), at 500 people or all."""
    if reference:
        of_faces, of_voices = reference_draws(len(face))
        return gromov_wasserstein_reference(people_distances(face[of_faces]), people_distances(voice[of_voices]))
    drawn = drawn_people(len(face), seed)
    return gromov_wasserstein(people_distances(face[drawn]), people_distances(voice[drawn]))


def spectral_gap_of(face: Spectrum, voice: Spectrum) -> float:
    """Distance of two spectra of the same people."""
    return spectral_gap(np.array(face.values), np.array(voice.values))


def ceiling(face: Reliability, voice: Reliability) -> float:
    """What debiased CKA of the pair can reach: the root of both reliabilities, never below 0."""
    return math.sqrt(max(face.value, 0) * max(voice.value, 0))


def shared_halves(
    faces: Sequence[Embeddings],
    voices: Sequence[Embeddings],
    of_sample: Mapping[tuple[Modality, str], NDArray[np.str_]],
    *,
    seed: int,
) -> tuple[tuple[str, ...], dict[tuple[Modality, str], NDArray[np.intp]]]:
    """People with two recordings or more that every encoder has, and by encoder the half of each sample.

    Args:
        of_sample: recording of each sample, by (modality, name of the encoder).
    Returns:
        Names, sorted; by (modality, name), (rows,) 0 or 1, -1 for other people's and other recordings' samples.
    """
    known: list[dict[str, set[str]]] = []
    for one in (*faces, *voices):
        by_person: dict[str, set[str]] = {}
        pairs = np.unique(np.stack([one.labels, of_sample[one.modality, one.name]]), axis=1)
        for person, recording in pairs.T.tolist():
            by_person.setdefault(person, set()).add(recording)
        known.append(by_person)
    half_of: dict[tuple[str, str], int] = {}
    people = []
    for person in sorted(set.intersection(*(set(k) for k in known))):
        shared = sorted(set.intersection(*(k[person] for k in known)))
        if len(shared) < 2:
            continue
        people.append(person)
        first = set(pick([f"{person}/{r}" for r in shared], len(shared) // 2, seed=seed).tolist())
        half_of.update({(person, recording): 0 if i in first else 1 for i, recording in enumerate(shared)})
    halves = {
        (one.modality, one.name): np.array(
            [
                half_of.get(key, -1)
                for key in zip(one.labels.tolist(), of_sample[one.modality, one.name].tolist(), strict=True)
            ],
            dtype=np.intp,
        )
        for one in (*faces, *voices)
    }
    return tuple(people), halves
