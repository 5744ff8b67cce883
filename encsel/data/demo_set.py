"""A small procedural calibration set: cartoon faces and synthetic voices of people who do not exist.

A person has three traits that show in both modalities (sex, build, age), as noisy copies, and several that show in one
only. So a face says something about the voice, and far from everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import SAMPLING_RATE, Clip, Image
from encsel.errors import UsageError

# Correlation of one modality's copy with the person's trait; face and voice copies correlate with its square.
SEX_AGREEMENT = 0.95
BUILD_AGREEMENT = 0.9
AGE_AGREEMENT = 0.9
SEX_SPREAD = 0.45
"""Standard deviation of the sex trait within either class; the class means make up the rest of a variance of 1."""

IMAGE_SIZE = 96
SUPERSAMPLING = 4
CLIP_SECONDS = (1.0, 1.4)
FRAME = SAMPLING_RATE // 80
"""Samples for which the vocal tract stands still."""

# F1, F2, F3 in Hz, about midway between men and women in Peterson and Barney 1952, doi:10.1121/1.1906875:
# heed, hid, head, had, hod, hawed, hood, who'd, hud, heard.
VOWELS = np.array(
    [
        (290, 2540, 3160), (410, 2240, 2810), (570, 2090, 2740), (760, 1890, 2630), (790, 1150, 2620),
        (580, 880, 2560), (455, 1090, 2460), (335, 910, 2460), (700, 1295, 2590), (495, 1495, 1830),
    ],
    dtype=float,
)  # fmt: skip
HIGHER_FORMANTS = (3700.0, 4600.0)
BANDWIDTHS = np.array([70.0, 90.0, 130.0, 200.0, 280.0])

WHITE = np.array([248.0, 248.0, 246.0])
IRISES = np.array([(84, 54, 34), (52, 34, 24), (72, 108, 150), (88, 120, 84), (120, 96, 52)], dtype=float)


@dataclass(frozen=True)
class FaceTraits:
    """What all images of a person share; standard scores, but shades and `parting` lie in [0, 1] and [-1, 1]."""

    sex: float
    build: float
    age: float
    skin_shade: float
    hair_shade: float
    hair_redness: float
    hair_volume: float
    parting: float
    nose: float
    eye_spacing: float
    eye_size: float
    lips: float
    iris: int
    glasses: bool


@dataclass(frozen=True)
class VoiceTraits:
    """What all clips of a person share; standard scores, but `vowel_weights` are probabilities."""

    sex: float
    build: float
    age: float
    pitch: float
    rate: float
    nasality: float
    tilt: float
    liveliness: float
    vowel_weights: NDArray[np.float64]


@dataclass(frozen=True)
class Person:
    face: FaceTraits
    voice: VoiceTraits


def write_demo_set(
    root: Path,
    *,
    n_identities: int = 64,
    samples_per_identity: int = 6,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `root/faces/personNN/NN.png` and `root/voices/personNN/NN.wav`.

    The same seed and library versions give the same bytes.

    Args:
        root: new folder, created for its owner only, or an existing one without `faces` and `voices`.
        n_identities: people; a larger set begins with the people of a smaller one.
        samples_per_identity: images, and as many clips, per person.
        on_progress: called after each person with people written and people in all.
    Raises:
        UsageError: a count below 1, a negative seed, or a root that cannot be used.
    """
    import soundfile
    from PIL import Image as PillowImage

    if n_identities < 1 or samples_per_identity < 1 or seed < 0:
        raise UsageError(
            f"{n_identities} identities, {samples_per_identity} samples each, seed {seed}; "
            "a demo set needs at least 1 identity, 1 sample each and a seed of 0 or more."
        )
    faces, voices = root / "faces", root / "voices"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        taken = [folder.name for folder in (faces, voices) if folder.exists()]
        if taken:
            raise UsageError(f"{root} already holds {' and '.join(taken)}. Name a new folder, or remove what is there.")
        faces.mkdir()
        voices.mkdir()
    except OSError as error:
        raise UsageError(f"{root} cannot be used: {error.strerror}. Name a folder that can be written.") from error

    for number in range(1, n_identities + 1):
        name = f"person{number:02d}"
        (faces / name).mkdir()
        (voices / name).mkdir()
        person = imagine_person(np.random.default_rng([seed, number]))
        for sample in range(1, samples_per_identity + 1):
            # One generator per file: neither another count nor a change on the face side moves any other file.
            image = draw_face(person.face, np.random.default_rng([seed, number, 1, sample]))
            PillowImage.fromarray(image).save(faces / name / f"{sample:02d}.png")
            clip = synthesise_voice(person.voice, np.random.default_rng([seed, number, 2, sample]))
            soundfile.write(voices / name / f"{sample:02d}.wav", clip, SAMPLING_RATE, subtype="PCM_16")
        if on_progress is not None:
            on_progress(number, n_identities)


def imagine_person(rng: np.random.Generator) -> Person:
    """A person drawn at random: shared traits first, then each modality's noisy copies and its own traits."""
    sex = rng.choice([-1.0, 1.0]) * np.sqrt(1 - SEX_SPREAD**2) + SEX_SPREAD * rng.standard_normal()
    build, age = rng.standard_normal(2)

    def copy(trait: float, agreement: float) -> float:
        return float(agreement * trait + np.sqrt(1 - agreement**2) * rng.standard_normal())

    skin_shade = rng.beta(1.2, 1.6)
    face = FaceTraits(
        sex=copy(sex, SEX_AGREEMENT),
        build=copy(build, BUILD_AGREEMENT),
        age=copy(age, AGE_AGREEMENT),
        skin_shade=skin_shade,
        hair_shade=float(np.clip(rng.beta(1.6, 1.2) + 0.8 * max(skin_shade - 0.4, 0), 0, 1)),
        hair_redness=rng.beta(1, 2.5),
        hair_volume=rng.standard_normal(),
        parting=rng.uniform(-1, 1),
        nose=rng.standard_normal(),
        eye_spacing=rng.standard_normal(),
        eye_size=rng.standard_normal(),
        lips=rng.standard_normal(),
        iris=int(rng.integers(len(IRISES))),
        glasses=bool(rng.random() < 0.2),
    )
    voice = VoiceTraits(
        sex=copy(sex, SEX_AGREEMENT),
        build=copy(build, BUILD_AGREEMENT),
        age=copy(age, AGE_AGREEMENT),
        pitch=rng.standard_normal(),
        rate=rng.standard_normal(),
        nasality=rng.standard_normal(),
        tilt=rng.standard_normal(),
        liveliness=rng.standard_normal(),
        vowel_weights=rng.dirichlet(np.full(len(VOWELS), 2.0)),
    )
    return Person(face, voice)


def draw_face(traits: FaceTraits, rng: np.random.Generator) -> Image:
    """One image of a person: pose, expression, clothes, background and light are drawn from `rng`."""
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    side = IMAGE_SIZE * SUPERSAMPLING
    picture = PillowImage.new("RGB", (side, side), _rgb(rng.uniform(80, 220) + rng.uniform(-35, 35, 3)))
    pen = _Pen(
        ImageDraw.Draw(picture),
        side,
        scale=0.29 * rng.normal(1, 0.04),
        angle=rng.normal(0, 0.06),
        shift=np.array([0.5, 0.49]) + rng.normal(0, 0.015, 2),
    )
    look = _look(traits, rng)
    _draw_body(pen, traits, look)
    _draw_head(pen, traits, look)
    _draw_eyes(pen, traits, look)
    _draw_nose(pen, traits, look)
    _draw_mouth(pen, traits, look)
    _draw_wrinkles(pen, look)
    _draw_hair(pen, traits, look)
    if traits.glasses:
        _draw_glasses(pen, look)
    pixels = np.asarray(picture.reduce(SUPERSAMPLING), dtype=float)

    direction = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1, 1, IMAGE_SIZE)
    slope = np.cos(direction) * across[None, :] + np.sin(direction) * across[:, None]
    light = rng.normal(1, 0.07) * (1 + rng.uniform(0, 0.18) * slope)
    grain = rng.normal(0, 1.5, (IMAGE_SIZE, IMAGE_SIZE, 1))
    tint = 1 + rng.normal(0, 0.02, 3)
    return np.clip(np.rint(pixels * light[..., None] * tint + grain), 0, 255).astype(np.uint8)


class _Pen:
    """Draws in face coordinates: origin between ears, x right, y down, chin at 1; places them on the canvas."""

    def __init__(self, draw: Any, side: int, *, scale: float, angle: float, shift: NDArray[np.float64]) -> None:
        cosine, sine = np.cos(angle), np.sin(angle)
        self._draw = draw
        self._matrix = scale * side * np.array([[cosine, -sine], [sine, cosine]])
        self._offset = shift * side

    def polygon(self, x: Any, y: Any, colour: NDArray[np.float64]) -> None:
        # Sums instead of a matrix product: the bytes must not depend on the BLAS in use.
        m = self._matrix
        columns = m[0, 0] * x + m[0, 1] * y + self._offset[0], m[1, 0] * x + m[1, 1] * y + self._offset[1]
        self._draw.polygon(np.column_stack(columns).ravel().tolist(), fill=_rgb(colour))

    def ellipse(self, x: float, y: float, width: float, height: float, colour: NDArray[np.float64]) -> None:
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        self.polygon(x + width * np.cos(turn), y + height * np.sin(turn), colour)

    def stroke(self, x: Any, y: Any, thickness: Any, colour: NDArray[np.float64]) -> None:
        """A line through the points whose thickness may change along it."""
        along_x, along_y = np.gradient(x), np.gradient(y)
        half = thickness / 2 / np.maximum(np.hypot(along_x, along_y), 1e-9)
        side_x, side_y = -along_y * half, along_x * half
        self.polygon(
            np.concatenate([x + side_x, (x - side_x)[::-1]]), np.concatenate([y + side_y, (y - side_y)[::-1]]), colour
        )


@dataclass(frozen=True)
class _Look:
    """One image's reading of the traits (shares in [0, 1], colours, lengths) and its pose and expression."""

    masculine: float
    old: float
    skin: NDArray[np.float64]
    hair: NDArray[np.float64]
    shirt: NDArray[np.float64]
    width: float
    hair_volume: float
    hair_length: float
    eye_spacing: float
    yaw: float
    pitch: float
    smile: float
    openness: float
    lids: float
    gaze: float
    brow_lift: float


def _look(traits: FaceTraits, rng: np.random.Generator) -> _Look:
    masculine, old = _share(1.6 * traits.sex), _share(1.3 * traits.age)
    hair = _mix((224, 186, 120), (34, 26, 24), traits.hair_shade)
    hair *= _mix((1, 1, 1), (1.12, 0.82, 0.7), traits.hair_redness)
    return _Look(
        masculine=masculine,
        old=old,
        skin=_mix((250, 218, 194), (104, 66, 46), traits.skin_shade),
        hair=_mix(hair, (205, 205, 205), float(np.clip(1.9 * old - 0.75, 0, 0.95))),
        shirt=rng.uniform(40, 220, 3),
        width=0.74 + 0.05 * masculine + 0.08 * traits.build,
        hair_volume=0.12 + 0.025 * traits.hair_volume - 0.03 * masculine,
        # Soft on purpose: some women have short hair, some men long hair.
        hair_length=1.4 - 1.4 * masculine + 0.3 * traits.hair_volume,
        eye_spacing=0.33 + 0.018 * traits.eye_spacing + 0.012 * traits.build,
        yaw=rng.normal(0, 0.05),
        pitch=rng.normal(0, 0.03),
        smile=rng.normal(0.3, 0.5),
        openness=max(0.0, rng.normal(0, 0.6)),
        lids=rng.uniform(0.75, 1.05),
        gaze=rng.normal(0, 0.03),
        brow_lift=rng.normal(0, 0.02),
    )


def _draw_body(pen: _Pen, traits: FaceTraits, look: _Look) -> None:
    """Hair that falls behind the neck, shirt, neck and ears."""
    if look.hair_length > 0.1:
        turn = np.linspace(np.pi, 2 * np.pi, 30)
        reach, end = look.width + look.hair_volume, look.hair_length
        pen.polygon(
            np.concatenate([reach * np.cos(turn), [reach + 0.06, 0.55 * reach, -0.55 * reach, -reach - 0.06]]),
            np.concatenate([(1 + look.hair_volume) * np.sin(turn), [end - 0.12, end, end, end - 0.12]]),
            0.8 * look.hair,
        )
    shoulders = 1.2 + 0.16 * look.masculine + 0.1 * traits.build
    across = np.linspace(-1, 1, 30)
    pen.polygon(
        np.concatenate([shoulders * across, [shoulders, -shoulders]]),
        np.concatenate([1.3 + 0.45 * np.abs(across) ** 3, [3, 3]]),
        look.shirt,
    )
    neck = 0.33 + 0.09 * look.masculine + 0.03 * traits.build
    pen.polygon(neck * np.array([-1, 1, 1.1, 0, -1.1]), np.array([0.6, 0.6, 1.32, 1.52, 1.32]), 0.84 * look.skin)
    for side in (-1, 1):
        pen.ellipse(side * look.width - 0.5 * look.yaw, 0.06, 0.11, 0.19, 0.84 * look.skin)


def _draw_head(pen: _Pen, traits: FaceTraits, look: _Look) -> None:
    """Skin, cheeks and beard; the jaw is squarer for men and for heavy people."""
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    x, y = np.sin(turn), -np.cos(turn)
    squareness = np.where(y > 0, 2.0 + 0.75 * look.masculine + 0.12 * traits.build, 2.1)
    taper = np.where(y > 0, 0.20 - 0.06 * look.masculine - 0.03 * traits.build, 0.04)
    x = look.width * np.sign(x) * np.abs(x) ** (2 / squareness) * (1 - taper * y**2)
    y = np.sign(y) * np.abs(y) ** (2 / squareness)
    pen.polygon(x, y, look.skin)

    stubble = float(np.clip(0.9 * look.masculine - 0.4 + 0.12 * traits.hair_volume, 0, 0.5))
    if stubble > 0.05:
        jaw_x, jaw_y = x[y > 0.32], y[y > 0.32]
        pen.polygon(
            np.concatenate([jaw_x, 0.6 * jaw_x[::-1] + look.yaw]),
            np.concatenate([jaw_y, 0.3 + 0.22 * jaw_y[::-1]]),
            _mix(look.skin, 0.7 * look.hair, stubble),
        )
    for side in (-1, 1):
        blush = _mix(look.skin, (226, 120, 110), 0.22 - 0.12 * look.masculine)
        pen.ellipse(side * 0.43 + 0.7 * look.yaw, 0.3 + look.pitch, 0.15, 0.1, blush)


def _draw_eyes(pen: _Pen, traits: FaceTraits, look: _Look) -> None:
    size = (0.15 - 0.018 * look.masculine) * (1 + 0.07 * traits.eye_size)
    height = 0.62 * size * look.lids * (1 - 0.25 * look.old)
    along = np.linspace(-1.1, 1.1, 14)
    for side in (-1, 1):
        x, y = side * look.eye_spacing + look.yaw, look.pitch - 0.03
        pen.ellipse(x, y, size, height, WHITE)
        pen.ellipse(x + look.gaze, y, 0.52 * size, min(0.56 * size, height), IRISES[traits.iris])
        pen.ellipse(x + look.gaze, y, 0.26 * size, min(0.28 * size, height), 0.1 * WHITE)
        pen.ellipse(x + look.gaze + 0.02, y - 0.025, 0.025, 0.025, WHITE)
        lid = y - height * np.sqrt(np.maximum(1 - (along / 1.1) ** 2, 0))
        lashes = _mix((24, 18, 18), 0.5 * look.skin, look.masculine)
        pen.stroke(x + size * along, lid, 0.065 - 0.035 * look.masculine, lashes)
        if look.old > 0.45:
            pen.stroke(x + size * along, y + 0.13 - 0.05 * along**2, 0.03, 0.8 * look.skin)

        arch = (0.1 - 0.06 * look.masculine) * np.sin(np.linspace(0.3, np.pi - 0.2, 12))
        pen.stroke(
            side * np.linspace(0.14, 0.52, 12) + look.yaw,
            look.pitch - 0.27 + 0.04 * look.masculine - arch - look.brow_lift,
            (0.045 + 0.06 * look.masculine) * np.linspace(1, 0.45, 12),
            _mix(look.hair, (40, 30, 28), 0.45 * (1 - look.old)),
        )


def _draw_nose(pen: _Pen, traits: FaceTraits, look: _Look) -> None:
    # What stands out from the face moves further with the pose.
    width = 0.13 + 0.02 * look.masculine + 0.022 * traits.nose
    tip = 0.27 + 0.03 * traits.nose + 1.3 * look.pitch
    along = np.linspace(0, 1, 12)
    pen.stroke(1.5 * look.yaw - 0.06 * (1 - along), (tip + 0.06) * along - 0.08, 0.03, 0.84 * look.skin)
    turn = np.linspace(0, np.pi, 16)
    pen.stroke(1.6 * look.yaw + width * np.cos(turn), tip + 0.07 * np.sin(turn), 0.04, 0.68 * look.skin)


def _draw_mouth(pen: _Pen, traits: FaceTraits, look: _Look) -> None:
    colour = _mix(_mix(look.skin, (196, 70, 80), 0.55 - 0.35 * look.masculine), 0.6 * look.skin, 0.15)
    fullness = 0.085 - 0.03 * look.masculine + 0.012 * traits.lips
    across = np.linspace(-1, 1, 24)
    x = look.yaw + (0.27 + 0.03 * look.masculine + 0.04 * look.smile) * across
    there_and_back = np.concatenate([x, x[::-1]])
    bow = 1 - across**2
    middle = 0.56 + look.pitch - 0.09 * look.smile * (across**2 - 0.5)
    gap = 0.09 * look.openness * bow
    upper = middle - fullness * bow * (1 - 0.35 * np.exp(-((across / 0.18) ** 2)))
    lower = middle + gap + 1.25 * fullness * bow
    pen.polygon(there_and_back, np.concatenate([upper, lower[::-1]]), colour)
    if look.openness > 0.15:
        pen.polygon(there_and_back, np.concatenate([middle, (middle + gap)[::-1]]), np.array([96.0, 32.0, 36.0]))
        pen.polygon(there_and_back, np.concatenate([middle, (middle + 0.4 * gap)[::-1]]), WHITE)
    else:
        pen.stroke(x, middle, 0.025, 0.5 * look.skin)


def _draw_wrinkles(pen: _Pen, look: _Look) -> None:
    if look.old < 0.3:
        return
    colour = look.skin * (1 - 0.5 * min(1.1 * look.old - 0.15, 0.75))
    across, along = np.linspace(-1, 1, 14), np.linspace(0, 1, 12)
    for height in (-0.46, -0.56):
        pen.stroke(0.36 * across + 0.8 * look.yaw, height - 0.03 * (1 - across**2) + look.pitch, 0.03, colour)
    for side in (-1, 1):
        fold = side * (0.2 + 0.17 * along**0.7) + look.yaw
        pen.stroke(fold, 0.3 + 0.3 * along + look.pitch, 0.03, colour)
        bag = side * (0.26 + 0.2 * along) + look.yaw
        pen.stroke(bag, 0.13 - 0.05 * (2 * along - 1) ** 2 + look.pitch, 0.025, colour)


def _draw_hair(pen: _Pen, traits: FaceTraits, look: _Look) -> None:
    """Hair over the forehead, receding in old men, and down the temples as far as it is long."""
    reach = look.width + look.hair_volume
    crown, across = np.linspace(np.pi, 2 * np.pi, 40), np.linspace(1, -1, 40)
    swept = 0.16 * np.exp(-((across - 0.5 * traits.parting) ** 2) / 0.05)
    line = 0.5 * np.abs(across) ** 5 - 0.58 - swept - 0.3 * look.masculine * look.old
    pen.polygon(
        np.concatenate([reach * np.cos(crown), 0.98 * look.width * across]),
        np.concatenate([(1 + look.hair_volume) * np.sin(crown), line]),
        look.hair,
    )
    end = min(look.hair_length, 0.85)
    if end > 0.1:
        strand = np.array([reach, reach + 0.02, 0.9 * look.width, 0.86 * look.width])
        for side in (-1, 1):
            pen.polygon(side * strand, np.array([-0.1, end, end - 0.1, -0.2]), 0.9 * look.hair)


def _draw_glasses(pen: _Pen, look: _Look) -> None:
    x, y, frame = 1.1 * look.yaw, look.pitch - 0.02, np.array([36.0, 34.0, 40.0])
    turn = np.linspace(0, 2 * np.pi, 40)
    for side in (-1, 1):
        rim = x + side * (look.eye_spacing + 0.23)
        pen.stroke(x + side * look.eye_spacing + 0.23 * np.cos(turn), y + 0.2 * np.sin(turn), 0.045, frame)
        pen.stroke(np.array([rim, side * look.width]), np.array([y - 0.03, y - 0.06]), 0.045, frame)
    pen.stroke(x + (look.eye_spacing - 0.23) * np.array([-1, 1]), np.array([y, y]), 0.045, frame)


def synthesise_voice(traits: VoiceTraits, rng: np.random.Generator) -> Clip:
    """One clip of a person: the vowels, their melody, loudness, room and noise are drawn from `rng`."""
    from scipy.signal import lfilter

    masculine, old = _share(1.6 * traits.sex), _share(1.3 * traits.age)
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

    # Between syllables the mouth closes, more or less: a dip in loudness stands in for the consonant.
    closing = rng.uniform(0.1, 0.9, n_syllables + 1)
    closing[[0, -1]] = 1
    corners = np.sort(np.concatenate([edges, (edges[:-1] + middles) / 2, (middles + edges[1:]) / 2]))
    loudness = np.ones(corners.size)
    loudness[::3] = 1 - closing
    speech = voiced * np.interp(time, corners, loudness)

    # Room and microphone belong to the recording, not to the person.
    colour = rng.uniform(-0.25, 0.25)
    speech = lfilter([1, colour], [1], speech)
    speech /= np.sqrt(np.mean(speech**2))
    hiss = lfilter([1], [1, -rng.uniform(0, 0.9)], rng.standard_normal(speech.size))
    hiss *= 10 ** (-rng.uniform(22, 38) / 20) / np.sqrt(np.mean(hiss**2))
    clip = (speech + hiss) * 10 ** (rng.uniform(-27, -20) / 20)
    return (clip * min(1.0, 0.9 / np.abs(clip).max())).astype(np.float32)


def _vocal_tract(
    traits: VoiceTraits, rng: np.random.Generator, edges: NDArray[np.float64], n_frames: int, masculine: float
) -> NDArray[np.float64]:
    """Second-order sections of the tract, (frames, sections, 6): five formants and a nasal pair, unit gain at 0 Hz."""
    # A longer tract lowers all formants alike.
    scale = 1.09 - 0.17 * masculine - 0.05 * traits.build
    vowels = rng.choice(len(VOWELS), edges.size - 1, p=traits.vowel_weights)
    targets = VOWELS[vowels] * rng.normal(1, 0.03, (vowels.size, 3))
    # Held for the middle half of a syllable, gliding from one to the next.
    span = np.diff(edges)
    held = np.column_stack([edges[:-1] + span / 4, edges[1:] - span / 4]).ravel()
    time = (np.arange(n_frames) + 0.5) * FRAME / SAMPLING_RATE
    formants = [np.interp(time, held, np.repeat(targets[:, k], 2)) for k in range(3)]
    formants += [np.full(n_frames, f) for f in HIGHER_FORMANTS]
    poles = _second_order(scale * np.stack(formants, axis=1), BANDWIDTHS)

    coupling = _share(1.5 * traits.nasality)
    nasal_pole = _second_order(np.array(scale * 270), np.array(90.0))
    nasal_zero = _second_order(np.array(scale * (270 + 260 * coupling)), np.array(120.0))

    sections = np.zeros((n_frames, 6, 6))
    sections[:, :5, 0] = poles.sum(axis=-1)
    sections[:, :5, 3:] = poles
    sections[:, 5, :3] = nasal_zero * nasal_pole.sum() / nasal_zero.sum()
    sections[:, 5, 3:] = nasal_pole
    return sections


def _second_order(frequency: NDArray[np.float64], bandwidth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Polynomials in 1/z with a conjugate pair of roots at each frequency (Hz), coefficients on the last axis."""
    radius = np.exp(-np.pi * bandwidth / SAMPLING_RATE)
    middle = -2 * radius * np.cos(2 * np.pi * frequency / SAMPLING_RATE)
    return np.stack(np.broadcast_arrays(np.ones_like(middle), middle, radius**2), axis=-1)


def _filter_by_frame(signal: NDArray[np.float64], tract: NDArray[np.float64]) -> NDArray[np.float64]:
    """The signal through a filter that glides from frame to frame; bandwidths and zeros must stay as they are."""
    from scipy.signal import sosfilt

    # sosfilt's state is made of past outputs times coefficients. Without restating it for the new coefficients, every
    # frame edge of a glide clicks.
    restated = np.diff(tract[:, :, 4], axis=0, prepend=tract[:1, :, 4]) / tract[:, :, 5]
    state = np.zeros((tract.shape[1], 2))
    shaped = np.empty((len(tract), FRAME))
    for frame, (sections, part) in enumerate(zip(tract, signal.reshape(-1, FRAME), strict=True)):
        state[:, 0] += restated[frame] * state[:, 1]
        shaped[frame], state = sosfilt(sections, part, zi=state)
    return shaped.ravel()


def _glottal_source(
    f0: NDArray[np.float64], rng: np.random.Generator, *, masculine: float, old: float
) -> NDArray[np.float64]:
    """Derivative of the airflow through the glottis: Rosenberg's pulses, uneven and breathy with age, and breath.

    Source: Rosenberg 1971, doi:10.1121/1.1912389, pulse C.
    """
    jitter, shimmer = 0.004 + 0.02 * old, 0.02 + 0.12 * old
    n_cycles = int(f0.sum() / SAMPLING_RATE) + 2
    cycle = (np.cumsum(f0) / SAMPLING_RATE).astype(int)
    phase = np.cumsum(f0 * (1 + jitter * rng.standard_normal(n_cycles)[cycle])) / SAMPLING_RATE + rng.random()
    strength = 1 + shimmer * rng.standard_normal(n_cycles)[cycle]

    open_share = 0.72 - 0.14 * masculine
    peak = 0.66 * open_share
    within = phase % 1
    rising = 0.5 - 0.5 * np.cos(np.pi * within / peak)
    falling = np.cos(np.pi / 2 * (within - peak) / (open_share - peak))
    flow = np.where(within < peak, rising, np.where(within < open_share, falling, 0)) * strength
    breath = (0.006 + 0.025 * old + 0.01 * (1 - masculine)) * rng.standard_normal(f0.size) * (0.3 + flow)
    return np.diff(flow, prepend=0) + breath


def _share(score: float) -> float:
    """A standard score squeezed into (0, 1)."""
    return float(1 / (1 + np.exp(-score)))


def _mix(first: Any, second: Any, share: float) -> NDArray[np.float64]:
    """The colour that lies `share` of the way from the first to the second."""
    return (1 - share) * np.asarray(first, dtype=float) + share * np.asarray(second, dtype=float)


def _rgb(colour: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(np.clip(np.rint(colour), 0, 255).astype(int).tolist())
