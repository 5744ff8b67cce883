"""What stages are measured against: products of matrices, plain scikit-learn, trained heads, matchers one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from unittest.mock import patch

import numpy as np

from encsel.core import Vectors
from encsel.matching.axes import N_AXES, N_INNER, Side, project
from encsel.matching.crossval import costly_repeats
from encsel.matching.folds import Fold, protocol_folds
from encsel.matching.likelihood import N_AXES as N_AXES_OF_HEADS
from encsel.matching.scorers import PairInFold
from encsel.prediction.evidence import evidence_folds
from encsel.prediction.predict import COMPLETE_SHUFFLES
from encsel.prediction.shuffled import folds_of_shuffles
from encsel.threads import one_thread

from .measure import Skipped, Yardstick

SQUARE = 2048
N_TRIED = 2
"""Folds whose heads are trained to tell the time of all."""


def products(name: str, n_pairs: float, dim: int, *, dtype: type = np.float32) -> Yardstick:
    """Inner products of so many pairs of rows, at the rate of one large product."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SQUARE, dim), np.float32).astype(dtype) for _ in range(2))
    out = np.empty((SQUARE, SQUARE), dtype)
    return Yardstick(name, lambda: np.matmul(a, b.T, out=out), n_pairs / SQUARE**2)


def brute_force(x: Vectors, k: int, *, n_searched: int, n_tried: int) -> Yardstick:
    """scikit-learn's search in float64, from the time of a few of the rows."""
    from sklearn.neighbors import NearestNeighbors

    @cache
    def fitted() -> NearestNeighbors:
        return NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(x.astype(np.float64))

    some = x[:n_tried].astype(np.float64)
    return Yardstick("scikit-learn, brute force in float64", lambda: fitted().kneighbors(some), n_searched / n_tried)


def heads(faces: Sequence[Vectors], voices: Sequence[Vectors], *, n_epochs: int | None = None) -> Yardstick:
    """Training one linear head of every pair, as the stage `head` does, once on all people."""
    n_pairs, n_people = len(faces) * len(voices), len(faces[0])
    what = "a linear head" if n_pairs == 1 else f"{n_pairs} linear heads"
    if n_epochs is not None:
        what = f"the first {n_epochs} epochs of {what}"

    def run() -> None:
        from encsel.matching import heads

        everyone = np.arange(n_people)
        sides = [[project(x, everyone, everyone[:0], n_axes=N_AXES_OF_HEADS).train for x in side]
                 for side in (faces, voices)]  # fmt: skip
        with patch.object(heads, "MAX_EPOCHS", n_epochs or heads.MAX_EPOCHS):
            for face in sides[0]:
                for voice in sides[1]:
                    heads.train_head(face, voice, kind="linear", seed=0)

    return Yardstick(f"training {what}", run, prepare=import_torch)


def heads_of_folds(face: Vectors, voice: Vectors) -> Yardstick:
    """Training the linear head of a pair in every fold of the stage `head`, from the time of some folds."""
    folds = protocol_folds(len(face), "crossval", seed=0)
    tried, n_folds = folds[0][:N_TRIED], sum(map(len, folds))

    def run() -> None:
        from encsel.matching import heads

        for train, _ in tried:
            sides = [project(x, train, train[:0], n_axes=N_AXES_OF_HEADS).train for x in (face, voice)]
            heads.train_head(*sides, kind="linear", seed=0)

    return Yardstick(f"the same in the {n_folds} folds of `head`", run, n_folds / len(tried), prepare=import_torch)


def solve_eigenvalue_problems(faces: Sequence[Vectors], voices: Sequence[Vectors], *, part: int) -> None:
    """One in `part` of the eigenvalue problems of `rank`: axes and likelihood ratios of cross-validation and shuffles.

    Predictions cannot be had without them.
    """
    folds = evidence_folds(len(faces[0]), seed=0)
    n_train = len(folds[0][0][0])
    n_folds, n_shuffled = sum(map(len, folds)), COMPLETE_SHUFFLES * len(folds_of_shuffles(folds))
    sizes = Counter[int]()
    for side, n_times in ((faces, n_folds), (voices, n_folds + n_shuffled)):
        for x in side:
            sizes[min(n_train, x.shape[1])] += n_times
    n_ratios = len(faces) * len(voices) * (sum(map(len, folds[: costly_repeats(len(folds))])) + n_shuffled)
    sizes[min(n_train - 1, N_AXES_OF_HEADS, *(x.shape[1] for x in (*faces, *voices)))] += n_ratios * (1 + N_INNER)
    rng = np.random.default_rng(0)
    with one_thread():
        for size, number in sizes.items():
            x = rng.standard_normal((size, size))
            for _ in range(max(round(number / part), 1)):
                np.linalg.eigh(x + x.T)


def import_torch() -> None:
    """Import what training needs, which takes seconds."""
    if find_spec("torch") is None:
        raise Skipped("needs torch")
    import torch

    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])


def matchers_of_shuffles(
    faces: Sequence[Sequence[Side]],
    voices: Sequence[Vectors],
    folds: Sequence[Fold],
    orders: np.ndarray,
    *,
    scorers: Sequence[str],
    times: float,
) -> Yardstick:
    """Fitting and scoring the matchers of every pair in every fold, one shuffle after another."""
    n_axes = N_AXES_OF_HEADS if "likelihood" in scorers else N_AXES

    def run() -> None:
        for order in orders:
            for x in voices:
                for k, (train, test) in enumerate(folds):
                    voice = project(x[order], train, test, n_axes=n_axes)
                    for face in faces:
                        pair = PairInFold(face[k], voice)
                        for scorer in scorers:
                            pair.scores(scorer)

    return Yardstick(f"fitting and scoring {' and '.join(scorers)}, one by one", run, times)
