"""Two-branch heads: projections of faces and voices trained contrastively, a yardstick for the closed-form scorers.

The loss is symmetric InfoNCE over people: each face must find its person's voice among a batch, and the reverse.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import BadCalibration
from encsel.extras import imported
from encsel.matching.eer import EerRule, eer_of_sorted
from encsel.matching.error_rates import Matching, Tally
from encsel.matching.evaluate import LEVELS
from encsel.matching.folds import Folds, fitted
from encsel.matching.projections import Projections, sides_of
from encsel.matching.scorers import cosines
from encsel.rows import unit_rows
from encsel.threads import one_thread

if TYPE_CHECKING:
    import torch

    Layers = list[tuple[torch.Tensor, torch.Tensor]]

HeadKind = Literal["linear", "mlp"]
HEADS: Final[Mapping[HeadKind, tuple[int, ...]]] = {"linear": (128,), "mlp": (256, 128)}
"""Sizes of the layers of each branch."""
COMPARED = ("reference", *HEADS, "likelihood")
MIN_TO_TRAIN = 16
"""Fewest training people: those of 20 people in 5 folds."""
TEMPERATURE = 0.5
"""Fixed temperature: with few people a learned one, or one near 0.1 as used for millions of pairs, overfits."""
LEARNING_RATE, WEIGHT_DECAY, BATCH = 1e-3, 0.1, 256
HELD_OUT, PATIENCE, MAX_EPOCHS = 0.2, 30, 500
"""Fraction of the training people held out; epochs without a lower loss on them after which training stops."""


@dataclass(frozen=True)
class Branch:
    """One side: the (k,) factors of its axes, then layers with weights (inputs, outputs) and biases."""

    factors: Vectors
    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]

    def project(self, rows: Vectors) -> Vectors:
        """The projection of rows on the axes of training."""
        return np.asarray(_outputs(self.layers, _inputs(rows, self.factors)))


@dataclass(frozen=True)
class Head:
    """A trained head: two branches into one space."""

    face: Branch
    voice: Branch

    def scores(self, faces: Vectors, voices: Vectors) -> Vectors:
        """(n_faces, n_voices) cosines, in [-1, 1], of rows on the axes that the head was trained on."""
        return cosines(self.face.project(faces), self.voice.project(voices))


@dataclass(frozen=True)
class HeadsCompared:
    """One pair: `levels` by LEVELS, then COMPARED, all measured on the same people in the same folds."""

    levels: Mapping[str, Mapping[str, Matching]]
    n_train: int
    n_test: int
    n_repeats: int


def train_head(faces: Vectors, voices: Vectors, *, kind: HeadKind, seed: int, device: str = "cpu") -> Head:
    """Train both branches with AdamW; training stops on people held out, and the best weights are kept.

    Branches see each axis times the root of its deviation, then L2-normalised rows, so the scale of an encoder has no
    effect. On real and on simulated people heads did worse on axes as they are, and far worse on axes divided by their
    deviation, which lifts noise to the size of what is shared.

    Args:
        faces, voices: (n, k) training people on the principal axes of each side, the same people in the same order.
        seed: random seed of the initial weights, the people held out and the batches. On the CPU it fixes the head.
        device: torch device.
    Raises:
        BadCalibration: fewer than 16 people.
    """
    imported("torch")
    import torch

    n = len(faces)
    if n < MIN_TO_TRAIN:
        raise BadCalibration(
            f"{n} people to train a head on; at least {MIN_TO_TRAIN} are needed (20 in 5 folds). Add people."
        )
    # A separate generator, because torch's global one belongs to the caller, and other threads draw from it.
    generator = torch.Generator().manual_seed(seed)
    factors = [np.sqrt(np.sqrt(np.square(x).mean(axis=0))) for x in (faces, voices)]
    inputs = [
        torch.from_numpy(_inputs(x, by).astype(np.float32)).to(device)
        for x, by in zip((faces, voices), factors, strict=True)
    ]
    order = torch.randperm(n, generator=generator)
    n_held_out = max(2, round(HELD_OUT * n))
    torch.get_num_threads()  # makes torch set this thread's number of threads, before it is limited
    # One thread: sums do not depend on how many there are, and matrices this small gain nothing from more.
    with one_thread():
        sides = [_initial((x.shape[1], *HEADS[kind]), generator, device) for x in inputs]
        _fit(sides, inputs, order[n_held_out:], order[:n_held_out], generator)
    face, voice = (
        Branch(by, tuple((w.detach().cpu().numpy(), b.detach().cpu().numpy()) for w, b in layers))
        for by, layers in zip(factors, sides, strict=True)
    )
    return Head(face, voice)


def compare_heads(
    face: Projections,
    voice: Projections,
    folds: Folds,
    *,
    seed: int,
    device: str = "cpu",
    eer_rule: EerRule = eer_of_sorted,
) -> HeadsCompared:
    """Error rates of both heads, `likelihood` and `reference` for one pair; BadCalibration as `train_head`."""
    tallies: defaultdict[tuple[str, str], Tally] = defaultdict(lambda: Tally(eer_rule))
    samples = zip(itertools.chain(*face), itertools.chain(*voice), strict=True)
    for (test, pair), (f, v) in zip(fitted(sides_of(face), sides_of(voice), folds), samples, strict=True):
        heads = {kind: train_head(f.side.train, v.side.train, kind=kind, seed=seed, device=device) for kind in HEADS}
        tested = {"identity": (f.side.test, v.side.test, test, test), "sample": (f.rows, v.rows, f.owners, v.owners)}
        for level, (faces, voices, *owners) in tested.items():
            for name in COMPARED if len(faces) and len(voices) else ():
                scores = heads[name].scores(faces, voices) if name in heads else pair.scores(name, rows=(faces, voices))
                tallies[level, name].add(scores.astype(np.float32 if level == "sample" else np.float64), *owners)
    levels = {
        level: {name: tallies[level, name].result(are_ratios=name == "likelihood") for name in COMPARED}
        for level in LEVELS
    }
    train, test = folds[0][0]
    return HeadsCompared(levels, len(train), len(test), len(folds))


def _initial(sizes: Sequence[int], generator: torch.Generator, device: str) -> Layers:
    """Weights of layers of these sizes, uniform within one over the root of their inputs, and biases of 0."""
    import torch

    layers = []
    for n_in, n_out in itertools.pairwise(sizes):
        weights = (2 * torch.rand(n_in, n_out, generator=generator) - 1) / n_in**0.5
        layers.append((weights.to(device).requires_grad_(), torch.zeros(n_out, device=device, requires_grad=True)))
    return layers


def _fit(
    sides: Sequence[Layers],
    inputs: Sequence[torch.Tensor],
    train: torch.Tensor,
    held_out: torch.Tensor,
    generator: torch.Generator,
) -> None:
    """Train both sides in place, up to the weights with the lowest loss on the rows held out."""
    import torch
    from torch.nn.functional import cross_entropy, normalize

    def loss(rows: torch.Tensor) -> torch.Tensor:
        rows = rows.to(inputs[0].device)
        face, voice = (normalize(_outputs(layers, x[rows])) for layers, x in zip(sides, inputs, strict=True))
        logits, own = face @ voice.T / TEMPERATURE, torch.arange(len(rows), device=rows.device)
        return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2

    weights, biases = (list(kind) for kind in zip(*itertools.chain(*sides), strict=True))
    groups = [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    lowest, since, best = np.inf, 0, [tensor.detach().clone() for tensor in (*weights, *biases)]
    for _ in range(MAX_EPOCHS):
        shuffled = train[torch.randperm(len(train), generator=generator)]
        for batch in shuffled.tensor_split(-(-len(train) // BATCH)):
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
        with torch.no_grad():
            current = float(loss(held_out))
        since += 1
        if current < lowest:
            lowest, since, best = current, 0, [tensor.detach().clone() for tensor in (*weights, *biases)]
        if since == PATIENCE:
            break
    with torch.no_grad():
        for tensor, value in zip((*weights, *biases), best, strict=True):
            tensor.copy_(value)


def _inputs(rows: Vectors, factors: Vectors) -> Vectors:
    """What layers see: axes times their factors, rows then scaled to a mean square of 1."""
    x = rows * factors
    return np.asarray(unit_rows(x) * np.sqrt(x.shape[1]))


def _outputs(layers: Sequence[tuple[Any, Any]], x: Any) -> Any:
    """Rows, tensors or arrays, through the layers of a branch, with rectified units between them."""
    for i, (weights, biases) in enumerate(layers):
        x = (x if i == 0 else x.clip(min=0)) @ weights + biases
    return x
