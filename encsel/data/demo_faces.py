"""Cartoon faces of the demo set."""

from dataclasses import KW_ONLY, dataclass
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
    _: KW_ONLY
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

    side = IMAGE_SIZE * SUPERSAMPLING
    picture = PillowImage.new("RGB", (side, side), _rgb(rng.uniform(80, 220) + rng.uniform(-35, 35, 3)))
    portrait = _Portrait(picture, traits, rng)
    for draw in (portrait.body, portrait.head, portrait.eyes, portrait.nose, portrait.mouth, portrait.wrinkles):
        draw()
    portrait.hairline()
    if traits.glasses:
        portrait.glasses()
    pixels = np.asarray(picture.reduce(SUPERSAMPLING), dtype=float)
    direction = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1, 1, IMAGE_SIZE)
    slope = np.cos(direction) * across[None, :] + np.sin(direction) * across[:, None]
    light = rng.normal(1, 0.07) * (1 + rng.uniform(0, 0.18) * slope)
    grain = rng.normal(0, 1.5, (IMAGE_SIZE, IMAGE_SIZE, 1))
    tint = 1 + rng.normal(0, 0.02, 3)
    return np.clip(np.rint(pixels * light[..., None] * tint + grain), 0, 255).astype(np.uint8)


class _Portrait:
    """Pose, expression and colours of one image, drawn from the neck up.

    Face coordinates: the origin between the ears, x to the right, y down, the chin at y = 1.
    """

    def __init__(self, picture: Any, traits: FaceTraits, rng: np.random.Generator) -> None:
        from PIL import ImageDraw

        self._polygon = ImageDraw.Draw(picture).polygon
        scale, angle = 0.29 * rng.normal(1, 0.04), rng.normal(0, 0.06)
        cosine, sine = np.cos(angle), np.sin(angle)
        self.matrix = scale * picture.width * np.array([[cosine, -sine], [sine, cosine]])
        self.offset = (np.array([0.5, 0.49]) + rng.normal(0, 0.015, 2)) * picture.width

        self.traits = traits
        self.masculine, self.old = logistic(1.6 * traits.sex), logistic(1.3 * traits.age)
        self.skin = _mix((250, 218, 194), (104, 66, 46), traits.skin_shade)
        hair = _mix((224, 186, 120), (34, 26, 24), traits.hair_shade)
        hair *= _mix((1, 1, 1), (1.12, 0.82, 0.7), traits.hair_redness)
        self.hair = _mix(hair, (205, 205, 205), float(np.clip(1.9 * self.old - 0.75, 0, 0.95)))
        self.hair_volume = 0.12 + 0.025 * traits.hair_volume - 0.03 * self.masculine
        # A weak link on purpose: some women have short hair, some men long hair.
        self.hair_length = 1.4 - 1.4 * self.masculine + 0.3 * traits.hair_volume
        self.width = 0.74 + 0.05 * self.masculine + 0.08 * traits.build
        self.eye_spacing = 0.33 + 0.018 * traits.eye_spacing + 0.012 * traits.build
        self.shirt = rng.uniform(40, 220, 3)
        self.yaw, self.pitch = rng.normal(0, 0.05), rng.normal(0, 0.03)
        self.smile, self.openness = rng.normal(0.3, 0.5), max(0.0, rng.normal(0, 0.6))
        self.lids, self.gaze, self.brow_lift = rng.uniform(0.75, 1.05), rng.normal(0, 0.03), rng.normal(0, 0.02)

    def polygon(self, x: Any, y: Any, colour: NDArray[np.float64]) -> None:
        # Sums, not a matrix product: the bytes must not depend on the BLAS library.
        columns = [m[0] * x + m[1] * y + offset for m, offset in zip(self.matrix, self.offset, strict=True)]
        self._polygon(np.column_stack(columns).ravel().tolist(), fill=_rgb(colour))

    def ellipse(self, x: float, y: float, width: float, height: float, colour: NDArray[np.float64]) -> None:
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        self.polygon(x + width * np.cos(turn), y + height * np.sin(turn), colour)

    def stroke(self, x: Any, y: Any, thickness: Any, colour: NDArray[np.float64]) -> None:
        """Draw a line through the points, of one thickness or one for each point."""
        along_x, along_y = np.gradient(x), np.gradient(y)
        half = thickness / 2 / np.maximum(np.hypot(along_x, along_y), 1e-9)
        side_x, side_y = -along_y * half, along_x * half
        self.polygon(np.r_[x + side_x, (x - side_x)[::-1]], np.r_[y + side_y, (y - side_y)[::-1]], colour)

    def body(self) -> None:
        """Draw the hair behind the neck, shirt, neck and ears."""
        if self.hair_length > 0.1:
            turn = np.linspace(np.pi, 2 * np.pi, 30)
            reach, end = self.width + self.hair_volume, self.hair_length
            x = np.r_[reach * np.cos(turn), reach + 0.06, 0.55 * reach, -0.55 * reach, -reach - 0.06]
            y = np.r_[(1 + self.hair_volume) * np.sin(turn), end - 0.12, end, end, end - 0.12]
            self.polygon(x, y, 0.8 * self.hair)
        shoulders = 1.2 + 0.16 * self.masculine + 0.1 * self.traits.build
        across = np.linspace(-1, 1, 30)
        y = np.r_[1.3 + 0.45 * np.abs(across) ** 3, 3, 3]
        self.polygon(np.r_[shoulders * across, shoulders, -shoulders], y, self.shirt)
        neck = 0.33 + 0.09 * self.masculine + 0.03 * self.traits.build
        x, y = neck * np.array([-1, 1, 1.1, 0, -1.1]), np.array([0.6, 0.6, 1.32, 1.52, 1.32])
        self.polygon(x, y, 0.84 * self.skin)
        for side in (-1, 1):
            self.ellipse(side * self.width - 0.5 * self.yaw, 0.06, 0.11, 0.19, 0.84 * self.skin)

    def head(self) -> None:
        """Draw skin, cheeks and beard; the jaw is squarer for men and heavy people."""
        turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
        x, y = np.sin(turn), -np.cos(turn)
        squareness = np.where(y > 0, 2.0 + 0.75 * self.masculine + 0.12 * self.traits.build, 2.1)
        taper = np.where(y > 0, 0.20 - 0.06 * self.masculine - 0.03 * self.traits.build, 0.04)
        x = self.width * np.sign(x) * np.abs(x) ** (2 / squareness) * (1 - taper * y**2)
        y = np.sign(y) * np.abs(y) ** (2 / squareness)
        self.polygon(x, y, self.skin)
        stubble = float(np.clip(0.9 * self.masculine - 0.4 + 0.12 * self.traits.hair_volume, 0, 0.5))
        if stubble > 0.05:
            x, y = x[y > 0.32], y[y > 0.32]
            beard = _mix(self.skin, 0.7 * self.hair, stubble)
            self.polygon(np.r_[x, 0.6 * x[::-1] + self.yaw], np.r_[y, 0.3 + 0.22 * y[::-1]], beard)
        blush = _mix(self.skin, (226, 120, 110), 0.22 - 0.12 * self.masculine)
        for side in (-1, 1):
            self.ellipse(side * 0.43 + 0.7 * self.yaw, 0.3 + self.pitch, 0.15, 0.1, blush)

    def eyes(self) -> None:
        size = (0.15 - 0.018 * self.masculine) * (1 + 0.07 * self.traits.eye_size)
        height = 0.62 * size * self.lids * (1 - 0.25 * self.old)
        along = np.linspace(-1.1, 1.1, 14)
        arch = (0.1 - 0.06 * self.masculine) * np.sin(np.linspace(0.3, np.pi - 0.2, 12))
        brow = self.pitch - 0.27 + 0.04 * self.masculine - arch - self.brow_lift
        thickness = (0.045 + 0.06 * self.masculine) * np.linspace(1, 0.45, 12)
        for side in (-1, 1):
            x, y = side * self.eye_spacing + self.yaw, self.pitch - 0.03
            self.ellipse(x, y, size, height, WHITE)
            self.ellipse(x + self.gaze, y, 0.52 * size, min(0.56 * size, height), IRISES[self.traits.iris])
            self.ellipse(x + self.gaze, y, 0.26 * size, min(0.28 * size, height), 0.1 * WHITE)
            self.ellipse(x + self.gaze + 0.02, y - 0.025, 0.025, 0.025, WHITE)
            lid = y - height * np.sqrt(np.maximum(1 - (along / 1.1) ** 2, 0))
            lashes = _mix((24, 18, 18), 0.5 * self.skin, self.masculine)
            self.stroke(x + size * along, lid, 0.065 - 0.035 * self.masculine, lashes)
            if self.old > 0.45:
                self.stroke(x + size * along, y + 0.13 - 0.05 * along**2, 0.03, 0.8 * self.skin)
            hair = _mix(self.hair, (40, 30, 28), 0.45 * (1 - self.old))
            self.stroke(side * np.linspace(0.14, 0.52, 12) + self.yaw, brow, thickness, hair)

    def nose(self) -> None:
        # The nose protrudes, so it moves further with the pose.
        width = 0.13 + 0.02 * self.masculine + 0.022 * self.traits.nose
        tip = 0.27 + 0.03 * self.traits.nose + 1.3 * self.pitch
        along, turn = np.linspace(0, 1, 12), np.linspace(0, np.pi, 16)
        self.stroke(1.5 * self.yaw - 0.06 * (1 - along), (tip + 0.06) * along - 0.08, 0.03, 0.84 * self.skin)
        self.stroke(1.6 * self.yaw + width * np.cos(turn), tip + 0.07 * np.sin(turn), 0.04, 0.68 * self.skin)

    def mouth(self) -> None:
        colour = _mix(_mix(self.skin, (196, 70, 80), 0.55 - 0.35 * self.masculine), 0.6 * self.skin, 0.15)
        fullness = 0.085 - 0.03 * self.masculine + 0.012 * self.traits.lips
        across = np.linspace(-1, 1, 24)
        x = self.yaw + (0.27 + 0.03 * self.masculine + 0.04 * self.smile) * across
        there_and_back = np.r_[x, x[::-1]]
        bow = 1 - across**2
        middle = 0.56 + self.pitch - 0.09 * self.smile * (across**2 - 0.5)
        gap = 0.09 * self.openness * bow
        upper = middle - fullness * bow * (1 - 0.35 * np.exp(-((across / 0.18) ** 2)))
        lower = middle + gap + 1.25 * fullness * bow
        self.polygon(there_and_back, np.r_[upper, lower[::-1]], colour)
        if self.openness > 0.15:
            self.polygon(there_and_back, np.r_[middle, (middle + gap)[::-1]], np.array([96.0, 32.0, 36.0]))
            self.polygon(there_and_back, np.r_[middle, (middle + 0.4 * gap)[::-1]], WHITE)
        else:
            self.stroke(x, middle, 0.025, 0.5 * self.skin)

    def wrinkles(self) -> None:
        if self.old < 0.3:
            return
        colour = self.skin * (1 - 0.5 * min(1.1 * self.old - 0.15, 0.75))
        across, along = np.linspace(-1, 1, 14), np.linspace(0, 1, 12)
        for height in (-0.46, -0.56):
            y = height - 0.03 * (1 - across**2) + self.pitch
            self.stroke(0.36 * across + 0.8 * self.yaw, y, 0.03, colour)
        for side in (-1, 1):
            fold, bag = side * (0.2 + 0.17 * along**0.7) + self.yaw, side * (0.26 + 0.2 * along) + self.yaw
            self.stroke(fold, 0.3 + 0.3 * along + self.pitch, 0.03, colour)
            self.stroke(bag, 0.13 - 0.05 * (2 * along - 1) ** 2 + self.pitch, 0.025, colour)

    def hairline(self) -> None:
        """Draw the hair over the forehead, receding in old men, and beside the face."""
        reach = self.width + self.hair_volume
        crown, across = np.linspace(np.pi, 2 * np.pi, 40), np.linspace(1, -1, 40)
        swept = 0.16 * np.exp(-((across - 0.5 * self.traits.parting) ** 2) / 0.05)
        line = 0.5 * np.abs(across) ** 5 - 0.58 - swept - 0.3 * self.masculine * self.old
        x = np.r_[reach * np.cos(crown), 0.98 * self.width * across]
        self.polygon(x, np.r_[(1 + self.hair_volume) * np.sin(crown), line], self.hair)
        end = min(self.hair_length, 0.85)
        if end > 0.1:
            strand = np.array([reach, reach + 0.02, 0.9 * self.width, 0.86 * self.width])
            for side in (-1, 1):
                self.polygon(side * strand, np.array([-0.1, end, end - 0.1, -0.2]), 0.9 * self.hair)

    def glasses(self) -> None:
        x, y, frame = 1.1 * self.yaw, self.pitch - 0.02, np.array([36.0, 34.0, 40.0])
        turn = np.linspace(0, 2 * np.pi, 40)
        for side in (-1, 1):
            rim = x + side * (self.eye_spacing + 0.23)
            self.stroke(x + side * self.eye_spacing + 0.23 * np.cos(turn), y + 0.2 * np.sin(turn), 0.045, frame)
            self.stroke(np.array([rim, side * self.width]), np.array([y - 0.03, y - 0.06]), 0.045, frame)
        self.stroke(x + (self.eye_spacing - 0.23) * np.array([-1, 1]), np.array([y, y]), 0.045, frame)


def logistic(score: float) -> float:
    """Map a standard score to (0, 1)."""
    return float(1 / (1 + np.exp(-score)))


def _mix(first: Any, second: Any, fraction: float) -> NDArray[np.float64]:
    """The colour at `fraction` of the way from the first to the second."""
    return (1 - fraction) * np.asarray(first, dtype=float) + fraction * np.asarray(second, dtype=float)


def _rgb(colour: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(np.clip(np.rint(colour), 0, 255).astype(int).tolist())
