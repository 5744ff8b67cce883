"""A stage of `validate`: one file in `stages/`, which says what it measures, of what, and how it is shown."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from encsel.core import Metric, Modality
from encsel.metrics.registry import metrics
from encsel.storage.sections import Section

if TYPE_CHECKING:
    from encsel.validation.result import EncoderValidation, PairValidation, Validation
    from encsel.validation.work import Work

Key = tuple[Modality, str]
"""Modality and name of an encoder."""
Pair = tuple[Key, Key]
SKIPPED = "skipped"

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """Result of one piece of work: a value, or the reason why there is none."""

    value: T | None
    reason: str | None = None


Outcomes = dict[Any, dict[str, Outcome[Any]]]
"""By encoder (Key) or Pair, then field."""


@dataclass(frozen=True)
class Stage:
    """One stage. Every file of `validation/stages/` defines STAGE.

    Attributes:
        about: what its results belong to. `fields` are then fields of every encoder, of every pair, or of the
            validation itself.
        version: bump it when results change; results kept in the cache under another version are not read.
        order: place in the run and in the report; a stage may use results of those before it.
        compute: makes the outcomes; the work's `of_encoders`, `of_pairs` and `of_set` compute, keep and reuse them.
        always: it cannot be skipped.
        metrics: the registered metrics that its results contain, each with how to read it from an encoder's or a
            pair's results. Metrics that no stage contains are computed one by one (see stages/metrics.py).
        columns: further numbers about a pair that may go with its EER, from the pair and its two encoders.
        labels: heading and unit of these columns; a label ending in "*" is a prefix.
        encoder_cells, pair_cells: its columns in the tables of all encoders and of all pairs.
        notes: what the reader must know of these columns.
        sections: tables of its own.
        flags: its flags of a pair, from the pair, the scorer and the flags so far.
        meanings: what a flag that begins so means.
        pair_fields: fields of every pair of a stage that is not about pairs.
    """

    name: str
    meaning: str
    about: Literal["encoder", "pair", "set"]
    version: int
    order: int
    fields: Mapping[str, Any]
    compute: Callable[[Work], Outcomes]
    always: bool = False
    metrics: Mapping[str, Callable[[Any], float | None]] = field(default_factory=dict)
    columns: Callable[[PairValidation, EncoderValidation, EncoderValidation], Mapping[str, float | None]] | None = None
    labels: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    encoder_cells: Callable[[EncoderValidation, Validation], Mapping[str, str]] | None = None
    pair_cells: Callable[[PairValidation], Mapping[str, str]] | None = None
    notes: Callable[[Validation], Sequence[str]] | None = None
    sections: Callable[[Validation], Sequence[Section]] | None = None
    flags: Callable[[PairValidation, str, Sequence[str]], Sequence[str]] | None = None
    meanings: Mapping[str, str] = field(default_factory=dict)
    pair_fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fields_of_encoders(self) -> Mapping[str, Any]:
        return self.fields if self.about == "encoder" else {}

    @property
    def fields_of_pairs(self) -> Mapping[str, Any]:
        return self.fields if self.about == "pair" else self.pair_fields


@functools.cache
def stages() -> dict[str, Stage]:
    """Every stage by name, in order: the files of `validation/stages/`."""
    package = importlib.import_module("encsel.validation.stages")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    found = [importlib.import_module(f"encsel.validation.stages.{name}").STAGE for name in names]
    return {stage.name: stage for stage in sorted(found, key=lambda stage: stage.order)}


def stage_names() -> tuple[str, ...]:
    """What `--skip` and `--only` take."""
    return tuple(name for name, stage in stages().items() if not stage.always)


def metrics_of_their_own() -> dict[str, Metric]:
    """Metrics that no stage contains, by name."""
    contained = {name for stage in stages().values() for name in stage.metrics}
    return {name: metric for name, metric in metrics().items() if name not in contained}
