"""Gromov-Wasserstein distance of two encoders' people, with a lower bound that needs no optimiser.

Distances between people are cosine distances divided by the largest. The corrected form uses the same people on both
sides, keeps the better of two starts, and takes the root as the paper defines. The reference form is the released
code's: two different draws of people, one start, the squared value.
"""

import os
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric, Vectors
from encsel.errors import BadCalibration
from encsel.extras import imported
from encsel.rows import unit_rows

N_PEOPLE = 500
REFERENCE_SEED = 42
MIN_FOR_TRANSPORT = 4
STARTS = ("independent", "same people")
"""Initial couplings. If two encoders agree, the first ends far above what the second finds; otherwise either can be
better."""
Distances = NDArray[np.float64]


@dataclass(frozen=True)
class GromovWasserstein:
    """A distance in [lower_bound, value]: the optimiser finds a coupling, but not always the best.

    Both are squared if `squared`; `start` is the initial coupling, "independent" or "same people".
    """

    value: float
    lower_bound: float
    squared: bool
    start: str
    converged: bool
    n_iterations: int
    n_people: int


def people_distances(x: Vectors) -> Distances:
    """(n, n) cosine distances between rows, divided by the largest; BadCalibration for fewer than 4 or equal rows."""
    if len(x) < MIN_FOR_TRANSPORT:
        raise BadCalibration(f"{len(x)} people; Gromov-Wasserstein needs at least {MIN_FOR_TRANSPORT}. Add people.")
    # Scaled first: squares of tiny or huge values would leave the range of floats.
    rows = unit_rows(np.asarray(x, dtype=np.float64) / max(np.abs(x).max(), np.finfo(np.float64).tiny))
    distances = np.clip(1 - rows @ rows.T, 0, None)
    np.fill_diagonal(distances, 0)
    if not rows.any() or distances.max() < 1e-12:
        raise BadCalibration(
            "All people have the same embedding; Gromov-Wasserstein needs variation. Check the encoder."
        )
    return np.asarray(distances / distances.max())


def sorted_distance_bound(face: Distances, voice: Distances) -> float:
    """Squared lower bound: transport between the distributions of distances (Memoli 2011, second lower bound)."""
    return float(np.mean(np.square(np.sort(face, axis=None) - np.sort(voice, axis=None))))


def gromov_wasserstein(face: Distances, voice: Distances) -> GromovWasserstein:
    """The corrected form, from (n, n) `people_distances` of the same people in the same order."""
    n = len(face)
    solved = {name: _solve(face, voice, np.eye(n) / n if name == "same people" else None) for name in STARTS}
    name = min(solved, key=lambda key: solved[key][0])
    value, converged, steps = solved[name]
    bound = np.sqrt(min(sorted_distance_bound(face, voice), value))
    return GromovWasserstein(float(np.sqrt(value)), float(bound), False, name, converged, steps, n)


def gromov_wasserstein_reference(face: Distances, voice: Distances) -> GromovWasserstein:
    """The released code's form; the two sides may be of different people."""
    value, converged, steps = _solve(face, voice, None)
    bound = min(sorted_distance_bound(face, voice), value)
    return GromovWasserstein(value, bound, True, "independent", converged, steps, len(face))


def drawn_people(n: int, seed: int) -> NDArray[np.intp]:
    """Row numbers of at most N_PEOPLE of n people, ascending."""
    if n <= N_PEOPLE:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, N_PEOPLE, replace=False))


def reference_draws(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The released code's draws of faces and of voices, which are different people."""
    random = np.random.RandomState(REFERENCE_SEED)
    count = min(n, N_PEOPLE)
    return random.choice(n, count, replace=False), random.choice(n, count, replace=False)


def _solve(face: Distances, voice: Distances, start: Distances | None) -> tuple[float, bool, int]:
    """Squared value at a local minimum, whether the optimiser converged, and its number of steps."""
    for backend in ("PYTORCH", "JAX", "CUPY", "TENSORFLOW"):
        # POT imports every array library it finds, which costs time and memory.
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{backend}", "1")
    ot = imported("ot")
    weights = np.full(len(face), 1 / len(face)), np.full(len(voice), 1 / len(voice))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value, log = ot.gromov.gromov_wasserstein2(face, voice, *weights, "square_loss", G0=start, log=True)
    return max(float(value), 0.0), not caught, len(log["loss"]) - 1


METRICS = (
    Metric("gromov_wasserstein", 2, "pair", "larger: distances between people less alike", (0.0, 1.0),
           "Memoli 2011, by conditional gradient (POT) from two starts; same people, root value",
           lambda x, y: gromov_wasserstein(people_distances(x), people_distances(y)).value,
           invariant_to=("rotation", "scale"), label="Gromov-Wasserstein", column="gw_distance"),
    Metric("gromov_wasserstein_bound", 1, "pair", "larger: distances between people less alike", (0.0, 1.0),
           "Memoli 2011, second lower bound, root",
           lambda x, y: float(np.sqrt(sorted_distance_bound(people_distances(x), people_distances(y)))),
           invariant_to=("rotation", "scale"), label="Gromov-Wasserstein, lower bound", column="gw_bound"),
)  # fmt: skip
