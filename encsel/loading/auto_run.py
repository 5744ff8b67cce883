"""A loaded model of any type of transformers: batches of prepared samples in, vectors out."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from encsel.core import Vectors
from encsel.loading.auto_inputs import N_VALID, Inputs

_POOLED = ("embeddings", "image_embeds", "audio_embeds", "pooler_output")
"""Outputs that are one vector a sample, the best first."""


class AutoRun:
    """One tap for each of `layers`: "last", or the number of a hidden state."""

    def __init__(self, model: Any, inputs: Inputs, pooling: str, layers: tuple[str, ...]) -> None:
        self._model, self._inputs, self._pooling, self._layers = model, inputs, pooling, layers
        first = next(model.parameters())
        self._device, self._dtype = first.device, first.dtype

    def prepare(self, sample: Any) -> Vectors:
        return self._inputs.packed(sample)

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        import torch

        arrays = [self._inputs.unpacked(one) for one in batch]
        n_valid = arrays[0].get(N_VALID)
        with torch.inference_mode():
            tensors = self._inputs.batch(arrays, self._model)
            tensors = {
                key: value.to(self._device, self._dtype if value.is_floating_point() else None)
                for key, value in tensors.items()
            }
            more = {} if self._layers == ("last",) and self._pooling == "pooler" else {"output_hidden_states": True}
            output = self._model(**tensors, **more)
            taps = [self._pooled(output, layer, n_valid) for layer in self._layers]
            return torch.stack([tap.float() for tap in taps], dim=1).cpu().numpy()

    def _pooled(self, output: Any, layer: str, n_valid: Any) -> Any:
        if layer == "last" and self._pooling == "pooler":
            pooled = pooled_output(output)
            assert pooled is not None
            return pooled[1]
        last = getattr(output, "last_hidden_state", None)
        hidden = (
            output.hidden_states[-1 if layer == "last" else int(layer)] if layer != "last" or last is None else last
        )
        return hidden[:, 0] if self._pooling == "class" else token_mean(hidden, n_valid)


def pooled_output(output: Any) -> tuple[str, Any] | None:
    """The name of the output that a model has pooled itself, and its (samples, dim) values; None if there is none."""
    for name in _POOLED:
        if (value := getattr(output, name, None)) is not None:
            return name, value.flatten(1)
    return None


def token_mean(hidden: Any, n_valid: Any) -> Any:
    """(samples, dim) mean of (samples, tokens, dim) or (samples, dim, height, width).

    Args:
        n_valid: 2 values: how many of the frames given to the model are not padding, and of how many; None: all.
    """
    import torch

    if hidden.ndim == 2:
        return hidden
    if hidden.ndim == 4:
        return hidden.mean((2, 3), dtype=torch.float32)
    if n_valid is not None:
        n, of = (int(v) for v in np.ravel(n_valid))
        hidden = hidden[:, : max(1, math.ceil(n * hidden.shape[1] / of))]
    return hidden.mean(1, dtype=torch.float32)
