"""How a picture is given to a model whose file does not say so: size, layout, colours and scale, by options."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from encsel.core import Image, Model, Runtime, Spec, Vectors
from encsel.errors import EncoderFailed, UsageError
from encsel.loading import alignment
from encsel.loading.onnx_files import Value
from encsel.loading.onnx_packs import Pack

OPTIONS = ("size", "mean", "std", "colour", "layout", "align", "dtype", "name")
KINDS = ("float32", "float16", "uint8")
ARCFACE_MEAN = ARCFACE_STD = 127.5
ASSUMED_SIDE = 112
CHANNEL_AXIS = {"nchw": 1, "nhwc": 3}
UNKNOWN = Value("", "float32", (None,) * 4)
_CHOICES = {"colour": ("rgb", "bgr"), "layout": ("nchw", "nhwc"), "align": ("none", "arcface")}
Facts = Mapping[str, str | int | float | bool]
NOT_ALIGNED = "no detection: images taken as aligned crops"


@dataclass(frozen=True)
class PictureInput:
    """The preparation of a picture.

    Attributes:
        mean, std: of a colour or of each of three, in the order that the model gets, on the scale of 0 to 255.
        as_pixels: the model takes bytes.
        pack: whose detector finds the face; None: the picture is a crop.
        alignment: how the face is found, in words.
    """

    height: int
    width: int
    layout: str
    colour: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    as_pixels: bool
    pack: Pack | None
    alignment: Facts

    @property
    def facts(self) -> Facts:
        """The preparation in words, for the description that identifies a vector."""
        scale = {"mean": "+".join(map(str, self.mean)), "std": "+".join(map(str, self.std))}
        return {
            "input": f"{self.layout}, {self.height}x{self.width}",
            "colour": self.colour,
            **({"scale": "bytes"} if self.as_pixels else scale),
            **self.alignment,
        }

    @property
    def libraries(self) -> tuple[str, ...]:
        """Packages that prepare pictures beside Pillow."""
        return alignment.LIBRARIES if self.pack else ()

    @property
    def flags(self) -> tuple[str, ...]:
        return () if self.pack else (NOT_ALIGNED,)

    def array(self, crop: Image) -> Vectors:
        """The array of one crop, float32 or bytes."""
        if crop.shape[:2] != (self.height, self.width):
            import PIL.Image

            resized = PIL.Image.fromarray(crop).resize((self.width, self.height), PIL.Image.Resampling.BILINEAR)
            crop = np.asarray(resized)
        values: Any = crop if self.colour == "rgb" else crop[..., ::-1]
        if not self.as_pixels:
            values = (values - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(values if self.layout == "nhwc" else values.transpose(2, 0, 1))

    def blank(self) -> Vectors:
        """The array of a black picture."""
        return self.array(np.zeros((self.height, self.width, 3), np.uint8))

    def model(self, embed: Callable[[Sequence[Vectors]], Vectors], device: str) -> Model:
        """The encoder that embeds arrays by `embed`, with its detector loaded."""
        aligner = None if self.pack is None else alignment.load_aligner(self.pack, self.height, device)
        return _PictureModel(self, embed, aligner)


class _PictureModel:
    def __init__(
        self, picture: PictureInput, embed: Callable[[Sequence[Vectors]], Vectors], aligner: alignment.Aligner | None
    ) -> None:
        self._picture, self._aligner, self.embed = picture, aligner, embed

    def prepare(self, sample: Image) -> Vectors:
        return self._picture.array(sample if self._aligner is None else self._aligner.crop(sample))


def picture_input(
    spec: Spec, runtime: Runtime, value: Value = UNKNOWN, *, white: float | None = None, side: int | None = None
) -> PictureInput:
    """The preparation for that input of a model, with the options of a spec.

    Args:
        white: as in OnnxGraph: decides the defaults of mean and std.
        side: for axes of any length if the option `size` is not given; None: it must be.
    Raises:
        UsageError: an option's value is invalid, contradicts the input, or is lacking.
        EncoderFailed: the input is of another shape or number type, or faces cannot be aligned.
    """
    options = spec.options
    for key, allowed in _CHOICES.items():
        if options.get(key, allowed[0]) not in allowed:
            raise UsageError(f"{spec}: {key} is {options[key]!r}; it must be {' or '.join(allowed)}.")
    layout = options.get("layout", "nhwc" if _takes(value, CHANNEL_AXIS["nhwc"]) > _takes(value, 1) else "nchw")
    channel_axis = CHANNEL_AXIS[layout]
    if value.kind not in KINDS or len(value.shape) != 4 or not _takes(value, channel_axis):
        raise EncoderFailed(
            f"it takes {value}; a picture is {' or '.join(KINDS)} (N, 3, height, width), or (N, height, width, 3) "
            "with @layout=nhwc. Export it again."
        )
    height, width = (n for axis, n in enumerate(value.shape) if axis not in (0, channel_axis))
    if (size := options.get("size")) is not None:
        if not re.fullmatch(r"[1-9]\d{0,3}", size):
            raise UsageError(f"{spec}: size is {size!r}; it must be the number of pixels of a side.")
        side = int(size)
        if {height, width} - {None, side}:
            raise UsageError(f"{spec}: the input has {height}x{width} pixels, not {side}. Leave out size=.")
    height, width = height or side, width or side
    if height is None or width is None:
        raise UsageError(f"{spec}: its file does not tell the size of its input. Add it, such as @size=112.")
    as_pixels = value.kind == "uint8"
    if as_pixels and {"mean", "std"} & options.keys():
        raise UsageError(f"{spec}: it takes pixels as bytes, without mean and std. Leave these out.")
    mean = _numbers(spec, "mean", 0.0 if white else ARCFACE_MEAN)
    std = _numbers(spec, "std", 255 / white if white else ARCFACE_STD)
    if np.float32(min(std)) <= 0:
        raise UsageError(f"{spec}: std must be above 0.")
    pack = None
    facts: Facts = {"resize": "Pillow, bilinear, to the input's height and width"}
    if options.get("align") == "arcface":
        if height != width:
            raise EncoderFailed(f"its input of {height}x{width} is not square, as aligned crops are. Leave out align=.")
        pack = alignment.find_detector(runtime)
        facts = alignment.detector_facts(pack, runtime) | alignment.alignment_facts(pack, height)
    return PictureInput(height, width, layout, options.get("colour", "rgb"), mean, std, as_pixels, pack, facts)


def _takes(value: Value, axis: int) -> int:
    """How well an axis can hold three colours: 2 if it does, 1 if it may, else 0."""
    return {3: 2, None: 1}.get(value.shape[axis], 0) if len(value.shape) == 4 else 0


def _numbers(spec: Spec, key: str, default: float) -> tuple[float, ...]:
    """One number or three, joined by plus signs."""
    text = spec.options.get(key)
    if text is None:
        return (default,)
    try:
        numbers = tuple(float(part) for part in text.split("+"))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or not np.isfinite(numbers).all():
        raise UsageError(f"{spec}: {key} is {text!r}; it must be a number, or three such as 123.7+116.3+103.5.")
    return numbers
