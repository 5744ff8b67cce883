"""Simulated populations of people and encoders, with the true cross-modal EER of every pair of encoders.

Model: a person has a soft two-class trait (as sex is heard and seen), a few graded traits that face and voice share to
some degree, and many private ones of each modality. An encoder mixes them linearly, plus a nonlinear part from none to
strong, into 128 to 1024 dimensions, adds within-person noise of recording occasions and of single samples that leaks
onto the directions of the traits, and normalises every sample. No parameter is fitted to real people; a regression
fitted on these populations holds for real encoders as far as their geometry resembles one of the KINDS.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import MODALITIES, Modality, Vectors
from encsel.matching import likelihood
from encsel.matching.axes import Side, project
from encsel.matching.crossval import MEASURED
from encsel.matching.eer import eer
from encsel.matching.scorers import REFERENCE_TRAIN, PairInFold, split_scores
from encsel.rows import unit_rows

KINDS: Mapping[str, str] = {
    "traits": "Gaussian traits and noise, similar or different encoders, from useless to excellent",
    "strong": "like traits, with encoders whose EERs lie close together",
    "heavy-tailed": "private traits and noise from Student's t with 3 degrees of freedom, some samples far noisier",
    "group-only": "faces and voices share the two-class trait only",
    "channel": "face and voice of one occasion share part of its recording channel, and people keep part of it",
    "clustered": "tight, nearly orthogonal people, as from encoders trained with an identity loss",
    "many-weak": "many traits, each of which face and voice share only a little",
    "demographic": "8 to 20 groups of people alike in what face and voice share",
    "curved": "people on a sphere of few dimensions, seen through a strongly nonlinear map",
    "low-rank": "few private traits of equal weight: embeddings that vary in 10 to 30 directions",
    "dominated": "one to three private directions hold most of the variance",
    "weak-directions": "what face and voice share is seen in directions of little variance only, but with little noise",
}
USELESS = 0.2  # fraction of encoders that see hardly anything of what face and voice share
UNLINKED_EVERY = 5
"""Of so many populations of each kind, the last has faces and voices that share nothing or little, in turn."""
WITHIN_GROUPS = 0.3  # of the kind "demographic": fraction of the variance of shared traits that is within groups
WEAKEST, WEAK = 0.05, 0.3
"""Range of the fraction that is left of a weak link."""
N_NOISE, N_HIDDEN, N_CHANNEL = 100, 150, 6
Values = NDArray[np.float64]


@dataclass(frozen=True)
class TruthSizes:
    """Sizes behind true EERs: numbers of training people, test people, samples per person, draws and splits of each.

    `probes`: samples of each test person on either side, all or 1; a matcher is trained on all samples.
    """

    n_train: tuple[int, ...] = (100, 300, REFERENCE_TRAIN, 3000)
    n_test: int = 400
    n_samples: int = 20  # enough for the centroid to be nearly the person's own
    probes: tuple[int, ...] = (20, 1)
    n_draws: int = 1
    n_splits: int = 3


@dataclass(frozen=True)
class People:
    """Traits (n, 1 + shared + private) and channels (n, occasions, N_CHANNEL) of recording occasions, by modality."""

    traits: Mapping[Modality, NDArray[np.float32]]
    channel: Mapping[Modality, NDArray[np.float32]]


class SimulatedEncoder:
    """How one encoder of a population sees traits: gains, mixing matrices, noise."""

    def __init__(
        self, of: Population, modality: Modality, level: Values, nonlinear: float, rng: np.random.Generator
    ) -> None:
        self.modality, self.nonlinear = modality, nonlinear
        self.dim = dim = int(rng.choice([128, 192, 256, 512, 768, 1024]))
        # Log-normal gains: from useless to excellent for all kinds except "strong".
        centre, spread = {
            "strong": ((-0.5, -1.0), 0.5),
            "group-only": ((0.0, 0.0), 0.8),
            "clustered": ((-0.7, -1.0), 0.6),
            "many-weak": ((-0.7, 0.0), 0.6),
        }.get(of.kind, ((-0.7, -1.2), 0.8))
        group, trait = np.exp(np.asarray(centre) + spread * level)
        if of.kind != "strong" and rng.random() < USELESS:
            group, trait = 0.2 * group, 0.2 * trait
        decay = {"clustered": (0, 0.25), "low-rank": (0, 0), "dominated": (1.2, 2.5)}.get(of.kind, (0.3, 1))
        private = _spectrum(of.n_private, rng.uniform(*decay))
        if rng.random() < 0.5:
            private = rng.permutation(private)
        if of.kind == "dominated":
            private *= rng.uniform(2, 5)
        self.noise_spectrum = _spectrum(N_NOISE, rng.uniform(0.3, 1))
        shared = trait * np.sqrt(rng.dirichlet(np.ones(of.n_shared))) if of.n_shared else np.zeros(0)
        # (1 + shared + private,): two-class trait, shared traits, private traits.
        self.gains = np.concatenate([[group], shared, private])

        def normal(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
            return (rng.normal(size=shape) * scale).astype(np.float32)

        n = len(self.gains)
        self.channel_gain = math.exp(rng.uniform(math.log(0.05), math.log(0.5))) if of.kind == "channel" else 0.0
        self.noise_gain = rng.uniform(0.1, 0.6) if of.kind == "clustered" else rng.uniform(0.4, 2.5)
        self.isotropic = rng.uniform(0.05, 0.4)
        if of.kind == "weak-directions":
            self.gains[: 1 + of.n_shared] *= rng.uniform(0.15, 0.4)
            self.noise_gain *= 0.3
            self.isotropic *= 0.3
        if of.kind == "curved":
            self.nonlinear = rng.uniform(2, 4)
        self.mixing = normal(n, dim, scale=1 / math.sqrt(dim))
        self.noise_mixing = normal(N_NOISE, dim, scale=1 / math.sqrt(dim))
        self.channel_mixing = normal(N_CHANNEL, dim, scale=1 / math.sqrt(dim))
        self.leak = normal(N_NOISE, n, scale=(0.1 if of.kind == "weak-directions" else 0.3) / math.sqrt(n))
        self.hidden_in = normal(n, N_HIDDEN)
        self.hidden_out = normal(N_HIDDEN, dim, scale=0.8 / math.sqrt(dim * N_HIDDEN))
        self.offset = normal(dim, scale=rng.uniform(0.5, 2.5) / math.sqrt(dim))


class Population:
    """Distribution of people's traits, and the encoders that observe them; people are drawn with generators given."""

    def __init__(self, kind: str, seed: int, *, n_faces: int = 4, n_voices: int = 4) -> None:
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}")
        self.kind, self.seed = kind, seed
        rng = np.random.default_rng([seed, list(KINDS).index(kind)])
        self.n_shared = 0 if kind == "group-only" else int(rng.integers(*((30, 81) if kind == "many-weak" else (3, 9))))
        self.agreement = rng.uniform(*((0.1, 0.4) if kind == "many-weak" else (0.4, 0.95)), self.n_shared)
        self.softness = rng.uniform(0.2, 0.5)
        private = {"clustered": (200, 300, 400), "low-rank": (6, 10, 20), "curved": (8, 12, 20)}
        self.n_private = int(rng.choice(private.get(kind, (60, 120, 200))))
        self.samples_per_occasion = float(rng.choice([1, 1, 2, 4]))
        self.occasion_fraction = 0.0 if self.samples_per_occasion == 1 else rng.uniform(0.3, 0.8)
        self.channel_persistence = rng.uniform(0.2, 0.7)
        similar = rng.random() < 0.5
        level = rng.normal(size=2)
        nonlinear = float(rng.choice([0.0, 0.5, 1.0, 2.0]))

        def encoder(modality: Modality) -> SimulatedEncoder:
            encoder_level = level + 0.15 * rng.normal(size=2) if similar else rng.normal(size=2)
            return SimulatedEncoder(self, modality, encoder_level, nonlinear, rng)

        numbers = zip(MODALITIES, (n_faces, n_voices), strict=True)
        # From a generator of its own: what was drawn before does not depend on this.
        own = np.random.default_rng([seed, list(KINDS).index(kind), 3])
        self.link = 1.0
        if seed % UNLINKED_EVERY == UNLINKED_EVERY - 1:
            weak = own.uniform(WEAKEST, WEAK)
            self.link = float(weak) if seed // UNLINKED_EVERY % 2 else 0.0
        # How much of an occasion's channel the voice has in common with the face.
        self.channel_agreement = own.uniform(0.1, 0.6) if kind == "channel" else 1.0
        self.groups = own.normal(size=(own.integers(8, 21), self.n_shared)) if kind == "demographic" else None
        self.encoders = {modality: tuple(encoder(modality) for _ in range(n)) for modality, n in numbers}

    def people(self, n: int, n_samples: int, rng: np.random.Generator) -> People:
        """`n` new people with enough recording occasions for `n_samples` samples each."""
        group = np.where(rng.random(n) < 0.45, 1.0, -1.0)
        shared = rng.normal(size=(n, self.n_shared))
        if self.groups is not None:
            of_group = self.groups[rng.integers(len(self.groups), size=n)]
            shared = math.sqrt(WITHIN_GROUPS) * shared + math.sqrt(1 - WITHIN_GROUPS) * of_group
        if self.kind == "curved":
            shared *= math.sqrt(self.n_shared) / np.linalg.norm(shared, axis=1, keepdims=True)
        agreement = self.link * self.agreement
        traits = {}
        for modality in MODALITIES:
            seen = shared * np.sqrt(agreement) + rng.normal(size=shared.shape) * np.sqrt(1 - agreement)
            # Some faces and some voices belong to neither class clearly.
            soft = group + self.softness * rng.normal(size=n)
            if self.link < 1 and modality == "voice":  # the class of somebody else
                soft = np.where(rng.random(n) < self.link, soft, rng.permutation(soft))
            traits[modality] = np.column_stack([soft, seen, self._noise(rng, n, self.n_private)]).astype(np.float32)
        n_occasions = max(1, round(n_samples / self.samples_per_occasion))
        face = voice = self._channel(n, n_occasions, rng)
        if self.channel_agreement < 1:
            other = self._channel(n, n_occasions, rng)
            voice = math.sqrt(self.channel_agreement) * voice + math.sqrt(1 - self.channel_agreement) * other
        if self.link < 1:
            voice = voice[rng.permutation(n)]
        return People(traits, {"face": face, "voice": voice})

    def embed(self, e: SimulatedEncoder, people: People, n_samples: int, rng: np.random.Generator) -> Vectors:
        """(n, n_samples, dim) float32 unit vectors; samples cycle through the occasions."""
        channel = people.channel[e.modality]
        n, n_occasions = channel.shape[:2]
        seen = people.traits[e.modality] * e.gains.astype(np.float32)
        noiseless = seen @ e.mixing + e.offset
        spectrum = (e.noise_gain * e.noise_spectrum).astype(np.float32)
        occasions = self._noise(rng, n * n_occasions, N_NOISE).reshape(n, n_occasions, N_NOISE)
        out = np.empty((n, n_samples, e.dim), np.float32)
        shared = self.occasion_fraction
        noise_mixing = e.noise_mixing + e.leak @ e.mixing
        for j in range(n_samples):
            at = j % n_occasions
            noise = math.sqrt(1 - shared) * self._noise(rng, n, N_NOISE) + math.sqrt(shared) * occasions[:, at]
            noise = (noise * spectrum).astype(np.float32)
            if self.kind == "heavy-tailed":
                noise *= np.exp(0.5 * rng.standard_normal((n, 1), np.float32))
            x = noiseless + noise @ noise_mixing
            if e.channel_gain:
                x += e.channel_gain * channel[:, at] @ e.channel_mixing
            x += (e.isotropic / math.sqrt(e.dim)) * rng.standard_normal(x.shape, np.float32)
            if e.nonlinear:
                x += e.nonlinear * np.tanh(2 * (seen + noise @ e.leak) @ e.hidden_in) @ e.hidden_out
            out[:, j] = x / np.linalg.norm(x, axis=1, keepdims=True)
        return out

    def draw(self, n: int, n_samples: int, rng: np.random.Generator) -> dict[Modality, tuple[Drawn, ...]]:
        """`n` new people as every encoder sees them, by modality."""
        people = self.people(n, n_samples, rng)
        return {
            modality: tuple(drawn(self.embed(e, people, n_samples, rng)) for e in encoders)
            for modality, encoders in self.encoders.items()
        }

    def _channel(self, n: int, n_occasions: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """(n, n_occasions, N_CHANNEL) recording channels, of which people keep a part."""
        lasting = math.sqrt(self.channel_persistence) * rng.normal(size=(n, 1, N_CHANNEL))
        fresh = math.sqrt(1 - self.channel_persistence) * rng.normal(size=(n, n_occasions, N_CHANNEL))
        return (lasting + fresh).astype(np.float32)

    def _noise(self, rng: np.random.Generator, n: int, dims: int) -> NDArray[np.float32]:
        """(n, dims) noise of unit variance: Gaussian, or Student's t for the heavy-tailed kind."""
        if self.kind != "heavy-tailed":
            return rng.standard_normal((n, dims), np.float32)
        return (rng.standard_t(3, size=(n, dims)) / math.sqrt(3)).astype(np.float32)  # t has variance 3


@dataclass(frozen=True)
class Drawn:
    """People as one encoder sees them: (n, dim) unit vectors, `centroids` of all samples and `single` ones."""

    centroids: Values
    single: NDArray[np.float32]


# Draws new people: number of people, samples of each and a generator to what encoders see, by modality and encoder.
Draw = Callable[[int, int, np.random.Generator], Mapping[Modality, tuple[Drawn, ...]]]


def truth(draw: Draw, rng: np.random.Generator, sizes: TruthSizes) -> Values:
    """EERs (scorers of MEASURED, probes, numbers of training people, faces, voices): means over draws and splits."""
    most = max(sizes.n_train)
    n = most + sizes.n_test
    eers = []
    for _ in range(sizes.n_draws):
        people = draw(n, sizes.n_samples, rng)
        for _ in range(sizes.n_splits):
            order = rng.permutation(n)
            test = order[most:]
            eers.append([_eers(people, order[:n_train], test, sizes) for n_train in sizes.n_train])
    return np.moveaxis(np.mean(eers, axis=0), 0, 2)


def _eers(
    people: Mapping[Modality, Sequence[Drawn]], train: NDArray[np.intp], test: NDArray[np.intp], sizes: TruthSizes
) -> Values:
    """(scorers, probes, faces, voices) of one split."""
    n = len(test)

    def side(one: Drawn) -> Side:
        rows = np.vstack([one.centroids, one.single[test]])
        return project(rows, train, np.r_[test, len(one.centroids) + np.arange(n)], n_axes=likelihood.N_AXES)

    faces, voices = ([side(one) for one in people[modality]] for modality in MODALITIES)
    eers = np.empty((len(MEASURED), len(sizes.probes), len(faces), len(voices)))
    for (i, face), (j, voice) in itertools.product(enumerate(faces), enumerate(voices)):
        pair = PairInFold(face, voice)
        for (s, scorer), (p, probe) in itertools.product(enumerate(MEASURED), enumerate(sizes.probes)):
            rows = slice(n, None) if probe == 1 else slice(n)
            scores = pair.scores(scorer, rows=(face.test[rows], voice.test[rows]))
            eers[s, p, i, j] = eer(*split_scores(scores))
    return eers


def drawn(samples: Vectors) -> Drawn:
    """People by their rows of (n, m, dim) unit vectors."""
    return Drawn(unit_mean(samples), np.asarray(samples[:, 0], dtype=np.float32))


def unit_mean(samples: Vectors) -> Values:
    """Mean of each person's rows of (n, m, dim), L2-normalised; (n, dim) float64."""
    return np.asarray(unit_rows(samples.mean(axis=1, dtype=np.float64)), dtype=np.float64)


def _spectrum(n: int, decay: float) -> Values:
    """(n,) amplitudes decaying as a power law, scaled to norm 1."""
    amplitudes = np.arange(1, n + 1) ** -decay
    return np.asarray(amplitudes / np.linalg.norm(amplitudes))
