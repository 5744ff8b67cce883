"""Encoders of a few lines, for tests of what runs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np

from encsel.core import EmbedBatch, Encoder, EncoderFamily, Modality, Runtime, Spec, Vectors
from encsel.loading import registry

DIM = 3


def moments(samples: Sequence[Any]) -> Vectors:
    flat = [np.asarray(sample, dtype=np.float64) for sample in samples]
    return np.array([[x.mean(), x.std(), np.abs(x).max()] for x in flat])


class ToyModel:
    """A model from two functions; the batch function may leave out the axis of taps."""

    def __init__(self, embed: EmbedBatch = moments, prepare: Callable[[Any], Any] = lambda sample: sample) -> None:
        self._embed, self._prepare = embed, prepare

    def prepare(self, sample: Any) -> Any:
        return self._prepare(sample)

    def embed(self, batch: Sequence[Any]) -> Vectors:
        vectors = np.asarray(self._embed(batch))
        return vectors if vectors.ndim == 3 else vectors[:, None]


def toy(
    name: str = "toy",
    modality: Modality = "face",
    *,
    function: EmbedBatch = moments,
    model: ToyModel | None = None,
    **changes: Any,
) -> Encoder:
    """An encoder opened by the registry from a family of one batch function; or of `model`, with other fields."""
    family = EncoderFamily(name, modality, DIM, 1, "none", "a test", load=lambda: function)
    with mock.patch.object(registry, "encoder_families", return_value=(family,)):
        (encoder,) = registry.open_encoders(Spec(name), Runtime())
    if model is not None:
        changes["load"] = lambda: model
    return dataclasses.replace(encoder, **changes)
