"""Joint training: projections of face and voice that are fitted together, measured on held-out people.

After training, the CKA of the training people is high whatever the embeddings contain; only held-out people show
whether faces and voices share anything. The control is trained on faces with voices of other people.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration
from encsel.matching.axes import Side
from encsel.matching.crossval import pooled_rates
from encsel.matching.error_rates import Tally
from encsel.matching.folds import Folds, SidesByFold
from encsel.matching.scorers import PairInFold, cosines
from encsel.metrics.linear_cka import gram, unbiased_hsic
from encsel.rows import unit_rows

PROJECTIONS = "linear, in closed form: canonical directions, each weighted by its correlation on people held out"
"""Description of the projections of `project`."""


@dataclass(frozen=True)
class Projected:
    """Held-out people after joint training: debiased CKA, and EER by plain cosine with its 90 % interval.

    `cka` is None where the projections are zero: training found nothing that faces and voices share.
    """

    cka: float | None
    eer: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class JointTraining:
    """One pair before and after joint training, on the same held-out people.

    Attributes:
        cka, eer: debiased CKA of the embeddings as they are, and EER of each scorer fitted on the training people.
        after: after training on the training people.
        control: after training on their faces with the voices of other training people.
    """

    cka: float
    eer: Mapping[str, float]
    after: Projected
    control: Projected
    n_train: int
    n_test: int
    n_repeats: int


def project(face: Side, voice: Side) -> tuple[Vectors, Vectors]:
    """Test rows (n, r) of both sides in the joint space of projections trained on the training people.

    Weighting by the correlation gave lower EERs on simulated populations than weighting by its root.
    """
    ratio = PairInFold(face, voice).likelihood
    weights = ratio.correlations
    return face.test @ (ratio.face * weights), voice.test @ (ratio.voice * weights)


def with_voices_of_others(voice: Side, rng: np.random.Generator) -> Side:
    """The side with every training voice replaced by that of another person."""
    order = rng.permutation(len(voice.train))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)
    return Side(voice.train[other], voice.test, voice.sd)


def joint_training(
    face: Vectors, voice: Vectors, sides: tuple[SidesByFold, SidesByFold], folds: Folds, *, seed: int
) -> JointTraining:
    """Train projections in every fold and measure the test people.

    Args:
        face, voice: (n, dim) centroids of the same people in the same order; `sides` has them in every fold.
        seed: random seed of the control.
    Raises:
        BadCalibration: fewer than 4 people in a fold, or an encoder whose own variation is not above its noise.
    """
    rng = np.random.default_rng(seed)
    products = np.zeros(3)
    after, control = _HeldOut(), _HeldOut()
    for faces, voices, repeat in zip(*sides, folds, strict=True):
        for f, v, (_, test) in zip(faces, voices, repeat, strict=True):
            products += hsic_products(face[test], voice[test])
            after.add(*project(f, v), test)
            control.add(*project(f, with_voices_of_others(v, rng)), test)
    cka = cka_of_products(products)
    if cka is None:
        raise BadCalibration(
            "An encoder's own variation is not above its noise; debiased CKA is undefined. Add people."
        )
    train, test = folds[0][0]
    eers = {scorer: rates.eer for scorer, rates in pooled_rates(*sides, folds).items()}
    return JointTraining(cka, eers, after.result(), control.result(), len(train), len(test), len(folds))


class _HeldOut:
    """Projected people of all folds so far."""

    def __init__(self) -> None:
        self._tally, self._products = Tally(), np.zeros(3)

    def add(self, faces: Vectors, voices: Vectors, test: NDArray[np.intp]) -> None:
        self._tally.add(cosines(faces, voices), test, test)
        if faces.any() and voices.any():
            self._products += hsic_products(unit_rows(faces), unit_rows(voices))

    def result(self) -> Projected:
        matching = self._tally.result()
        return Projected(cka_of_products(self._products), matching.eer, matching.interval)


def hsic_products(x: Vectors, y: Vectors) -> Vectors:
    """(3,) HSIC without bias of x with y, x with x, and y with y, to be summed over folds."""
    k, q = gram(x), gram(y)
    return np.array([unbiased_hsic(k, q), unbiased_hsic(k, k), unbiased_hsic(q, q)])


def cka_of_products(products: Vectors) -> float | None:
    """Debiased CKA from sums of `hsic_products`; None if a side's own variation is not above its noise."""
    cross, of_x, of_y = products.tolist()
    return float(cross / np.sqrt(of_x * of_y)) if of_x > 0 and of_y > 0 else None
