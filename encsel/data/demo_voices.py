"""Synthetic voices of the demo set."""

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import SAMPLING_RATE, Clip
from encsel.data.demo_faces import logistic

Values = NDArray[np.float64]

CLIP_SECONDS = (1.0, 1.4)
FRAME = SAMPLING_RATE // 80  # samples per frame; the vocal tract is constant within a frame

# F1, F2, F3 in Hz, about midway between men and women in Peterson and Barney 1952, doi:10.1121/1.1906875:
# heed, hid, head, had, hod, hawed, hood, who'd, hud, heard.
VOWELS = np.array([
    (290, 2540, 3160), (410, 2240, 2810), (570, 2090, 2740), (760, 1890, 2630), (790, 1150, 2620),
    (580, 880, 2560), (455, 1090, 2460), (335, 910, 2460), (700, 1295, 2590), (495, 1495, 1830),
], dtype=float)  # fmt: skip
HIGHER_FORMANTS = (3700.0, 4600.0)
BANDWIDTHS = np.array([70.0, 90.0, 130.0, 200.0, 280.0])


@dataclass(frozen=True)
class VoiceTraits:
    """Traits common to all clips of a person: standard scores; `vowel_weights` are probabilities."""

    sex: float
    build: float
    age: float
    pitch: float
    rate: float
    nasality: float
    tilt: float
    liveliness: float
    _: KW_ONLY
    vowel_weights: Values


def synthesise_voice(traits: VoiceTraits, rng: np.random.Generator) -> Clip:
    """Synthesise a clip of a person; vowels, melody, loudness, room and noise are random."""
    from scipy.signal import lfilter

    masculine, old = logistic(1.6 * traits.sex), logistic(1.3 * traits.age)
    n_frames = int(rng.uniform(*CLIP_SECONDS) * SAMPLING_RATE / FRAME)
    seconds = n_frames * FRAME / SAMPLING_RATE
    n_syllables = max(3, round(seconds * (4.2 + 0.7 * traits.rate - 0.6 * old)))
    edges = np.linspace(0, seconds, n_syllables + 1)
    edges[1:-1] += rng.uniform(-0.2, 0.2, n_syllables - 1) * seconds / n_syllables
    tract = _vocal_tract(traits, rng, edges, n_frames, masculine)

    time = np.arange(n_frames * FRAME) / SAMPLING_RATE
    middles = (edges[:-1] + edges[1:]) / 2
    melody = (1.2 + 0.5 * traits.liveliness) * rng.standard_normal(n_syllables) - rng.uniform(1, 4) * middles / seconds
    octaves = 0.09 * traits.pitch - 0.12 * (old - 0.5) - 0.03 * traits.build + rng.normal(0, 0.04)
    f0 = 205 * (118 / 205) ** masculine * 2 ** (octaves + np.interp(time, middles, melody) / 12)
    excitation = _glottal_source(f0, rng, masculine=masculine, old=old)
    brightness = np.clip(0.6 - 0.16 * traits.tilt, 0, 0.95)
    voiced = _filter_by_frame(lfilter([1, -brightness], [1], excitation), tract)

    # The mouth closes in part between syllables: a dip in loudness represents the consonant.
    closing = rng.uniform(0.1, 0.9, n_syllables + 1)
    closing[[0, -1]] = 1
    corners = np.sort(np.concatenate([edges, (edges[:-1] + middles) / 2, (middles + edges[1:]) / 2]))
    loudness = np.ones(corners.size)
    loudness[::3] = 1 - closing
    speech = voiced * np.interp(time, corners, loudness)

    # Room and microphone belong to the recording, not to the person.
    speech = lfilter([1, rng.uniform(-0.25, 0.25)], [1], speech)
    speech /= np.sqrt(np.mean(speech**2))
    hiss = lfilter([1], [1, -rng.uniform(0, 0.9)], rng.standard_normal(speech.size))
    hiss *= 10 ** (-rng.uniform(22, 38) / 20) / np.sqrt(np.mean(hiss**2))
    clip = (speech + hiss) * 10 ** (rng.uniform(-27, -20) / 20)
    return (clip * min(1.0, 0.9 / np.abs(clip).max())).astype(np.float32)


def _vocal_tract(
    traits: VoiceTraits, rng: np.random.Generator, edges: Values, n_frames: int, masculine: float
) -> Values:
    """Second-order sections of the vocal tract, (frames, sections, 6): five formants and a nasal pair."""
    scale = 1.09 - 0.17 * masculine - 0.05 * traits.build  # a longer tract scales all formants down
    vowels = rng.choice(len(VOWELS), edges.size - 1, p=traits.vowel_weights)
    targets = VOWELS[vowels] * rng.normal(1, 0.03, (vowels.size, 3))
    # Formants are constant in the middle half of a syllable and glide from one syllable to the next.
    span = np.diff(edges)
    held = np.column_stack([edges[:-1] + span / 4, edges[1:] - span / 4]).ravel()
    time = (np.arange(n_frames) + 0.5) * FRAME / SAMPLING_RATE
    formants = [np.interp(time, held, np.repeat(targets[:, k], 2)) for k in range(3)]
    formants += [np.full(n_frames, f) for f in HIGHER_FORMANTS]
    poles = _second_order(scale * np.stack(formants, axis=1), BANDWIDTHS)
    nasal_pole = _second_order(np.array(scale * 270), np.array(90.0))
    nasal_zero = _second_order(np.array(scale * (270 + 260 * logistic(1.5 * traits.nasality))), np.array(120.0))
    sections = np.zeros((n_frames, 6, 6))
    sections[:, :5, 0] = poles.sum(axis=-1)
    sections[:, :5, 3:] = poles
    sections[:, 5, :3] = nasal_zero * nasal_pole.sum() / nasal_zero.sum()
    sections[:, 5, 3:] = nasal_pole
    return sections


def _second_order(frequency: Values, bandwidth: Values) -> Values:
    """Polynomials in 1/z with a conjugate pair of roots at each frequency (Hz); coefficients on the last axis."""
    radius = np.exp(-np.pi * bandwidth / SAMPLING_RATE)
    middle = -2 * radius * np.cos(2 * np.pi * frequency / SAMPLING_RATE)
    return np.stack(np.broadcast_arrays(np.ones_like(middle), middle, radius**2), axis=-1)


def _filter_by_frame(signal: Values, tract: Values) -> Values:
    """Filter the signal with coefficients that change by frame; bandwidths and zeros must be constant."""
    from scipy.signal import sosfilt

    # The state of sosfilt, past outputs times coefficients, is rescaled for new coefficients: else a glide clicks.
    rescaling = np.diff(tract[:, :, 4], axis=0, prepend=tract[:1, :, 4]) / tract[:, :, 5]
    state = np.zeros((tract.shape[1], 2))
    shaped = np.empty((len(tract), FRAME))
    for frame, (sections, part) in enumerate(zip(tract, signal.reshape(-1, FRAME), strict=True)):
        state[:, 0] += rescaling[frame] * state[:, 1]
        shaped[frame], state = sosfilt(sections, part, zi=state)
    return shaped.ravel()


def _glottal_source(f0: Values, rng: np.random.Generator, *, masculine: float, old: float) -> Values:
    """Derivative of the glottal airflow: Rosenberg pulses, less regular with age, and breath noise.

    Source: Rosenberg 1971, doi:10.1121/1.1912389, pulse C.
    """
    jitter, shimmer = 0.004 + 0.02 * old, 0.02 + 0.12 * old
    n_cycles = int(f0.sum() / SAMPLING_RATE) + 2
    cycle = (np.cumsum(f0) / SAMPLING_RATE).astype(int)
    phase = np.cumsum(f0 * (1 + jitter * rng.standard_normal(n_cycles)[cycle])) / SAMPLING_RATE + rng.random()
    strength = 1 + shimmer * rng.standard_normal(n_cycles)[cycle]
    open_fraction = 0.72 - 0.14 * masculine
    peak = 0.66 * open_fraction
    within = phase % 1
    rising = 0.5 - 0.5 * np.cos(np.pi * within / peak)
    falling = np.cos(np.pi / 2 * (within - peak) / (open_fraction - peak))
    flow = np.where(within < peak, rising, np.where(within < open_fraction, falling, 0)) * strength
    breath = (0.006 + 0.025 * old + 0.01 * (1 - masculine)) * rng.standard_normal(f0.size) * (0.3 + flow)
    return np.diff(flow, prepend=0) + breath
