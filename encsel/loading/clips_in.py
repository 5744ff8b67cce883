"""How a clip is given to a model whose file does not say so: samples or filterbank features, by shape and options."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from encsel.core import SAMPLING_RATE, Clip, Model, Spec, Vectors
from encsel.errors import EncoderFailed, UsageError, first_line
from encsel.loading.fbank import LIBRARY, SHIFT, WINDOW, Fbank
from encsel.loading.onnx_files import Value
from encsel.loading.speech import COMMON_LENGTHS, COMMON_SECONDS, usable_part

OPTIONS = ("features", "dtype", "name")
_FEATURES = re.compile(r"waveform|fbank([1-9]\d{0,2})(-3dspeaker)?")
LENGTHS = tuple(round(seconds * SAMPLING_RATE) for seconds in reversed(COMMON_SECONDS))
"""Samples that clips are cut to, the shortest first."""


Layout = Literal["time", "1, time", "time, bands", "bands, time"]


@dataclass(frozen=True)
class ClipInput:
    """The preparation of a clip.

    Attributes:
        fbank: the features; None for the samples themselves.
        layout: the axes of one prepared clip.
        n_fixed: the samples that every clip must have; None if it may have any number.
    """

    fbank: Fbank | None
    layout: Layout
    n_fixed: int | None = None

    @property
    def facts(self) -> dict[str, str | int | float | bool]:
        """The preparation in words, for the description that identifies a vector."""
        lengths = f"cut to the longest {COMMON_LENGTHS} that fits and that the model takes; shorter clips are refused"
        if self.n_fixed is not None:
            lengths = f"cut to {self.n_fixed} samples; shorter clips are repeated"
        return {"features": str(self.fbank or "samples in [-1, 1]"), "input": f"({self.layout})", "lengths": lengths}

    @property
    def libraries(self) -> tuple[str, ...]:
        """Packages that compute the features."""
        return () if self.fbank is None else (LIBRARY,)

    @property
    def time_axis(self) -> int:
        """In a batch."""
        return 1 + self.layout.split(", ").index("time")

    def array(self, clip: Clip) -> Vectors:
        """Samples or features in the model's layout."""
        values = clip if self.fbank is None else self.fbank(clip)
        if self.layout == "1, time":
            return values[None]
        return np.ascontiguousarray(values.T) if self.layout == "bands, time" else values

    def blank(self, n_samples: int = SAMPLING_RATE) -> Vectors:
        """The array of a silent clip, by default of one second."""
        return self.array(np.zeros(self.n_fixed or n_samples, np.float32))

    def model(self, embed: Callable[[Sequence[Vectors]], Vectors]) -> Model:
        """The encoder that embeds arrays by `embed`; EncoderFailed if that takes no clip."""
        n_least = 0
        for n_least in LENGTHS[: 1 if self.n_fixed else None]:
            try:
                embed([self.blank(n_least)])
                break
            except Exception as error:
                reason = error
        else:
            raise EncoderFailed(
                f"it takes no clip of {COMMON_SECONDS[-1]:g} to {COMMON_SECONDS[0]:g} s as {self.facts['features']} "
                f"({type(reason).__name__}: {first_line(reason)}). Check features=, or export it again."
            ) from reason
        return _ClipModel(self, embed, n_least)


class _ClipModel:
    def __init__(self, clip: ClipInput, embed: Callable[[Sequence[Vectors]], Vectors], n_least: int) -> None:
        self._clip, self._n_least, self.embed = clip, n_least, embed

    def prepare(self, sample: Clip) -> Vectors:
        if self._clip.n_fixed is not None:
            return self._clip.array(np.resize(sample, self._clip.n_fixed))
        return self._clip.array(usable_part(sample, self._n_least, common=True))


def clip_input(spec: Spec, value: Value | None = None, *, toolkit: str = "") -> ClipInput:
    """The preparation for that input of a model, with the options of a spec.

    Args:
        value: None if the file does not describe it: samples, unless the option `features` is given.
        toolkit: which trained the model, if the file tells.
    Raises:
        UsageError: the features are unknown, are not of the input's shape, or cannot be told from it.
        EncoderFailed: the input is of another shape or number type.
    """
    text = spec.options.get("features")
    asked = _FEATURES.fullmatch(text or "waveform")
    if asked is None:
        raise UsageError(
            f"{spec}: features are {text!r}; it must be waveform, fbank80 or fbank80-3dspeaker, of any 80."
        )
    fbank = Fbank(int(asked[1]), of_3dspeaker=asked[2] is not None) if asked[1] else None
    if value is None:
        return ClipInput(fbank, "time, bands" if fbank else "time")
    axes = value.shape[1:]
    if value.kind not in ("float32", "float16") or len(axes) not in (1, 2):
        raise EncoderFailed(
            f"it takes {value}; clips are float32 or float16 (N, samples), (N, 1, samples), (N, frames, bands) or "
            "(N, bands, frames). Export it again."
        )
    if text is None and len(axes) == 2 and axes[0] != 1:
        fixed = [n for n in axes if n is not None]
        if len(fixed) != 1:
            raise UsageError(f"{spec}: it takes {value}; say which features these are, such as @features=fbank80.")
        if toolkit not in ("", "wespeaker", "3d-speaker"):
            raise UsageError(
                f"{spec}: its file says that it is of {toolkit}, whose features encsel does not compute. If it takes "
                f"those of WeSpeaker, add @features=fbank{fixed[0]}."
            )
        fbank = Fbank(fixed[0], of_3dspeaker=toolkit == "3d-speaker")
    if fbank is None:
        if len(axes) == 1:
            return ClipInput(None, "time", axes[0])
        if axes[0] == 1 or axes == (None, None):
            return ClipInput(None, "1, time", axes[1])
    elif len(axes) == 2:
        n_mels = fbank.n_mels
        if axes[1] == n_mels or axes == (None, None):
            return ClipInput(fbank, "time, bands", _n_samples(axes[0]))
        if axes[0] == n_mels:
            return ClipInput(fbank, "bands, time", _n_samples(axes[1]))
    raise UsageError(f"{spec}: it takes {value}, which is not the shape of these features. Leave out features=.")


def _n_samples(n_frames: int | None) -> int | None:
    """The samples from which so many frames are computed."""
    return None if n_frames is None else WINDOW + (n_frames - 1) * SHIFT
