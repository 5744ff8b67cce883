"""Populations of made-up people seen by made-up encoders, with the true cross-modal EER of every pair.

What is assumed: a person has a soft two-class trait (as sex is heard and seen), a few graded traits that a face and a
voice share more or less, and many private ones of each modality. An encoder mixes them linearly, with a nonlinear part
from none to strong, into 128 to 1024 dimensions, adds within-person noise of recording occasions and of single samples
that leaks onto the directions of the traits, and normalises every sample. Nothing here is fitted to real people; a
regression made from it holds for real encoders as far as their geometry resembles one of the KINDS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import MODALITIES, Modality, Vectors
from encsel.matching.eer import eer
from encsel.matching.scorers import RIDGE, SCORERS, directions, project, scores_on

KINDS: Mapping[str, str] = {
    "traits": "Gaussian traits and noise, equal or mixed encoders, from useless to excellent",
    "strong": "as traits, with encoders whose EERs lie close together",
    "heavy-tailed": "private traits and noise from Student's t with 3 degrees of freedom, some samples far noisier",
    "group-only": "faces and voices share the two-class trait and nothing else",
    "channel": "face and voice of one occasion share its recording channel, and people keep part of it",
    "clustered": "tight, nearly orthogonal people, as from encoders trained with an identity loss",
}
REFERENCE_TRAIN, REFERENCE_TEST = 999, 250
REFERENCE_SAMPLES = 20
"""Samples a person behind the true EER: enough that the centroid is nearly the person's own."""
TRUE_DRAWS, TRUE_SPLITS = 2, 5
USELESS = 0.2
"""Share of encoders that see hardly anything of what face and voice share."""
N_NOISE = 100
N_HIDDEN = 150
N_CHANNEL = 6


@dataclass(frozen=True)
class SimulatedEncoder:
    """How one encoder sees traits: gains, mixing matrices, noise. Made by `Population`."""

    modality: Modality
    dim: int
    gains: NDArray[np.float64]
    """(1 + shared + private,) of two-class trait, shared traits, private traits."""
    channel_gain: float
    noise_gain: float
    noise_spectrum: NDArray[np.float64]
    isotropic: float
    nonlinear: float
    mixing: NDArray[np.float32]
    noise_mixing: NDArray[np.float32]
    channel_mixing: NDArray[np.float32]
    leak: NDArray[np.float32]
    hidden_in: NDArray[np.float32]
    hidden_out: NDArray[np.float32]
    offset: NDArray[np.float32]


@dataclass(frozen=True)
class People:
    """Traits of some people: (n, ...) by modality, and what their recording occasions share."""

    traits: Mapping[Modality, NDArray[np.float32]]
    """(n, 1 + shared + private) each."""
    channel: NDArray[np.float32]
    """(n, occasions, N_CHANNEL)."""

    def __len__(self) -> int:
        return len(self.channel)


@dataclass(frozen=True)
class Truth:
    """EER at the reference size of each scorer, each (faces, voices), mean over splits and draws of people."""

    eer: Mapping[str, NDArray[np.float64]]
    se: Mapping[str, NDArray[np.float64]]
    """Standard error of that mean, from the spread over splits."""


class Population:
    """One world: its traits, and the encoders that look at it.

    Args:
        kind: one of KINDS.
        seed: of everything about the world; people and samples take generators of their own.
        n_faces, n_voices: encoders of each modality.
    """

    def __init__(self, kind: str, seed: int, *, n_faces: int = 4, n_voices: int = 4) -> None:
        if kind not in KINDS:
            raise ValueError(f"no kind {kind!r}")
        self.kind, self.seed = kind, seed
        rng = np.random.default_rng([seed, list(KINDS).index(kind)])
        self.n_shared = 0 if kind == "group-only" else int(rng.integers(3, 9))
        self.agreement = rng.uniform(0.4, 0.95, self.n_shared)
        self.softness = rng.uniform(0.2, 0.5)
        self.n_private = int(rng.choice([200, 300, 400] if kind == "clustered" else [60, 120, 200]))
        self.samples_per_occasion = float(rng.choice([1, 1, 2, 4]))
        self.occasion_share = 0.0 if self.samples_per_occasion == 1 else rng.uniform(0.3, 0.8)
        self.channel_kept = rng.uniform(0.2, 0.7)
        alike = rng.random() < 0.5
        level = rng.normal(size=2)
        nonlinear = float(rng.choice([0.0, 0.5, 1.0, 2.0]))

        def encoder(modality: Modality) -> SimulatedEncoder:
            own = level + 0.15 * rng.normal(size=2) if alike else rng.normal(size=2)
            return self._encoder(rng, modality, own, nonlinear)

        self.encoders = {
            modality: tuple(encoder(modality) for _ in range(count))
            for modality, count in zip(MODALITIES, (n_faces, n_voices), strict=True)
        }

    def _encoder(
        self, rng: np.random.Generator, modality: Modality, level: NDArray[np.float64], nonlinear: float
    ) -> SimulatedEncoder:
        kind = self.kind
        dim = int(rng.choice([128, 192, 256, 512, 768, 1024]))
        # Log-normal gains: from useless to excellent for all kinds but "strong".
        middle, spread = {
            "strong": ((-0.5, -1.0), 0.5),
            "group-only": ((0.0, 0.0), 0.8),
            "clustered": ((-0.7, -1.0), 0.6),
        }.get(kind, ((-0.7, -1.2), 0.8))
        group, trait = np.exp(np.asarray(middle) + spread * level)
        if kind != "strong" and rng.random() < USELESS:
            group, trait = 0.2 * group, 0.2 * trait
        private = _spectrum(self.n_private, rng.uniform(0, 0.25) if kind == "clustered" else rng.uniform(0.3, 1))
        if rng.random() < 0.5:
            private = rng.permutation(private)
        noise = _spectrum(N_NOISE, rng.uniform(0.3, 1))
        shared = trait * np.sqrt(rng.dirichlet(np.ones(self.n_shared))) if self.n_shared else np.zeros(0)
        gains = np.concatenate([[group], shared, private])

        def normal(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
            return (rng.normal(size=shape) * scale).astype(np.float32)

        n = len(gains)
        return SimulatedEncoder(
            modality=modality,
            dim=dim,
            gains=gains,
            channel_gain=math.exp(rng.uniform(math.log(0.05), math.log(0.5))) if kind == "channel" else 0.0,
            noise_gain=rng.uniform(0.1, 0.6) if kind == "clustered" else rng.uniform(0.4, 2.5),
            noise_spectrum=noise,
            isotropic=rng.uniform(0.05, 0.4),
            nonlinear=nonlinear,
            mixing=normal(n, dim, scale=1 / math.sqrt(dim)),
            noise_mixing=normal(N_NOISE, dim, scale=1 / math.sqrt(dim)),
            channel_mixing=normal(N_CHANNEL, dim, scale=1 / math.sqrt(dim)),
            leak=normal(N_NOISE, n, scale=0.3 / math.sqrt(n)),
            hidden_in=normal(n, N_HIDDEN),
            hidden_out=normal(N_HIDDEN, dim, scale=0.8 / math.sqrt(dim * N_HIDDEN)),
            offset=normal(dim, scale=rng.uniform(0.5, 2.5) / math.sqrt(dim)),
        )

    def people(self, n: int, n_samples: int, rng: np.random.Generator) -> People:
        """`n` new people with enough recording occasions for `n_samples` samples each."""
        group = np.where(rng.random(n) < 0.45, 1.0, -1.0)
        shared = rng.normal(size=(n, self.n_shared))
        traits = {}
        for modality in MODALITIES:
            seen = shared * np.sqrt(self.agreement) + rng.normal(size=shared.shape) * np.sqrt(1 - self.agreement)
            # Some faces and some voices are of neither class clearly.
            soft = group + self.softness * rng.normal(size=n)
            traits[modality] = np.column_stack([soft, seen, self._noise(rng, n, self.n_private)]).astype(np.float32)
        n_occasions = max(1, round(n_samples / self.samples_per_occasion))
        kept = math.sqrt(self.channel_kept) * rng.normal(size=(n, 1, N_CHANNEL))
        fresh = math.sqrt(1 - self.channel_kept) * rng.normal(size=(n, n_occasions, N_CHANNEL))
        return People(traits, (kept + fresh).astype(np.float32))

    def embed(self, encoder: SimulatedEncoder, people: People, n_samples: int, rng: np.random.Generator) -> Vectors:
        """(n, n_samples, dim) float32 unit vectors; samples go through the occasions in turn."""
        n, n_occasions = people.channel.shape[:2]
        e = encoder
        seen = people.traits[e.modality] * e.gains.astype(np.float32)
        still = seen @ e.mixing + e.offset
        spectrum = (e.noise_gain * e.noise_spectrum).astype(np.float32)
        occasions = self._noise(rng, n * n_occasions, N_NOISE).reshape(n, n_occasions, N_NOISE)
        out = np.empty((n, n_samples, e.dim), np.float32)
        share = self.occasion_share
        for j in range(n_samples):
            at = j % n_occasions
            noise = math.sqrt(1 - share) * self._noise(rng, n, N_NOISE) + math.sqrt(share) * occasions[:, at]
            noise = (noise * spectrum).astype(np.float32)
            if self.kind == "heavy-tailed":
                noise *= np.exp(0.5 * rng.standard_normal((n, 1), np.float32))
            leaked = noise @ e.leak
            x = still + noise @ e.noise_mixing + leaked @ e.mixing
            if e.channel_gain:
                x += e.channel_gain * people.channel[:, at] @ e.channel_mixing
            x += (e.isotropic / math.sqrt(e.dim)) * rng.standard_normal(x.shape, np.float32)
            if e.nonlinear:
                x += e.nonlinear * np.tanh(2 * (seen + leaked) @ e.hidden_in) @ e.hidden_out
            out[:, j] = x / np.linalg.norm(x, axis=1, keepdims=True)
        return out

    def centroids(
        self, n: int, n_samples: int, rng: np.random.Generator
    ) -> dict[Modality, tuple[NDArray[np.float64], ...]]:
        """Unit centroids (n, dim) of the same new people by every encoder, by modality."""
        people = self.people(n, n_samples, rng)
        return {
            modality: tuple(unit_mean(self.embed(e, people, n_samples, rng)) for e in encoders)
            for modality, encoders in self.encoders.items()
        }

    def truth(self, *, n_draws: int = TRUE_DRAWS, n_splits: int = TRUE_SPLITS) -> Truth:
        """EERs at the reference size; see `truth`."""
        rng = np.random.default_rng([self.seed, list(KINDS).index(self.kind), 1])
        return truth(self.centroids, rng, n_draws=n_draws, n_splits=n_splits)

    def _noise(self, rng: np.random.Generator, n: int, dims: int) -> NDArray[np.float32]:
        """(n, dims) of unit variance: Gaussian, or Student's t in the heavy-tailed kind."""
        if self.kind != "heavy-tailed":
            return rng.standard_normal((n, dims), np.float32)
        # The variance of t with 3 degrees of freedom is 3.
        return (rng.standard_t(3, size=(n, dims)) / math.sqrt(3)).astype(np.float32)


Centroids = Callable[[int, int, np.random.Generator], Mapping[Modality, tuple[NDArray[np.float64], ...]]]
"""People, samples of each and a generator to unit centroids of those people by every encoder, by modality."""


def truth(
    centroids: Centroids, rng: np.random.Generator, *, n_draws: int = TRUE_DRAWS, n_splits: int = TRUE_SPLITS
) -> Truth:
    """EERs at 999 training and 250 test people with 20 samples each, averaged over draws of people and splits.

    Args:
        centroids: draws new people.
        n_draws, n_splits: draws of 1249 people, and splits of each.
    """
    n = REFERENCE_TRAIN + REFERENCE_TEST
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in SCORERS}
    for _ in range(n_draws):
        drawn = centroids(n, REFERENCE_SAMPLES, rng)
        for _ in range(n_splits):
            order = rng.permutation(n)
            split = order[:REFERENCE_TRAIN], order[REFERENCE_TRAIN:]
            faces, voices = ([project(x, *split) for x in drawn[m]] for m in MODALITIES)
            values = {name: np.empty((len(faces), len(voices))) for name in SCORERS}
            for i, f in enumerate(faces):
                for j, v in enumerate(voices):
                    plain, ridge = directions(f, v), directions(f, v, ridge=RIDGE)
                    for name in SCORERS:
                        matrix = scores_on(name, ridge if name == "weighted" else plain, f, v)
                        values[name][i, j] = eer(np.diag(matrix), matrix[~np.eye(len(matrix), dtype=bool)])
            for name in SCORERS:
                found[name].append(values[name])
    count = n_draws * n_splits
    return Truth(
        {name: np.mean(values, axis=0) for name, values in found.items()},
        {name: np.std(values, axis=0, ddof=min(1, count - 1)) / math.sqrt(count) for name, values in found.items()},
    )


def unit_mean(samples: Vectors) -> NDArray[np.float64]:
    """(n, m, dim) to the mean of each person's rows, L2-normalised, (n, dim) float64."""
    mean = samples.mean(axis=1, dtype=np.float64)
    norms = np.linalg.norm(mean, axis=1, keepdims=True)
    return mean / np.where(norms > 0, norms, 1)


def _spectrum(n: int, decay: float) -> NDArray[np.float64]:
    """(n,) amplitudes falling as a power, of norm 1."""
    amplitudes = np.arange(1, n + 1) ** -decay
    return np.asarray(amplitudes / np.linalg.norm(amplitudes))
