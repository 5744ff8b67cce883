"""The nouns of encsel: frozen values over numpy arrays, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from encsel.errors import UsageError, printable

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


@dataclass(frozen=True)
class Skipped:
    """One sample that was not used, and why. `encoder` is None when no encoder could have used it.

    `sample` is None where a result carries no names.
    """

    modality: Modality
    sample: str | None
    reason: str
    encoder: str | None = None


@dataclass(frozen=True)
class Traits:
    """What is known of an encoder beyond its vectors.

    Attributes:
        trained_on: data sets behind the weights, in words.
        identity_trained: trained to tell people apart, so that different people must come out far apart.
        space: encoders of one joint space compare by plain cosine, across modalities.
        flags: what a reader of results should know, such as "one of 25 layers".
    """

    trained_on: str = ""
    identity_trained: bool = False
    space: str | None = None
    flags: tuple[str, ...] = ()


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
    traits: Traits = field(default_factory=Traits)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def identities(self) -> tuple[str, ...]:
        return tuple(np.unique(self.labels).tolist())

    def rows(self, keep: NDArray[Any]) -> Embeddings:
        """The same embeddings with only the rows that `keep` (mask or indices) selects."""
        if keep.dtype == bool and keep.all():
            return self
        return Embeddings(
            self.name, self.modality, self.vectors[keep], self.labels[keep], self.samples[keep],
            {key: column[keep] for key, column in self.attributes.items()}, self.provenance,
            self.traits,
        )  # fmt: skip


SPEC_OPTIONS = ("revision", "layer", "pooling", "dtype", "name")


@dataclass(frozen=True)
class Spec:
    """An encoder as the user names it. `str(spec)` parses back to an equal spec."""

    family: str
    checkpoint: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ",".join(f"{key}={self.options[key]}" for key in SPEC_OPTIONS if key in self.options)
        return (
            self.family
            + (f":{self.checkpoint}" if self.checkpoint is not None else "")
            + (f"@{options}" if options else "")
        )

    @property
    def name(self) -> str:
        """What reports call the encoder: the option `name`, else the text without folders."""
        if "name" in self.options:
            return self.options["name"]
        # A folder's last part tells encoders apart; where it lies on this machine is nobody's business.
        short = None if self.checkpoint is None else PurePath(self.checkpoint).name or self.checkpoint
        return printable(str(Spec(self.family, short, self.options)).replace("/", "-"))


EmbedBatch = Callable[[Sequence[Any]], Vectors]
"""Decoded samples (Image or Clip) in, (samples, dim) out. A sample it cannot use becomes a row of NaN."""


@dataclass(frozen=True)
class Runtime:
    """Where and how models run."""

    device: str = "auto"
    """A torch device, or "auto": CUDA where there is one."""
    dtype: str = "float32"
    offline: bool = False
    hash_weights: bool = True
    """False only to look around: results need the hashes."""
    allow_pickle: bool = False
    """Read pickled weights (with `weights_only=True`) of checkpoints outside the default table, too."""
    timeout: float | None = None
    """Seconds that an encoder may take to be opened, and again to be loaded and run; None: no limit."""
    batch_size: int | None = None
    """Samples per batch; None: chosen by device."""
    cache: str | Path | None = "default"
    """Folder of the embedding cache; "default": that of the user; None: keep nothing on disk."""
    jobs: int | None = None
    """Pairs and encoders measured at a time; None: one per processor."""


class Model(Protocol):
    """A loaded encoder."""

    def prepare(self, sample: Any) -> Vectors:
        """The array of one decoded sample that batches are made from. Called from several threads at once.

        Raises:
            UnusableSample: this encoder cannot use the sample; the message is the reason.
        """

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        """(samples, taps, dim) of prepared samples; most models have one tap. NaN marks a sample it could not use."""


@dataclass(frozen=True)
class Encoder:
    """One candidate: everything about it is known, nothing of it is loaded.

    Attributes:
        spec: text that opens it again.
        revision: commit of the hub's repository the weights are from; None without a hub.
        folder: where the weights are on this machine.
        weights: SHA-256 of each weight file by name; empty without weights.
        trained_on: data sets behind the weights, in words.
        preprocessing: everything done to a decoded sample before the model, and the choices within it.
        libraries: packages whose version can move the vectors.
        shares: encoders with the same value come from one pass of one model and differ in `tap` alone.
        equal_lengths: batches must hold prepared samples of one shape; else they are padded by the model.
        identity_trained: trained to tell people apart, so that different people must come out far apart.
        space: encoders of one joint space compare by plain cosine, across modalities.
        flags: what a reader of results should know, such as "one of 25 layers".
    """

    name: str
    modality: Modality
    dim: int
    spec: str
    family: str
    version: int
    licence: str
    source: str
    load: Callable[[], Model]
    revision: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    trained_on: str = ""
    preprocessing: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    tap: int = 0
    shares: str = ""
    equal_lengths: bool = False
    identity_trained: bool = False
    space: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncoderFamily:
    """One way to turn samples into vectors, as the registry knows it.

    A family without weights gives `load`. One with weights gives `open`, which reads configurations and hashes weights
    and leaves loading to the encoders it returns; more than one when a spec stands for several (`layer=all`).

    `preprocessing`, `name` and `version` are part of the cache key: a change of the code behind must change one.
    """

    name: str
    modality: Modality
    dim: int
    version: int
    licence: str
    source: str
    load: Callable[[], EmbedBatch] | None = None
    preprocessing: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    checkpoint: str | None = None
    """The default; its pickled weights, where it has no others, are vouched for."""
    options: tuple[str, ...] = ("name",)
    """Keys of the spec that this family takes."""
    open: Callable[[Spec, Runtime], tuple[Encoder, ...]] | None = None
    trained_on: str = ""
    n_parameters: int | None = None
    n_bytes: int | None = None
    """Download size of the default checkpoint."""
    write_tiny: Callable[[Path], str] | None = None
    """Write a small model with random weights into an empty folder and return the spec that opens it: for tests."""


@dataclass(frozen=True)
class Metric:
    """One number about an encoder ("rows" or "people") or about a face-voice pair ("pair"). Call it on arrays.

    `compute` takes (rows, dim) vectors for "rows"; these and the (rows,) identity of each for "people"; two row-paired
    (n, dim) arrays of centroids for "pair".

    Attributes:
        direction: what a larger value means, in words.
        invariant_to: changes of the space that leave the value alone, in any encoder by itself.
        label: heading in reports; the name where it is empty.
        unit: "fraction", "dimensions", ...; empty for none.
        column: its name in tables of pairs; the metric's name where it is empty.
        combine: how the values of two encoders become a number about the pair; None: no such number.
    """

    name: str
    version: int
    of: Literal["rows", "people", "pair"]
    direction: str
    range: tuple[float, float]
    source: str
    compute: Callable[..., float]
    invariant_to: tuple[str, ...] = ("rotation", "shift", "scale")
    label: str = ""
    unit: str = ""
    column: str = ""
    combine: Literal["difference", "mean"] | None = "mean"

    def __call__(self, *arrays: Any) -> float:
        """The metric of rows of embeddings.

        Args:
            arrays: (rows, dim) for "rows"; (rows, dim) and (rows,) identities for "people"; (n, dim) and (n, other
                dim) of the same people in the same order for "pair".
        Raises:
            UsageError: other arrays than these, or values that are not finite.
            BadCalibration: too few rows, or rows that do not differ.
        """
        needed = {"rows": 1, "people": 2, "pair": 2}[self.of]
        if len(arrays) != needed:
            raise UsageError(f"{self.name} takes {needed} arrays; {len(arrays)} were given.")
        given = [np.asarray(array) for array in arrays]
        vectors = given[:1] if self.of == "people" else given
        for x in vectors:
            if x.ndim != 2 or x.dtype.kind not in "fiu" or not np.isfinite(x).all():
                raise UsageError(f"{self.name} takes finite numbers of shape (rows, dim); got {x.dtype} {x.shape}.")
        if len({len(x) for x in given}) > 1:
            raise UsageError(f"{self.name} needs as many rows on both sides; got {[len(x) for x in given]}.")
        return float(self.compute(*given))


@dataclass(frozen=True)
class SetOptions:
    """Which part of a calibration set to use, and what to tolerate in it.

    Attributes:
        identities: number of identities to use, chosen by `seed`; None: all.
        samples_per_identity: most samples per identity and modality, chosen by `seed`; None: all.
        seed: random seed, 0 or more.
        min_identities: fewest identities with both modalities.
        max_skipped: largest fraction of unusable samples, in [0, 1].
        allow_outside: read files outside the folder of the manifest that names them.
        within: attribute whose groups identities are shuffled within; None: sex or gender if all identities have one.
        show_names: name skipped samples in results instead of hashing their names.
    """

    identities: int | None = None
    samples_per_identity: int | None = None
    seed: int = 0
    min_identities: int = 30
    max_skipped: float = 0.05
    allow_outside: bool = False
    within: str | None = None
    show_names: bool = False
