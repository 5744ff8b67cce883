"""Evidence of pairs whose people are shuffled: voices of other people beside the faces, many shuffles at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.matching.axes import N_AXES, Side, project, ridge_scale, svd
from encsel.matching.crossval import N_VARIATES, RIDGE, pooled_correlations, sides, variate_products
from encsel.matching.eer import auc_placements
from encsel.matching.folds import Fold, Folds
from encsel.matching.scorers import PairInFold
from encsel.matching.sensitivity import distance_of_auc
from encsel.metrics.linear_cka import null_of_hsic, null_of_matched
from encsel.prediction.evidence import COSTLY, FEATURES, EncoderEvidence

MAX_IMPOSTORS = 2000
"""Largest number of impostor scores of a fold in a shuffle; 45 test people give fewer."""
MAX_FOR_ALL_FOLDS, FEW_FOLDS = 400, 2
"""Above this many people, shuffles use only this many folds, whose test people are enough."""
_CHEAP = ("d_reference", "correlations")
_NUMBERS = 1 << 20
"""Numbers in one array of shuffled people; more shuffles at a time would leave the processor's cache."""
_SINGULAR = 1e-10
"""Squared singular value, relative to the largest, below which one cannot be had from squares."""


def shuffles(n: int, n_shuffles: int, *, seed: int, groups: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """(n_shuffles, n) permutations of n people within every group, uniformly drawn, so that p-values are exact."""
    rng = np.random.default_rng([seed, 2])
    orders = np.tile(np.arange(n), (n_shuffles, 1))
    labels = np.zeros(n, np.intp) if groups is None else groups
    blocks = [np.flatnonzero(labels == g) for g in np.unique(labels)]
    for order in orders:
        for block in blocks:
            order[block] = rng.permutation(block)
    return orders


def folds_of_shuffles(folds: Folds) -> Sequence[Fold]:
    """Folds in which shuffles are cross-validated: those of the first repeat, only a few of them for a large set."""
    first = folds[0]
    return first if sum(map(len, first[0])) <= MAX_FOR_ALL_FOLDS else first[:FEW_FOLDS]


def shuffled_from_grams(
    faces: Sequence[EncoderEvidence], voices: Sequence[EncoderEvidence], permutations: NDArray[np.intp], name: str
) -> NDArray[np.float64]:
    """(1 + shuffles, voices, faces) of one of FROM_GRAMS, unshuffled first, for all pairs at once."""
    orders = np.vstack([np.arange(permutations.shape[1]), permutations])
    null_of = null_of_matched if name == "root_cka" else null_of_hsic
    null = null_of([v.grams[name] for v in voices], [f.grams[name] for f in faces], permutations=orders)
    return np.sqrt(np.maximum(null, 0))


@dataclass(frozen=True)
class _Shuffled:
    """One voice encoder's people in several orders, as `Side`: (orders, people, k), and (orders, k)."""

    train: Vectors
    test: Vectors
    sd: Vectors


def shuffled_features(
    faces: Sequence[EncoderEvidence], voice: EncoderEvidence, folds: Sequence[Fold], orders: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(orders, faces, FEATURES) of all faces and one voice, with its people in each order; NaN for COSTLY and
    FROM_GRAMS ones.

    The voice's axes are fitted on the training people of each order, as for an unshuffled set.
    """
    found = np.full((len(orders), len(faces), len(FEATURES)), np.nan)
    columns = [list(FEATURES).index(name) for name in _CHEAP]
    step = max(1, _NUMBERS // voice.people.size)
    for start in range(0, len(orders), step):
        some = orders[start : start + step]
        aucs, products = np.zeros((len(some), len(faces))), np.zeros((len(some), len(faces), 3, N_VARIATES))
        for k, (train, test) in enumerate(folds):
            moved = _project_each(voice.people, some, train, test)
            for j, face in enumerate(faces):
                side = face.folds[0][k].first(N_AXES)
                if moved is None:
                    of_pair = [_one(side, project(voice.people[order], train, test)) for order in some]
                    auc, sums = (np.array(values) for values in zip(*of_pair, strict=True))
                else:
                    cross = side.train.T @ moved.train / (len(train) - 1)
                    auc, sums = _reference_aucs(side, moved, cross), _variate_products(side, moved, cross)
                aucs[:, j] += auc / len(folds)
                products[:, j] += sums
        for i, j in np.ndindex(aucs.shape):
            correlations = float(np.clip(pooled_correlations(products[i, j]), 0, 1).sum())
            found[start + i, j, columns] = distance_of_auc(aucs[i, j]), correlations
    return found


def costly_features(
    faces: Sequence[EncoderEvidence], voice: Vectors, folds: Sequence[Fold], order: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(faces, FEATURES) of all faces and one voice (n, dim), with its people in this order; NaN except for COSTLY."""
    found = np.full((len(faces), len(FEATURES)), np.nan)
    (moved,) = sides(voice[order], [list(folds)])
    for j, face in enumerate(faces):
        pairs = [PairInFold(f, v) for f, v in zip(face.folds[0], moved, strict=False)]
        for name in COSTLY:
            auc = np.mean([_auc(pair.scores(name.removeprefix("d_"))) for pair in pairs])
            found[j, list(FEATURES).index(name)] = distance_of_auc(float(auc))
    return found


def _project_each(
    people: Vectors, orders: NDArray[np.intp], train: NDArray[np.intp], test: NDArray[np.intp]
) -> _Shuffled | None:
    """`project` of the people in each order; None if some of their axes do not vary, so that they differ in number."""
    rows = people[orders[:, train]]
    centre = rows.mean(axis=1, keepdims=True)
    rows -= centre
    n, dim = rows.shape[1:]
    k = min(N_AXES, n - 1, dim)
    flat = rows.transpose(0, 2, 1)
    values, vectors = np.linalg.eigh(rows @ flat if n <= dim else flat @ rows)
    values, vectors = values[:, ::-1][:, :k], vectors[:, :, ::-1][:, :, :k]
    floor = np.maximum(values[:, 0] * 1e-12, n * np.square(centre).sum(axis=(1, 2)) * 1e-24)
    if (values <= floor[:, None]).any():
        return None
    length = np.sqrt(values)[:, None]
    axes = flat @ (vectors / length) if n <= dim else vectors
    fitted = vectors * length if n <= dim else rows @ axes
    return _Shuffled(fitted, (people[orders[:, test]] - centre) @ axes, length[:, 0] / np.sqrt(n - 1))


def _reference_aucs(face: Side, voices: _Shuffled, cross: Vectors) -> NDArray[np.float64]:
    """(orders,) AUC of the scorer `reference`, from (orders, face axes, voice axes) covariances."""
    matrices = _whitened(face, voices, cross, ridge=0.0)
    faces, moved = face.test, voices.test
    n_train, k = face.train.shape
    if matrices.shape[1] == matrices.shape[2]:
        # As many axes on both sides: cosines depend on the rotation between them only, not on each side's directions.
        # That is the matrix itself where both span all that the training people span.
        rotated = faces @ (matrices if k == n_train - 1 else _rotations(matrices))
    else:
        u, _, vt = svd(matrices)
        rotated, moved = faces @ u, moved @ vt.transpose(0, 2, 1)
    lengths = [np.linalg.norm(side, axis=2, keepdims=True) for side in (rotated, moved)]
    unit = [side / np.where(length > 0, length, 1) for side, length in zip((rotated, moved), lengths, strict=True)]
    return np.array([_auc(scores) for scores in unit[0] @ unit[1].transpose(0, 2, 1)])


def _variate_products(face: Side, voices: _Shuffled, cross: Vectors) -> Vectors:
    """(orders, 3, 12) of `variate_products` of the ridge canonical variates, from covariances."""
    matrices = _whitened(face, voices, cross, ridge=RIDGE)
    of_face, of_voice = _leading(matrices, min(N_VARIATES, *matrices.shape[1:]))
    x = face.test @ (ridge_scale(face.sd, RIDGE)[:, None] * of_face)
    y = voices.test @ (ridge_scale(voices.sd, RIDGE)[:, :, None] * of_voice)
    sums = np.zeros((len(matrices), 3, N_VARIATES))
    sums[:, :, : x.shape[2]] = np.stack([(x * y).sum(axis=1), (x * x).sum(axis=1), (y * y).sum(axis=1)], axis=1)
    return sums


def _whitened(face: Side, voices: _Shuffled, cross: Vectors, *, ridge: float) -> Vectors:
    """Covariances of whitened axes, whose singular values are canonical correlations."""
    return np.asarray(cross * ridge_scale(face.sd, ridge)[:, None] * ridge_scale(voices.sd, ridge)[:, None])


def _rotations(matrices: Vectors) -> Vectors:
    """(orders, k, k) orthogonal factors of the polar decompositions, which are u v' of the singular ones."""
    values, vectors = np.linalg.eigh(matrices.transpose(0, 2, 1) @ matrices)
    found = matrices @ (vectors / np.sqrt(np.maximum(values, 1e-300))[:, None]) @ vectors.transpose(0, 2, 1)
    for i in np.flatnonzero(values[:, 0] <= _SINGULAR * values[:, -1]):
        u, _, vt = svd(matrices[i])
        found[i] = u @ vt
    return np.asarray(found)


def _leading(matrices: Vectors, r: int) -> tuple[Vectors, Vectors]:
    """(orders, k, r) and (orders, l, r) first singular vectors of (orders, k, l) matrices."""
    if matrices.shape[1] < matrices.shape[2]:
        right, left = _leading(matrices.transpose(0, 2, 1), r)
        return left, right
    values, vectors = np.linalg.eigh(matrices.transpose(0, 2, 1) @ matrices)
    values, right = values[:, ::-1][:, :r], vectors[:, :, ::-1][:, :, :r].copy()
    left = matrices @ (right / np.sqrt(np.maximum(values, 1e-300))[:, None])
    for i in np.flatnonzero(values[:, -1] <= _SINGULAR * values[:, 0]):
        u, _, vt = svd(matrices[i])
        left[i], right[i] = u[:, :r], vt[:r].T
    return left, right


def _one(face: Side, voice: Side) -> tuple[float, Vectors]:
    """AUC and products of one order."""
    pair = PairInFold(face, voice)
    return _auc(pair.scores("reference")), variate_products(pair.directions(RIDGE), pair.face, pair.voice)


def _auc(matrix: Vectors) -> float:
    """AUC of a fold's scores, from at most about MAX_IMPOSTORS impostor pairs at the smallest cyclic distances."""
    n = len(matrix)
    distances = np.arange(1, min(n, 1 + max(1, MAX_IMPOSTORS // n)))
    columns = (np.arange(n)[:, None] + distances) % n
    impostor = np.sort(matrix[np.arange(n)[:, None], columns], axis=None)
    return float(auc_placements(np.diag(matrix), impostor).mean())
