"""Matchers fitted on some people and measured on others: every scorer, centroids and single samples.

Everything fitted (centre, principal axes, canonical directions) sees training people only. Encoders are projected once;
pairs are then small matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Vectors
from encsel.data.groups import PersonGroups
from encsel.data.sampling import limit_rows
from encsel.errors import BadCalibration
from encsel.matching.crossval import Folds, folds_of, repeats_for
from encsel.matching.eer import auc_placements, eer
from encsel.matching.error_rates import COVERAGE, SPREAD, Matching, Tally
from encsel.matching.scorers import (
    N_AXES,
    REFERENCE_TRAIN,
    SCORERS,
    Side,
    cosines,
    directions,
    project,
    ridge_for,
    scores_on,
)
from encsel.metrics.cka import REFERENCE_SIZE, Gram, cka, gram
from encsel.ranking.geometry import centroids

Protocol = Literal["crossval", "reference"]
PROTOCOLS: tuple[Protocol, ...] = ("crossval", "reference")
Level = Literal["identity", "sample"]
LEVELS: tuple[Level, ...] = ("identity", "sample")

REFERENCE_SEED = 42
REFERENCE_SHARE = 0.8
AXES = (20, 50, 100, 200)
"""Principal axes of the study's appendix."""
SAMPLE_ROWS = 3000
"""Single samples in all that are scored, by how many of each person that leaves: 2 to 20."""
MANY_PEOPLE = 400
"""People beyond whom each is tested once: another partition adds little."""
FEW_PEOPLE = 250
"""People up to whom single samples are scored in every repeat; beyond, in the first."""
MANY_FOLDS = 3
CURVE_POINTS = 6
SMALLEST_CURVE = 15
"""People to train on at the left end of a learning curve."""
CURVE_PRIOR: Mapping[str, tuple[float, float, float, float]] = {
    "reference": (10.0, 0.0, 1.0, 0.07),
    "cca": (25.0, 0.0, 1.0, 0.07),
    "weighted": (3.0, 0.9, 0.6, 0.12),
}
"""By scorer, (a, b, sd, error): in simulated populations of six kinds k was about a n^b at n training people, ln k
within about sd of that, and d' left the form by about that share."""


@dataclass(frozen=True)
class Fold:
    """One encoder in one fold: people on its principal axes, and single samples of the test people.

    Attributes:
        rows: (r, k) samples, each L2-normalised before projection; owners: (r,) person of each.
    """

    side: Side
    rows: Vectors
    owners: NDArray[np.intp]


Projections = list[list[Fold]]
"""By repeat and fold."""


def folds_for(n_people: int, protocol: Protocol, *, seed: int) -> Folds:
    """The splits of a protocol: repeated 5 folds, or the study's single 80/20 split.

    Raises:
        BadCalibration: under 10 people.
    """
    if protocol == "crossval":
        return folds_of(n_people, n_repeats=repeats_for(n_people) if n_people <= MANY_PEOPLE else 1, seed=seed)
    folds_of(n_people, n_repeats=1, seed=seed)  # the same least number of people
    order = np.random.RandomState(REFERENCE_SEED).permutation(n_people)
    cut = int(REFERENCE_SHARE * n_people)
    return [[(order[:cut], order[cut:])]]


def some_folds(folds: Folds, n_people: int) -> Folds:
    """All folds of few people; of many, MANY_FOLDS of the first repeat, which test as many people as needed."""
    return folds if n_people <= FEW_PEOPLE else [folds[0][:MANY_FOLDS]]


def project_encoder(
    embeddings: Embeddings, folds: Folds, *, seed: int, n_axes: int = N_AXES, with_samples: bool = True
) -> Projections:
    """One encoder in every fold; people in sorted order are the rows that the folds mean."""
    x = centroids(embeddings)
    n = len(x)
    rows: Vectors = np.zeros((0, x.shape[1]))
    owners = np.zeros(0, np.intp)
    if with_samples:
        kept = limit_rows(embeddings, int(np.clip(SAMPLE_ROWS // n, 2, 20)), seed=seed)
        owners = np.searchsorted(np.unique(embeddings.labels), kept.labels)
        rows = _unit(kept.vectors.astype(np.float64))
    everything = _in_few_dimensions(x, rows)
    projected: Projections = []
    for repeat, pairs in enumerate(folds):
        of_repeat = []
        for train, test in pairs:
            used = np.flatnonzero(np.isin(owners, test)) if repeat == 0 or n <= FEW_PEOPLE else np.zeros(0, np.intp)
            both = project(everything, train, np.concatenate([test, n + used]), n_axes=n_axes)
            people, samples = both.test[: len(test)], both.test[len(test) :]
            of_repeat.append(Fold(Side(both.train, people, both.sd), samples.astype(np.float32), owners[used]))
        projected.append(of_repeat)
    return projected


def project_centroids(x: Vectors, folds: Folds, *, n_axes: int = N_AXES) -> list[list[Side]]:
    """As `project_encoder`, from (n, dim) centroids alone."""
    x = _in_few_dimensions(x, np.zeros((0, x.shape[1])))
    return [[project(x, train, test, n_axes=n_axes) for train, test in repeat] for repeat in folds]


@dataclass(frozen=True)
class WithinGroups:
    """A pair with impostors of the genuine person's own group alone.

    Attributes:
        matching: by scorer.
        eer_of: by value of the column, then scorer; None where no fold has two test people of a value.
        floor: EER that knowing the group and nothing else would reach against all impostors.
    """

    column: str
    matching: Mapping[str, Matching]
    eer_of: Mapping[str, Mapping[str, float | None]]
    floor: float


@dataclass(frozen=True)
class PairMeasured:
    """One pair: by level (identity, sample), then scorer; and within each column's groups, centroids."""

    levels: Mapping[str, Mapping[str, Matching]]
    within: tuple[WithinGroups, ...]
    n_train: int
    n_test: int
    n_repeats: int


def first_axes(projections: Projections, k: int = N_AXES) -> Projections:
    """The same encoder on its first k principal axes: axes are nested."""
    return [
        [Fold(_first_axes(fold.side, k), fold.rows[:, :k], fold.owners) for fold in repeat] for repeat in projections
    ]


def measure_pair(
    face: Projections, voice: Projections, folds: Folds, groups: Sequence[PersonGroups] = ()
) -> PairMeasured:
    """What every scorer does with one pair on people it was not fitted on."""
    tallies = {level: {name: Tally() for name in SCORERS} for level in LEVELS}
    inside = [{name: {value: Tally() for value in (None, *g.values)} for name in SCORERS} for g in groups]
    floors = [Tally() for _ in groups]
    for faces, voices, repeat in zip(face, voice, folds, strict=True):
        for f, v, (_, test) in zip(faces, voices, repeat, strict=True):
            for name, matrix, samples in _scored(f, v):
                tallies["identity"][name].add(matrix, test, test)
                if len(f.rows) and len(v.rows):
                    tallies["sample"][name].add(samples(), f.owners, v.owners)
                for group, of_group in zip(groups, inside, strict=True):
                    for i, value in enumerate(group.values):
                        own = np.flatnonzero(group.index[test] == i)
                        block = matrix[np.ix_(own, own)]
                        of_group[name][None].add(block, test[own], test[own])
                        of_group[name][value].add(block, test[own], test[own])
            for group, floor in zip(groups, floors, strict=True):
                known = test[group.index[test] >= 0]
                own = group.index[known]
                floor.add((own[:, None] == own).astype(np.float64), known, known)
    train, test = folds[0][0]
    return PairMeasured(
        {
            level: {name: tally.result() for name, tally in of_level.items()}
            for level, of_level in tallies.items()
        },
        tuple(
            _within(group, of_group, floor)
            for group, of_group, floor in zip(groups, inside, floors, strict=True)
            if not floor.is_empty and not any(values[None].is_empty for values in of_group.values())
        ),
        len(train),
        len(test),
        len(folds),
    )  # fmt: skip


def _within(group: PersonGroups, tallies: Mapping[str, Mapping[str | None, Tally]], floor: Tally) -> WithinGroups:
    """What the tallies of one column say, by scorer and value, None being all values."""

    def rate(tally: Tally) -> float | None:
        return None if tally.is_empty else tally.result().eer

    return WithinGroups(
        group.column,
        {name: values[None].result() for name, values in tallies.items()},
        {value: {name: rate(tallies[name][value]) for name in SCORERS} for value in group.values},
        floor.result().eer,
    )


def measure_centroids(face: Vectors, voice: Vectors, *, seed: int) -> dict[str, Matching]:
    """By scorer, repeated cross-validation of two (n, dim) sets of centroids of the same people.

    Raises:
        BadCalibration: under 10 people.
    """
    folds = folds_for(len(face), "crossval", seed=seed)
    tallies = {name: Tally() for name in SCORERS}
    _tally(tallies, project_centroids(face, folds), project_centroids(voice, folds), folds)
    return {name: tally.result() for name, tally in tallies.items()}


def plain_cosine(face: Embeddings, voice: Embeddings, *, seed: int) -> dict[str, Matching]:
    """By level, two encoders of one joint space compared as they are; nothing is fitted, so all people are tested."""
    found: dict[str, Matching] = {}
    for level in LEVELS:
        sides: list[tuple[Vectors, NDArray[Any]]] = []
        for one in (face, voice):
            if level == "identity":
                sides.append((centroids(one), np.unique(one.labels)))
            else:
                n = len(np.unique(one.labels))
                kept = limit_rows(one, int(np.clip(SAMPLE_ROWS // n, 2, 20)), seed=seed)
                sides.append((kept.vectors, kept.labels))
        tally = Tally()
        tally.add(cosines(sides[0][0], sides[1][0]), sides[0][1], sides[1][1])
        found[level] = tally.result()
    return found


def score_blocks(
    face: Projections, voice: Projections, folds: Folds, scorer: str
) -> list[tuple[NDArray[Any], Vectors]]:
    """Test people and their (faces, voices) scores in every fold of the first repeat."""
    blocks = []
    for f, v, (_, test) in zip(face[0], voice[0], folds[0], strict=True):
        blocks.append((test, next(matrix for name, matrix, _ in _scored(f, v) if name == scorer)))
    return blocks


def eer_by_axes(face: Projections, voice: Projections, folds: Folds) -> dict[str, dict[str, float | None]]:
    """By number of principal axes, then scorer: EER over the first repeat, of many people over three of its folds.

    None where an encoder has fewer axes.

    Args:
        face, voice: projected on max(AXES) axes.
    """
    found: dict[str, dict[str, float | None]] = {}
    folds = some_folds(folds[:1], sum(len(part) for part in folds[0][0]))
    for k in AXES:
        if any(len(fold.side.sd) < k for side in (face, voice) for fold in side[0]):
            found[str(k)] = dict.fromkeys(SCORERS)
            continue
        n_folds = len(folds[0])
        cut = [[[_first_axes(fold.side, k) for fold in side[0][:n_folds]]] for side in (face, voice)]
        rates = _rates(cut[0], cut[1], folds)
        found[str(k)] = {name: rates[name][0] for name in SCORERS}
    return found


@dataclass(frozen=True)
class CurvePoint:
    """EER and AUC of a scorer after training on so many people."""

    n_train: int
    eer: Mapping[str, float]
    auc: Mapping[str, float]


@dataclass(frozen=True)
class Extrapolation:
    """A learning curve carried on to the reference size, at the same number of samples a person.

    d'(N) = d sqrt(N / (N + k)) fitted to the d' of the AUCs: what a matcher of Gaussian variates with N noisy estimates
    of their covariance approaches. A few dozen people say little of k, so the fit starts from what k was in simulated
    populations (CURVE_PRIOR).

    Attributes:
        eer: at `n_train` people. None, with the reason, where the curve says nothing.
        plateau: EER with endless training people.
        residual: root mean square of d' about the curve.
    """

    n_train: int
    eer: float | None
    interval: tuple[float, float] | None
    plateau: float | None
    residual: float | None
    reason: str | None = None


@dataclass(frozen=True)
class LearningCurve:
    """Points by training people, and what they lead to, by scorer."""

    points: tuple[CurvePoint, ...]
    extrapolated: Mapping[str, Extrapolation]


def curve_sizes(folds: Folds) -> list[int]:
    """Numbers of training people on a learning curve, the whole training part last."""
    most = min(len(train) for repeat in folds for train, _ in repeat)
    least = min(SMALLEST_CURVE, most)
    return sorted({round(s) for s in np.geomspace(least, most, CURVE_POINTS)})


def curve_projections(x: Vectors, folds: Folds, *, seed: int) -> dict[int, list[list[Side]]]:
    """By number of training people, one encoder (centroids) in every fold; smaller sets are parts of larger ones."""
    x = _in_few_dimensions(x, np.zeros((0, x.shape[1])))
    rng = np.random.default_rng([seed, 11])
    orders = [[rng.permutation(train) for train, _ in repeat] for repeat in folds]
    return {
        size: [
            [project(x, order[:size], test) for order, (_, test) in zip(row, repeat, strict=True)]
            for row, repeat in zip(orders, folds, strict=True)
        ]
        for size in curve_sizes(folds)
    }


def learning_curve(
    face: Mapping[int, list[list[Side]]], voice: Mapping[int, list[list[Side]]], folds: Folds
) -> LearningCurve:
    """Of one pair, from both encoders' `curve_projections`."""
    points, errors = [], {name: 0.0 for name in SCORERS}
    for size in face:
        rates = _rates(face[size], voice[size], folds)
        points.append(CurvePoint(size, {n: r[0] for n, r in rates.items()}, {n: r[1] for n, r in rates.items()}))
        errors = {name: r[2] for name, r in rates.items()}
    return LearningCurve(
        tuple(points),
        {
            name: extrapolate([p.n_train for p in points], [p.auc[name] for p in points], errors[name], scorer=name)
            for name in SCORERS
        },
    )


def extrapolate(
    sizes: Sequence[int], aucs: Sequence[float], error: float, *, scorer: str = "reference", to: int = REFERENCE_TRAIN
) -> Extrapolation:
    """The EER at `to` training people.

    Args:
        sizes, aucs: points of the curve.
        error: standard error over people of the d' of the last point.
        scorer: whose prior is taken.
    """
    from scipy.special import ndtr, ndtri

    n = np.array(sizes, dtype=np.float64)
    d = math.sqrt(2) * ndtri(np.clip(aucs, 0.005, 0.995))
    if len(n) < 3:
        return Extrapolation(to, None, None, None, None, f"{len(n)} points; a curve needs at least 3")
    if d[-1] <= 2 * error or d[-1] <= 0:
        return Extrapolation(to, None, None, None, None, "with all people to train on it is not above chance")
    scale, power, prior_sd, model_error = CURVE_PRIOR[scorer]
    k = np.geomspace(0.5, 5000, 200)
    shape = np.sqrt(n[:, None] / (n[:, None] + k))
    top = (shape * d[:, None]).sum(axis=0) / np.square(shape).sum(axis=0)
    squares = np.square(d[:, None] - top * shape).sum(axis=0)
    log = -0.5 * (squares / max(error, 0.02) ** 2 + np.square(np.log(k / (scale * n[-1] ** power)) / prior_sd))
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    # Through the last point, which has all people behind it; the curve only tells how much is still to come.
    factors = np.sqrt((1 + k / n[-1]) / (1 + k / to))
    factor = float(weight @ factors)
    spread = math.sqrt(float(weight @ np.square(factors - factor)))
    at = factor * d[-1]
    half = float(ndtri((1 + COVERAGE) / 2)) * math.hypot(SPREAD * factor * error, spread * d[-1], model_error * d[-1])
    low, high = (float(ndtr(-x / 2)) for x in (at + half, max(at - half, 0)))
    plateau = float(ndtr(-d[-1] * float(weight @ np.sqrt(1 + k / n[-1])) / 2))
    residual = math.sqrt(float(weight @ squares) / len(n))
    return Extrapolation(to, float(ndtr(-at / 2)), (low, high), plateau, residual)


@dataclass(frozen=True)
class RecordingsCompared:
    """The same people with faces and voices from the same recordings, and from others.

    Each person's recordings are divided into two halves, again and again; both comparisons have equally many samples.
    `debiased` and `matched`: CKA.
    """

    n_people: int
    n_splits: int
    same_eer: Mapping[str, float]
    other_eer: Mapping[str, float]
    same_cka: Mapping[str, float]
    other_cka: Mapping[str, float]


@dataclass(frozen=True)
class Halves:
    """One encoder's centroids of half A and half B of everybody's recordings, by split, with Gram matrices."""

    sides: tuple[tuple[list[list[Side]], list[list[Side]]], ...]
    grams: tuple[tuple[Gram, Gram], ...]


Assignment = Callable[[Embeddings], NDArray[np.intp]]
"""(rows,) half of each sample: 0, 1, or -1 for neither."""


def halves(embeddings: Embeddings, assignments: Sequence[NDArray[np.intp]], folds: Folds) -> Halves:
    """One encoder, divided.

    Args:
        assignments: by split, (rows,) half of each sample, 0 or 1, or -1 for one that is left out; every person must
            have both.
        folds: a repeat for each split.
    """
    sides, grams = [], []
    for assignment, repeat in zip(assignments, folds, strict=True):
        both = [centroids(embeddings.rows(assignment == half)) for half in (0, 1)]
        sides.append((project_centroids(both[0], [repeat]), project_centroids(both[1], [repeat])))
        grams.append((gram(both[0]), gram(both[1])))
    return Halves(tuple(sides), tuple(grams))


def compare_recordings(face: Halves, voice: Halves, folds: Folds) -> RecordingsCompared:
    """One pair, from both encoders' `halves` of the same people and recordings."""
    combinations = {"same": ((0, 0), (1, 1)), "other": ((0, 1), (1, 0))}
    rates, ckas = {}, {}
    for kind, pairs in combinations.items():
        tallies = {name: Tally() for name in SCORERS}
        forms = []
        for f, v, fg, vg, repeat in zip(face.sides, voice.sides, face.grams, voice.grams, folds, strict=True):
            for i, j in pairs:
                _tally(tallies, f[i], v[j], [repeat])
                forms.append(cka(fg[i], vg[j], matched_to=REFERENCE_SIZE))
        rates[kind] = {name: tally.result().eer for name, tally in tallies.items()}
        ckas[kind] = {
            "debiased": float(np.mean([form.debiased for form in forms])),
            "matched": float(np.mean([form.matched for form in forms])),
        }
    n = sum(len(part) for part in folds[0][0])
    return RecordingsCompared(n, len(folds), rates["same"], rates["other"], ckas["same"], ckas["other"])


def group_probe(x: Vectors, groups: PersonGroups, *, seed: int) -> float:
    """Balanced accuracy with which a linear classifier tells the group of people it was not fitted on, in [0, 1].

    Args:
        x: (n, dim) centroids.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = groups.index >= 0
    rows, labels = np.asarray(x, dtype=np.float64)[known], groups.index[known]
    least = int(np.bincount(labels).min())
    n_axes = min(N_AXES, int(0.7 * len(rows)), rows.shape[1])
    probe = make_pipeline(
        PCA(n_axes, random_state=seed),
        StandardScaler(),
        LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000),
    )
    splits = StratifiedKFold(min(5, least), shuffle=True, random_state=seed)
    return float(cross_val_score(probe, rows, labels, cv=splits, scoring="balanced_accuracy").mean())


def centred_within(x: Vectors, groups: PersonGroups) -> tuple[Vectors, NDArray[np.intp]]:
    """Centroids of the people who have a group, less the mean of their group; and the row numbers of those people."""
    known = np.flatnonzero(groups.index >= 0)
    rows = np.asarray(x, dtype=np.float64)[known]
    for value in range(len(groups.values)):
        own = groups.index[known] == value
        rows[own] -= rows[own].mean(axis=0)
    return rows, known


def _scored(face: Fold, voice: Fold) -> list[tuple[str, Vectors, Callable[[], Vectors]]]:
    """Each scorer's name, its scores of test people, and a function to those of their single samples."""
    plain = directions(face.side, voice.side)
    ridge = directions(face.side, voice.side, ridge=ridge_for(len(face.side.train)))
    f, v = (Side(fold.side.train, fold.rows, fold.side.sd) for fold in (face, voice))

    def both(name: str) -> tuple[str, Vectors, Callable[[], Vectors]]:
        found = ridge if name == "weighted" else plain
        return (
            name,
            scores_on(name, found, face.side, voice.side),
            lambda: scores_on(name, found, f, v).astype(np.float32),
        )

    return [both(name) for name in SCORERS]


def _tally(tallies: Mapping[str, Tally], face: list[list[Side]], voice: list[list[Side]], folds: Folds) -> None:
    nothing = np.zeros((0, 0), np.float32), np.zeros(0, np.intp)
    for faces, voices, repeat in zip(face, voice, folds, strict=True):
        for f, v, (_, test) in zip(faces, voices, repeat, strict=True):
            for name, matrix, _ in _scored(Fold(f, *nothing), Fold(v, *nothing)):
                tallies[name].add(matrix, test, test)


def _rates(
    face: Sequence[Sequence[Side]], voice: Sequence[Sequence[Side]], folds: Folds
) -> dict[str, tuple[float, float, float]]:
    """By scorer: EER pooled over folds, mean AUC, and standard error over people of its d'."""
    nothing = np.zeros((0, 0), np.float32), np.zeros(0, np.intp)
    genuine: dict[str, list[Vectors]] = {name: [] for name in SCORERS}
    impostor: dict[str, list[Vectors]] = {name: [] for name in SCORERS}
    n = 1 + max(int(test.max()) for repeat in folds for _, test in repeat)
    placed = {name: np.zeros(n) for name in SCORERS}
    counts = np.zeros(n)
    for faces, voices, repeat in zip(face, voice, folds, strict=True):
        for f, v, (_, test) in zip(faces, voices, repeat, strict=True):
            counts[test] += 1
            for name, matrix, _ in _scored(Fold(f, *nothing), Fold(v, *nothing)):
                own, others = np.diag(matrix), matrix[~np.eye(len(matrix), dtype=bool)]
                placed[name][test] += auc_placements(own, others)
                genuine[name].append(own)
                impostor[name].append(others)
    seen = counts > 0
    found = {}
    for name in SCORERS:
        means = placed[name][seen] / counts[seen]
        auc = float(means.mean())
        error = max(float(means.std(ddof=1)) / math.sqrt(len(means)), 1 / (2 * len(means)))
        d = _distance(auc)
        slope = math.sqrt(2) * math.sqrt(2 * math.pi) * math.exp(d * d / 4)
        rate = eer(np.concatenate(genuine[name]), np.concatenate(impostor[name]))
        found[name] = rate, auc, error * slope
    return found


def _distance(auc: float) -> float:
    from scipy.special import ndtri

    return math.sqrt(2) * float(ndtri(np.clip(auc, 0.005, 0.995)))


def _first_axes(side: Side, k: int) -> Side:
    return Side(side.train[:, :k], side.test[:, :k], side.sd[:k])


def _in_few_dimensions(x: Vectors, rows: Vectors) -> Vectors:
    """Centroids, then rows, about the centroids' mean, in the span of the centroids where that is smaller.

    Axes fitted on centroids lie in their span, so what rows have beyond it is never seen.
    """
    centre = x.mean(axis=0)
    x, rows = x - centre, rows - centre
    if len(x) > x.shape[1]:
        return np.vstack([x, rows])
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > len(x) * np.finfo(np.float64).eps * max(values[-1], float(np.square(centre).sum()) * 1e-8)
    if not kept.any():
        raise BadCalibration("All people have the same embedding; matching needs variation. Check the encoder.")
    axes = x.T @ (vectors[:, kept] / np.sqrt(values[kept]))
    return np.vstack([x @ axes, rows @ axes])


def _unit(x: Vectors) -> Vectors:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norms > 0, norms, 1))
