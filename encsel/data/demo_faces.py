"""Cartoon faces of the demo set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Image

IMAGE_SIZE = 96
SUPERSAMPLING = 4
WHITE = np.array([248.0, 248.0, 246.0])
IRISES = np.array([(84, 54, 34), (52, 34, 24), (72, 108, 150), (88, 120, 84), (120, 96, 52)], dtype=float)


@dataclass(frozen=True)
class FaceTraits:
    """Traits common to all images of a person: standard scores; shades are in [0, 1], `parting` in [-1, 1]."""

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


def draw_face(traits: FaceTraits, rng: np.random.Generator) -> Image:
    """Draw an image of a person; pose, expression, clothes, background and light are random."""
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
    """Draws on a canvas in face coordinates: origin between the ears, x to the right, y down, chin at y = 1."""

    def __init__(self, draw: Any, side: int, *, scale: float, angle: float, shift: NDArray[np.float64]) -> None:
        cosine, sine = np.cos(angle), np.sin(angle)
        self._draw = draw
        self._matrix = scale * side * np.array([[cosine, -sine], [sine, cosine]])
        self._offset = shift * side

    def polygon(self, x: Any, y: Any, colour: NDArray[np.float64]) -> None:
        # Sums, not a matrix product: the bytes must not depend on the BLAS library.
        m = self._matrix
        columns = m[0, 0] * x + m[0, 1] * y + self._offset[0], m[1, 0] * x + m[1, 1] * y + self._offset[1]
        self._draw.polygon(np.column_stack(columns).ravel().tolist(), fill=_rgb(colour))

    def ellipse(self, x: float, y: float, width: float, height: float, colour: NDArray[np.float64]) -> None:
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        self.polygon(x + width * np.cos(turn), y + height * np.sin(turn), colour)

    def stroke(self, x: Any, y: Any, thickness: Any, colour: NDArray[np.float64]) -> None:
        """Draw a line through the points, of one thickness or one for each point."""
        along_x, along_y = np.gradient(x), np.gradient(y)
        half = thickness / 2 / np.maximum(np.hypot(along_x, along_y), 1e-9)
        side_x, side_y = -along_y * half, along_x * half
        self.polygon(
            np.concatenate([x + side_x, (x - side_x)[::-1]]), np.concatenate([y + side_y, (y - side_y)[::-1]]), colour
        )


@dataclass(frozen=True)
class _Look:
    """Appearance in one image: traits as fractions, colours and lengths; pose and expression."""

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
    masculine, old = _logistic(1.6 * traits.sex), _logistic(1.3 * traits.age)
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
        # A weak link on purpose: some women have short hair, some men long hair.
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
    """Draw the hair behind the neck, shirt, neck and ears."""
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
    """Draw skin, cheeks and beard; the jaw is squarer for men and heavy people."""
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
    # The nose protrudes, so it moves further with the pose.
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
    """Draw the hair over the forehead, receding in old men, and beside the face."""
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


def _logistic(score: float) -> float:
    """Map a standard score to (0, 1)."""
    return float(1 / (1 + np.exp(-score)))


def _mix(first: Any, second: Any, fraction: float) -> NDArray[np.float64]:
    """The colour at `fraction` of the way from the first to the second."""
    return (1 - fraction) * np.asarray(first, dtype=float) + fraction * np.asarray(second, dtype=float)


def _rgb(colour: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(np.clip(np.rint(colour), 0, 255).astype(int).tolist())
