"""Rows that time one stage within the process: neighbours, CKA, shuffles, evidence, and the geometry of an encoder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from encsel.core import Vectors
from encsel.metrics.curvature import curvature, curvature_points
from encsel.metrics.linear_cka import cka_of_grams, gram, matched_standard_error, null_of_matched
from encsel.metrics.neighbours import N_SEARCHED, nearest_neighbours
from encsel.metrics.silhouette import silhouette
from encsel.metrics.spectral import N_VALUES, spectrum
from encsel.metrics.spectral import K as K_OF_SPECTRUM
from encsel.metrics.topology import topology
from encsel.metrics.transport import drawn_people, gromov_wasserstein, people_distances
from encsel.prediction.evidence import encoder_evidence, evidence_folds, pair_evidence
from encsel.prediction.shuffled import costly_features, folds_of_shuffles, shuffled_features, shuffles
from encsel.rows import unit_rows

from .measure import Case, Skipped, Yardstick
from .people import FACES, ROWS, VOICES, read_people, read_rows
from .rows import Data
from .yardsticks import brute_force, heads, heads_of_folds, matchers_of_shuffles, products

TIMES_GEMM = "ratio 1.5"


def gemm(data: Data) -> Case:
    n, dim = data.size(4096, 1024), 512
    a, b = (np.random.default_rng(i).standard_normal((n, dim), np.float32) for i in range(2))
    out = np.empty((n, n), np.float32)
    run: Callable[[], Any] = lambda: np.matmul(a, b.T, out=out)  # noqa: E731
    return Case(f"products of {n:,} x {n:,} rows of {dim}, float32", run, units=(2e-9 * n * n * dim, "GFLOP"))


def neighbours(data: Data) -> Case:
    return _neighbours(read_rows(data.people, "arcface"), 20)


def many_neighbours(data: Data) -> Case:
    return _neighbours(cloud(data.size(20_000, 3000), data.size(1024, 64)), 50)


def _neighbours(x: Vectors, k: int) -> Case:
    n, dim = x.shape
    yardsticks = (
        products("products of each pair of rows, once", n * (n - 1) / 2, dim),
        brute_force(x, k, n_searched=n, n_tried=min(n, 1000)),
    )
    name = f"{k} neighbours of {n:,} x {dim} rows"
    return Case(name, lambda: nearest_neighbours(x, k), yardsticks, target=TIMES_GEMM)


def sampled_neighbours(data: Data) -> Case:
    n, m, dim, k = data.size(200_000, 6000), data.size(N_SEARCHED, 500), data.size(512, 64), 20
    x, rows = cloud(n, dim), np.sort(np.random.default_rng(1).choice(n, m, replace=False))
    yardsticks = (
        products("products of both sets of rows", n * m, dim),
        brute_force(x, k, n_searched=m, n_tried=250),
    )
    name = f"{k} neighbours of {m:,} of {n:,} x {dim} rows"
    return Case(name, lambda: nearest_neighbours(x, k, of=rows), yardsticks, target=TIMES_GEMM)


def cka(data: Data, n: int, face: str, voice: str) -> Case:
    if data.quick:
        n = 50 if n == 70 else 70
    x, y = (read_people(data.people, name, n) for name in (face, voice))
    name = f"CKA and its error, {n} people, {face} x {voice}"
    yardsticks = heads([x], [y]), heads_of_folds(x, y)
    return Case(name, lambda: _cka(x, y), yardsticks, one_thread=True)


def cka_of_many(data: Data) -> Case:
    n, dims = data.size(20_000, 3100), data.size((512, 1024), (32, 64))
    x, y = (unit_rows(cloud(n, dim, seed=i).astype(np.float64)) for i, dim in enumerate(dims))
    n_products = n * (dims[0] ** 2 + dims[1] ** 2 + dims[0] * dims[1])
    yardsticks = (
        products("products of the columns, float64", n_products / 512, 512, dtype=np.float64),
        heads([x], [y], n_epochs=3),
    )
    return Case(f"CKA and its error, {n:,} people, {dims[0]} x {dims[1]}", lambda: _cka(x, y), yardsticks)


def _cka(x: Vectors, y: Vectors) -> None:
    k, q = gram(x), gram(y)
    cka_of_grams(k, q)
    matched_standard_error(k, q)


def cka_null(data: Data) -> Case:
    faces, voices = ([gram(read_people(data.people, name)) for name in side] for side in (FACES, VOICES))
    n, n_tried = len(faces[0]), data.size(5, 2)
    permutations = np.stack([np.random.default_rng(i).permutation(n) for i in range(199)])
    k, q = faces[0].matrix, voices[0].matrix

    def plain() -> None:
        for p in permutations[:n_tried]:
            np.vdot(k[np.ix_(p, p)], q)

    n_pairs = len(faces) * len(voices)
    yardstick = Yardstick("plain numpy, one by one", plain, n_pairs * len(permutations) / n_tried)
    name = f"CKA of {n_pairs} pairs of {n:,} people shuffled {len(permutations)} times"
    return Case(name, lambda: null_of_matched(faces, voices, permutations=permutations), (yardstick,))


def shuffled(data: Data) -> Case:
    n, n_costly = 40, data.size(8, 1)
    of_faces, of_voices = ([read_people(data.people, name, n) for name in side] for side in _two_of_each())
    folds = evidence_folds(n, seed=0)
    used = folds_of_shuffles(folds)
    orders = np.vstack([np.arange(n), shuffles(n, data.size(199, 9), seed=0)])
    faces, voices = ([encoder_evidence(x, folds) for x in side] for side in (of_faces, of_voices))

    def run() -> None:
        for evidence, x in zip(voices, of_voices, strict=True):
            shuffled_features(faces, evidence, used, orders)
            for order in orders[1 : 1 + n_costly]:
                costly_features(faces, x, used, order)

    sides = [face.folds[0] for face in faces]
    tried = orders[: data.size(10, 2)]
    times = (len(orders) + n_costly) / len(tried)
    n_pairs = len(faces) * len(voices)
    x = np.random.default_rng(0).standard_normal((len(orders), len(used[0][0]), len(used[0][0])))

    def solve() -> None:
        # The axes of each voice, and the canonical variates of each pair, in every fold and order.
        for _ in range(len(used) * (len(voices) + n_pairs)):
            np.linalg.eigh(x + x.transpose(0, 2, 1))

    yardsticks = (
        *(
            matchers_of_shuffles(sides, of_voices, used, tried, scorers=scorers, times=times)
            for scorers in (("reference",), ("reference", "likelihood"))
        ),
        Yardstick("eigenvalue problems of the shuffles alone", solve),
    )
    n_units = (len(orders) + n_costly) * n_pairs * len(used)
    name = f"{len(orders) - 1} + {n_costly} shuffles of {n} people x {n_pairs} pairs"
    return Case(name, run, yardsticks, units=(n_units, "fold, pair and shuffle"), one_thread=True)


def evidence_of_encoder(data: Data) -> Case:
    from sklearn.decomposition import PCA

    x = read_people(data.people, "dinov2")
    folds = evidence_folds(len(x), seed=0)
    n_axes = min(200, len(folds[0][0][0]) - 1)

    def plain() -> None:
        for repeat in folds:
            for train, test in repeat:
                pca = PCA(n_axes, svd_solver="full").fit(x[train])
                pca.transform(x[test])

    name = f"evidence of one encoder, {len(x):,} people x {x.shape[1]}"
    yardstick = Yardstick("scikit-learn, PCA in every fold", plain)
    return Case(name, lambda: encoder_evidence(x, folds), (yardstick,), one_thread=True)


def evidence_of_pair(data: Data) -> Case:
    x, y = (read_people(data.people, name) for name in ("dinov2", "wavlm"))
    folds = evidence_folds(len(x), seed=0)
    face, voice = (encoder_evidence(side, folds) for side in (x, y))
    name = f"evidence of one pair, {len(x):,} people"
    return Case(name, lambda: pair_evidence(face, voice, folds), (heads([x], [y]),), one_thread=True)


def curved(data: Data) -> Case:
    x, k = read_rows(data.people, "arcface"), 50
    points = curvature_points(len(x))
    found = nearest_neighbours(x, k, of=np.sort(points)).index
    index = found[np.argsort(np.argsort(points))]
    n_tried = 50

    def plain() -> None:
        for point, near in zip(points[:n_tried], index[:n_tried], strict=True):
            np.linalg.svd((x[near] - x[point]).astype(np.float64), full_matrices=False)

    yardstick = Yardstick("plain numpy, one decomposition a point", plain, len(points) / n_tried)
    name = f"curvature at {len(points):,} points, {k} neighbours x {x.shape[1]}"
    return Case(name, lambda: curvature(x, points, index), (yardstick,), one_thread=True)


def transport(data: Data) -> Case:
    if find_spec("ot") is None:
        raise Skipped("needs POT")
    people = [read_people(data.people, name) for name in ("clip", "wavlm")]
    some = drawn_people(len(people[0]), 0)[: data.size(None, 40)]
    face, voice = (people_distances(x[some]) for x in people)
    weights = np.full(len(face), 1 / len(face))

    def plain() -> None:
        import ot  # not before encsel does, which has it leave torch alone

        ot.gromov.gromov_wasserstein2(face, voice, weights, weights, "square_loss")

    yardstick = Yardstick("plain POT, from one start", plain)
    name = f"Gromov-Wasserstein, {len(face)} people"
    return Case(name, lambda: gromov_wasserstein(face, voice), (yardstick,), one_thread=True)


def spectral(data: Data) -> Case:
    from scipy.sparse.csgraph import laplacian
    from sklearn.neighbors import kneighbors_graph

    x = read_people(data.people, "clip")

    def plain() -> None:
        graph = kneighbors_graph(x, K_OF_SPECTRUM)
        np.linalg.eigvalsh(laplacian(graph.maximum(graph.T), normed=True).toarray())[:N_VALUES]

    yardstick = Yardstick("scikit-learn's graph, all eigenvalues", plain)
    name = f"spectrum of one encoder, {len(x):,} people"
    return Case(name, lambda: spectrum(x), (yardstick,), one_thread=True)


def clusters(data: Data) -> Case:
    from sklearn.metrics.pairwise import cosine_distances

    x, people = read_rows(data.people, "clip"), _labels(data)

    def plain() -> None:
        centroids = np.stack([x[people == person].mean(axis=0) for person in np.unique(people)])
        cosine_distances(centroids)
        cosine_distances(x, centroids)

    yardstick = Yardstick("scikit-learn, all distances to centroids", plain)
    name = f"topology of {len(x):,} x {x.shape[1]} rows"
    return Case(name, lambda: topology(x, people), (yardstick,), one_thread=True)


def silhouettes(data: Data) -> Case:
    from sklearn.metrics import silhouette_score

    x, people = read_rows(data.people, "clip"), _labels(data)
    yardstick = Yardstick("scikit-learn, silhouette_score", lambda: silhouette_score(x, people, metric="cosine"))
    name = f"silhouette of {len(x):,} x {x.shape[1]} rows"
    return Case(name, lambda: silhouette(x, people), (yardstick,), one_thread=True)


def embedding(data: Data, modality: str) -> Case:
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise Skipped(f"needs {package}")
    from . import models

    size = {"face": data.size((30, 8, 16), (2, 2, 4)), "voice": data.size((6, 2, 4), (1, 2, 2))}
    shape: Any = {"face": data.size(models.CLIP_OF_6_LAYERS, models.SMALL_CLIP),
                  "voice": data.size(models.HUBERT_BASE, models.SMALL_HUBERT)}[modality]  # fmt: skip
    (n_identities, n_samples, batch_size), seconds = size[modality], data.size(5.0, 0.3)
    folder = Path(tempfile.mkdtemp(dir=data.folder))
    encoder = models.load_encoder(models.write_model(folder / "model", modality, shape), device="cpu")
    calibration = models.write_set(folder / "set", modality, n_identities, n_samples, seconds=seconds)
    run_bare, run_encsel = models.bare_and_encsel(encoder, calibration, batch_size=batch_size)
    what = "images" if modality == "face" else f"clips of {seconds:g} s"
    name = f"embedding {len(calibration.samples)} {what}, {encoder.family}, {shape['num_hidden_layers']} layers"
    return Case(name, run_encsel, (Yardstick("bare model loop", run_bare),), target="ratio 1.15")


def cloud(n: int, dim: int, *, seed: int = 0) -> Vectors:
    """(n, dim) float32 rows on a surface of 16 dimensions, with noise; a block at a time."""
    rng = np.random.default_rng([seed, dim])
    mixing, x = rng.standard_normal((16, dim), np.float32), np.empty((n, dim), np.float32)
    for start in range(0, n, 4096):
        block = x[start : start + 4096]
        rng.standard_normal(dtype=np.float32, out=block)
        block *= np.float32(0.3)
        block += np.sin(rng.standard_normal((len(block), 16), np.float32) @ mixing / 2)
    return x


def _two_of_each() -> tuple[list[str], list[str]]:
    return list(FACES)[:2], list(VOICES)[:2]


def _labels(data: Data) -> np.ndarray:
    return np.repeat(np.arange(len(read_rows(data.people, "clip")) // ROWS), ROWS)
