"""The nouns of encsel: frozen values over numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from encsel.errors import UsageError, printable
from encsel.rows import grouped, means_of_groups, row_hashes, taken, unit_rows_in_place
from encsel.runtime import Runtime
from encsel.threads import cached_property

Modality = Literal["face", "voice"]
MODALITIES: tuple[Modality, Modality] = ("face", "voice")

SAMPLING_RATE = 16_000
"""Hz, of every voice clip that an encoder gets."""

Vectors = NDArray[np.floating[Any]]
Image = NDArray[np.uint8]
"""(height, width, 3) RGB, upright."""
Clip = NDArray[np.float32]
"""(frames,) mono in [-1, 1] at SAMPLING_RATE."""
Part = Literal["first", "middle", "loudest"]
"""Which 5 seconds of a longer clip are used."""
PARTS: tuple[Part, ...] = ("first", "middle", "loudest")


@dataclass(frozen=True, slots=True)
class Sample:
    """One face image or one voice clip on disk, and its identity; small, as there may be millions."""

    identity: str
    modality: Modality
    place: str
    """Path of the file or, with a slash at its end, of the folder in which `name` is the path of the file."""
    name: str
    """Unique within identity and modality; stable when the folder moves."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Further columns, such as sex, language or session."""

    @property
    def path(self) -> Path:
        return Path(self.place + self.name if self.place.endswith("/") else self.place)


@dataclass(frozen=True)
class Skipped:
    """One sample that `encoder` (None: any) could not use. `sample` is None in results without names."""

    modality: Modality
    sample: str | None
    reason: str
    encoder: str | None = None


@dataclass(frozen=True)
class Failure:
    """An encoder that could not be loaded, run or measured, and why."""

    modality: Modality
    encoder: str
    reason: str


@dataclass(frozen=True)
class Traits:
    """Facts about an encoder beyond its vectors.

    Attributes:
        trained_on: data sets behind the weights, in words.
        space: encoders of one joint space compare by plain cosine, across modalities.
        flags: remarks for readers of results, such as "one of 25 layers".
        licence: of the weights, in words.
    """

    trained_on: str = ""
    space: str | None = None
    flags: tuple[str, ...] = ()
    licence: str = ""


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of one encoder.

    Attributes:
        vectors: (rows, dim) float32, finite, distinct within an identity.
        labels: (rows,) identity of each row, text.
        samples: (rows,) name of each row's sample, text; unique within an identity.
        attributes: further columns, each (rows,) text.
        listed: row of every usable sample in the order of the source, repetitions included; None if no row repeats.
        provenance: origin of the vectors: encoder, version, preprocessing, or file and its hash.
    """

    name: str
    modality: Modality
    vectors: Vectors
    labels: NDArray[np.str_]
    samples: NDArray[np.str_]
    attributes: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    traits: Traits = field(default_factory=Traits)
    listed: NDArray[np.intp] | None = None

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def shares_space(self, other: Embeddings) -> bool:
        """Whether both declare one joint space, and have its dimension."""
        return self.traits.space is not None and self.traits.space == other.traits.space and self.dim == other.dim

    @cached_property
    def identities(self) -> tuple[str, ...]:
        return tuple(self._grouped[0].tolist())

    @property
    def owners(self) -> NDArray[np.intp]:
        """(rows,) place of each row's identity among `identities`."""
        return self._grouped[1]

    @property
    def counts(self) -> NDArray[np.intp]:
        """(identities,) rows of each identity."""
        return self._grouped[2]

    @cached_property
    def centroids(self) -> Vectors:
        """Mean of each identity's rows, L2-normalised: (identities, dim) float64, identities in sorted order."""
        return unit_rows_in_place(means_of_groups(self.vectors, self.owners, self.counts))

    @cached_property
    def row_hashes(self) -> NDArray[np.uint64]:
        """(rows,) number of each row's vector, as `encsel.rows.row_hashes`."""
        return row_hashes(self.vectors)

    @cached_property
    def _grouped(self) -> tuple[NDArray[np.str_], NDArray[np.intp], NDArray[np.intp]]:
        return grouped(self.labels)

    def rows(self, keep: NDArray[Any]) -> Embeddings:
        """The same embeddings with only the rows that `keep` (mask or indices) selects; itself if these are all."""
        index = np.flatnonzero(keep) if keep.dtype == bool else keep
        if len(index) == len(self.labels) and np.array_equal(index, np.arange(len(index))):
            return self
        attributes = {key: column[index] for key, column in self.attributes.items()}
        vectors, labels, samples = taken(self.vectors, index), self.labels[index], self.samples[index]
        place = np.full(len(self.labels), -1)
        place[index] = np.arange(len(labels))
        listed = None if self.listed is None else place[self.listed][place[self.listed] >= 0]
        return replace(self, vectors=vectors, labels=labels, samples=samples, attributes=attributes, listed=listed)

    def of_people(self, people: Iterable[str]) -> Embeddings:
        """The same embeddings with only the rows of these identities."""
        chosen = set(people)
        return self.rows(np.fromiter((p in chosen for p in self.identities), bool, len(self.identities))[self.owners])

    def as_listed(self) -> Embeddings:
        """The rows as the source lists them, each as often as it occurs there."""
        return self if self.listed is None else replace(self, listed=None).rows(self.listed)


@dataclass(frozen=True)
class Spec:
    """An encoder as the user names it. `str(spec)` parses back to an equal spec.

    Attributes:
        family: empty as long as the family of a checkpoint that was named alone is not known.
        checkpoint: ORG/NAME on the hub, or a folder or file; None: the family's default.
        alone: the user named the checkpoint without its family.
        modality: whose encoder it is, where that is known: some families have both.
    """

    family: str
    checkpoint: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    alone: bool = field(default=False, compare=False)
    modality: Modality | None = field(default=None, compare=False)

    def __str__(self) -> str:
        options = ",".join(f"{key}={self.options[key]}" for key in sorted(self.options, key=lambda k: (k == "name", k)))
        head = ":".join(part for part in (self.family, self.checkpoint) if part)
        return head + (f"@{options}" if options else "")

    @property
    def name(self) -> str:
        """Name of the encoder in reports: the option `name`, else the text as given, without folders."""
        if "name" in self.options:
            return self.options["name"]
        # Only the last part of a folder: its place on this machine is private.
        short = None if self.checkpoint is None else PurePath(self.checkpoint).name or self.checkpoint
        return printable(str(Spec("" if self.alone else self.family, short, self.options)).replace("/", "-"))


EmbedBatch = Callable[[Sequence[Any]], Vectors]
"""Decoded samples (Image or Clip) in, (samples, dim) out, a row of NaN for a sample it cannot use."""


class Model(Protocol):
    """A loaded encoder."""

    def prepare(self, sample: Any) -> Vectors:
        """The array of one decoded sample, as batches hold it. Called from several threads at once.

        Raises:
            UnusableSample: this encoder cannot use the sample; the message is the reason.
        """

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        """(samples, taps, dim) of prepared samples; most models have one tap. NaN marks an unusable sample."""


@dataclass(frozen=True)
class Encoder:
    """One candidate: described in full, but not loaded.

    Attributes:
        spec: text that opens it again.
        revision: commit of the weights in their hub repository; None without a hub.
        folder: place of the weights on this machine.
        weights: SHA-256 of each weight file by name; empty without weights.
        files: the same of other files in `folder` that can change vectors, such as configurations.
        code: distribution and hash of the code of a plug-in; empty for encsel's own families.
        runtime: with which a process of its own opens and runs the encoder; None: it runs in this process.
        preprocessing: everything done to a decoded sample before the model, with all parameters.
        libraries: packages whose version can change the vectors.
        shares: encoders with the same value come from one pass of one model and differ only in `tap`.
        equal_lengths: batches must hold prepared samples of one shape; else the model pads them.
        is_cached: its vectors may be kept on disk; not those of a function without a version.
        trained_on, space, flags: as Traits.
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
    files: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    runtime: Runtime | None = None
    folder: Path | None = None
    trained_on: str = ""
    preprocessing: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    tap: int = 0
    shares: str = ""
    equal_lengths: bool = False
    is_cached: bool = True
    space: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncoderFamily:
    """One way to turn samples into vectors, as the registry lists it.

    A family without weights has `load`. One with weights has `open`, which reads configurations, hashes weights and
    returns encoders that load them; several if a spec stands for several (`layer=all`).

    `preprocessing`, `name` and `version` are part of the cache key: a change of the code must change one of them.
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
    """The default, whose weights are trusted even if they are pickled."""
    options: tuple[str, ...] = ("name",)
    """Keys of a spec that this family accepts."""
    needs: tuple[str, ...] = ()
    """Optional modules that it imports, to say what to install if they are missing."""
    recognises: Callable[[Path], bool] | None = None
    """Whether a folder or file on this machine is a checkpoint of this family, told without loading it."""
    is_general: bool = False
    """It is used for a checkpoint without a family only if no other family recognises it."""
    open: Callable[[Spec, Runtime], tuple[Encoder, ...]] | None = None
    trained_on: str = ""
    n_parameters: int | None = None
    n_bytes: int | None = None
    """Download size of the default checkpoint."""
    write_tiny: Callable[[Path], str] | None = None
    """For tests: write a small model with random weights into an empty folder and return the spec that opens it."""

    @property
    def has_default(self) -> bool:
        """Whether its name alone is an encoder."""
        return self.load is not None or self.checkpoint is not None


@dataclass(frozen=True)
class Metric:
    """One number about an encoder ("rows" or "people") or about a face-voice pair ("pair"). Call it on arrays.

    Attributes:
        direction: meaning of a larger value, in words.
        compute: the metric of arrays as `__call__` takes them.
        invariant_to: changes of the space of one encoder that leave the value unchanged.
        label: heading in reports; empty: the name.
        unit: "fraction", "dimensions", ...; empty for none.
        column: name in tables of pairs; empty: the name.
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
            UsageError: arrays of another shape, or values that are not finite.
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
    """Which part of a calibration set to use, and what to tolerate in it: the arguments of `encsel.rank`."""

    identities: int | None = None
    samples_per_identity: int | None = None
    seed: int = 0
    min_identities: int = 30
    max_skipped: float = 0.05
    allow_outside: bool = False
    within: str | None = None
    show_names: bool = False
    clip: Part = "first"
    ffmpeg: bool = False
    """Decode clips that libsndfile cannot read with the ffmpeg of this machine."""
