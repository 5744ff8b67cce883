"""What models that describe little of themselves return: one vector a sample, whatever axes of length 1 it has."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.errors import EncoderFailed

Shape = Sequence[int | None]


def beyond_one(shape: Shape) -> tuple[int | None, ...]:
    """Lengths of the axes after the first, without those of length 1; (dim,) if each sample has one vector."""
    return tuple(n for n in shape[1:] if n != 1)


def vectors_of(outputs: Sequence[NDArray[Any]], n: int) -> Vectors:
    """(n, dim) float32: the only output of that shape; EncoderFailed with the shapes if there is none, or several."""
    fitting = [x for x in outputs if x.shape[:1] == (n,) and len(beyond_one(x.shape)) == 1 and x.dtype.kind == "f"]
    if len(fitting) != 1:
        shapes = ", ".join(f"{x.dtype} {x.shape}" for x in outputs)
        raise EncoderFailed(
            f"the model returns {shapes} for {n} samples; one output of floats of shape (N, dim) is needed, besides "
            "axes of length 1. Export it with its embedding as the output."
        )
    return fitting[0].reshape(n, -1).astype(np.float32)


def in_parts(run: Callable[[NDArray[Any]], Vectors], batch: NDArray[Any], size: int | None) -> Vectors:
    """(samples, dim) of a model that takes `size` samples at once (None: any number).

    Copies of the last sample fill the last part.
    """
    n = len(batch)
    if size is None:
        return run(batch)
    filled = np.concatenate([batch, np.repeat(batch[-1:], -n % size, axis=0)])
    return np.concatenate([run(filled[i : i + size]) for i in range(0, n, size)])[:n]
