"""The nouns of encsel: frozen values over numpy arrays, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Modality = Literal["face", "voice"]
MODALITIES: tuple[Modality, Modality] = ("face", "voice")

SAMPLING_RATE = 16_000
"""Hz. Every voice clip is mono float32 at this rate by the time an encoder sees it."""

Vectors = NDArray[np.floating[Any]]
Image = NDArray[np.uint8]
"""(height, width, 3) RGB, upright."""
Clip = NDArray[np.float32]
"""(frames,) mono in [-1, 1] at SAMPLING_RATE."""


@dataclass(frozen=True)
class Sample:
    """One face image or one voice clip on disk, and whose it is."""

    identity: str
    modality: Modality
    path: Path
    name: str
    """Unique within identity and modality; stable when the folder moves."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Extra facts for later grouping: sex, language, session, ..."""


class SampleKey(NamedTuple):
    """What identifies a sample across encoders of one modality."""

    identity: str
    name: str


@dataclass(frozen=True)
class Skipped:
    """One sample that was not used, and why. `encoder` is None when no encoder could have used it."""

    modality: Modality
    sample: str
    reason: str
    encoder: str | None = None


@dataclass(frozen=True)
class Embeddings:
    """What one encoder made of one modality.

    Attributes:
        vectors: (rows, dim) float32, finite, distinct within an identity.
        labels: (rows,) identity of each row, text.
        samples: (rows,) name of each row's sample, text; unique within an identity.
        attributes: extra columns, each (rows,) text.
        provenance: what made the vectors: encoder, version, preprocessing, or file and its hash.
    """

    name: str
    modality: Modality
    vectors: Vectors
    labels: NDArray[np.str_]
    samples: NDArray[np.str_]
    attributes: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def identities(self) -> tuple[str, ...]:
        return tuple(np.unique(self.labels).tolist())

    def rows(self, keep: NDArray[Any]) -> Embeddings:
        """The same embeddings with only the rows that `keep` (mask or indices) selects."""
        return Embeddings(
            self.name, self.modality, self.vectors[keep], self.labels[keep], self.samples[keep],
            {key: column[keep] for key, column in self.attributes.items()}, self.provenance,
        )  # fmt: skip


EmbedBatch = Callable[[Sequence[Any]], Vectors]
"""Decoded samples (Image or Clip) in, (samples, dim) out. A sample it cannot use becomes a row of NaN."""


@dataclass(frozen=True)
class EncoderFamily:
    """One way to turn a sample into a vector, as the registry knows it.

    `preprocessing` holds everything that is done to a sample before the model; together with `name` and `version` it
    keys the cache, so any change to it or to the code behind it must change one of them.
    """

    name: str
    modality: Modality
    dim: int
    version: int
    licence: str
    source: str
    load: Callable[[], EmbedBatch]
    """Import what is needed and return the embedding function. Called once per run."""
    preprocessing: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """One number about an encoder (`of` = "rows") or about a face-voice pair (`of` = "pair").

    `compute` takes (rows, dim) vectors for "rows", or two row-paired (n, dim) arrays of centroids for "pair".
    """

    name: str
    version: int
    of: Literal["rows", "pair"]
    direction: str
    """What a larger value means, in words."""
    range: tuple[float, float]
    source: str
    compute: Callable[..., float]
