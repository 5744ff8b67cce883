"""A stage of `validate`: one file in `stages/`, which defines what is measured and how it is shown."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from encsel.core import Metric, Modality
from encsel.metrics.registry import metrics
from encsel.storage.sections import Section, number

if TYPE_CHECKING:
    from encsel.validation.result import EncoderValidation, PairValidation, Validation
    from encsel.validation.work import Work

Key = tuple[Modality, str]
"""Modality and name of an encoder."""
Pair = tuple[Key, Key]
SKIPPED = "skipped"


@dataclass(frozen=True)
class Outcome:
    """Result of one task: a value, or the reason why there is none."""

    value: Any
    reason: str | None = None


Outcomes = dict[Any, dict[str, Outcome]]
"""By encoder (Key) or Pair, then field."""


@dataclass(frozen=True)
class Stage:
    """One stage. Every file of `validation/stages/` defines STAGE.

    Attributes:
        about: whether `fields` are fields of every encoder, of every pair, or of the validation itself.
        order: place in the run and in the report; a stage may use results of earlier ones.
        compute: makes the outcomes; `of_encoders`, `of_pairs` and `of_set` of the work compute, keep and reuse them.
        version: increase it when results change; cached results of other versions are not read.
        always: the stage cannot be skipped.
        on_request: the stage runs only if it is named.
        needs: modules beyond those of `pip install encsel`; without them the stage is left out, with a note.
        metrics: path (see `value_at`) of each registered metric that its results contain. Metrics that no stage
            contains are computed one by one (see stages/metrics.py).
        columns: further numbers about a pair that may be related to its EER, from the pair and its two encoders.
        labels: heading and unit of these columns; a label ending in "*" is a prefix.
        encoder_cells, pair_cells: columns in the tables of all encoders and of all pairs.
        notes: explanations of these columns.
        sections: separate tables.
        flags: flags of a pair, from the pair, the scorer and the flags so far.
        meanings: meanings of flags, by prefix.
        pair_fields: fields of every pair, if the stage is not about pairs.
    """

    name: str
    about: Literal["encoder", "pair", "set"]
    order: int
    fields: Mapping[str, Any]
    compute: Callable[[Work], Outcomes]
    version: int = 1
    always: bool = False
    on_request: bool = False
    needs: tuple[str, ...] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)
    columns: Callable[[PairValidation, EncoderValidation, EncoderValidation], dict[str, float | None]] = lambda *_: {}
    labels: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    encoder_cells: Callable[[EncoderValidation, Validation], Mapping[str, str]] = lambda *_: {}
    pair_cells: Callable[[PairValidation], Mapping[str, str]] = lambda *_: {}
    notes: Callable[[Validation], Sequence[str]] = lambda *_: ()
    sections: Callable[[Validation], Sequence[Section]] = lambda *_: ()
    flags: Callable[[PairValidation, str, Sequence[str]], Sequence[str]] = lambda *_: ()
    meanings: Mapping[str, str] = field(default_factory=dict)
    pair_fields: Mapping[str, Any] = field(default_factory=dict)

    def fields_of(self, about: str) -> Mapping[str, Any]:
        """Fields of every "encoder", or of every "pair"."""
        return self.fields if self.about == about else self.pair_fields if about == "pair" else {}


@functools.cache
def stages() -> dict[str, Stage]:
    """Every stage by name, in order: the files of `validation/stages/`."""
    package = importlib.import_module("encsel.validation.stages")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    defined = [importlib.import_module(f"encsel.validation.stages.{name}").STAGE for name in names]
    return {stage.name: stage for stage in sorted(defined, key=lambda stage: stage.order)}


def stage_names() -> tuple[str, ...]:
    """Names that `--skip` and `--only` accept."""
    return tuple(name for name, stage in stages().items() if not stage.always)


def metrics_of_their_own() -> dict[str, Metric]:
    """Metrics that no stage contains, by name."""
    contained = {name for stage in stages().values() for name in stage.metrics}
    return {name: metric for name, metric in metrics().items() if name not in contained}


def value_at(results: EncoderValidation | PairValidation, path: str) -> Any:
    """The value at a path such as "cka.biased" in the results of an encoder or a pair; None if a part is None."""
    name, *parts = path.split(".")
    value = results[name]
    for part in parts:
        if value is not None:
            value = value.get(part) if isinstance(value, Mapping) else getattr(value, part)
    return value


def cells(
    results: EncoderValidation | PairValidation, paths: Mapping[str, str], text: Callable[[Any], str] = number
) -> dict[str, str]:
    """Cells of a table by heading, from the values at these paths."""
    return {heading: text(value_at(results, path)) for heading, path in paths.items()}
