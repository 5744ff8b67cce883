"""Finds encoders and metrics: one file each in their package, or a third party's entry point."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import numpy as np

from encsel.core import (
    MODALITIES,
    EmbedBatch,
    Encoder,
    EncoderFamily,
    Metric,
    Modality,
    Runtime,
    Spec,
    Vectors,
)
from encsel.errors import EncoderFailed, UsageError, nearest
from encsel.loading.deadline import Deadline
from encsel.loading.signoff import Signing, signed_off
from encsel.loading.spec import parse

ENCODER_GROUP = "encsel.encoders"


def _modules(package: str) -> list[ModuleType]:
    found = importlib.import_module(package)
    names = sorted(module.name for module in pkgutil.iter_modules(found.__path__))
    return [importlib.import_module(f"{package}.{name}") for name in names]


@cache
def encoder_families() -> dict[str, EncoderFamily]:
    """Every known encoder by name: the files of `encsel.encoders`, then entry points of third parties.

    Raises:
        EncoderFailed: a plug-in does not import, is no valid EncoderFamily, or takes a name that is taken.
    """
    families = {m.ENCODER.name: m.ENCODER for m in _modules("encsel.encoders")}
    for point in entry_points(group=ENCODER_GROUP):
        where = f"The encoder plug-in {point.name!r} ({point.value})"
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
                family = point.load()
        except (Exception, SystemExit) as error:
            what = (str(error) or type(error).__name__).splitlines()[0]
            raise EncoderFailed(f"{where} does not import: {what}. Repair or uninstall it.") from error
        if fault := _fault(family):
            raise EncoderFailed(f"{where} {fault}. Repair or uninstall it.")
        if families.setdefault(family.name, family) is not family:
            raise EncoderFailed(f"{where} is named {family.name!r}, which is taken. Rename or uninstall it.")
    return families


def _fault(family: object) -> str | None:
    """What is wrong with a plug-in's description, in words."""
    if not isinstance(family, EncoderFamily):
        return f"is a {type(family).__name__}; an encsel.core.EncoderFamily is needed"
    if family.modality not in MODALITIES:
        return f"has the modality {family.modality!r}; one of {', '.join(MODALITIES)} is needed"
    if not isinstance(family.dim, int) or family.dim < 1:
        return f"has dim {family.dim!r}; a whole number of at least 1 is needed"
    if (family.load is None) == (family.open is None):
        return "gives both load and open, or neither; one of them is needed"
    odd = [key for key, value in family.preprocessing.items() if not isinstance(value, str | int | float)]
    if odd:
        kind = type(family.preprocessing[odd[0]]).__name__
        return f"describes its preprocessing {odd[0]!r} by a {kind}; text or a number is needed"
    return None


def encoder_family(name: str, modality: Modality) -> EncoderFamily:
    """The encoder family of that name and modality.

    Raises:
        UsageError: no such family; names the nearest.
    """
    families = encoder_families()
    of_modality = [f.name for f in families.values() if f.modality == modality]
    if name not in families:
        raise UsageError(f"No {modality} encoder is named {name!r}. {nearest(name, of_modality)}")
    if families[name].modality != modality:
        other = families[name].modality
        raise UsageError(f"{name!r} is a {other} encoder; give it with --{other}. {nearest(name, of_modality)}")
    return families[name]


def checked_spec(text: str, modality: Modality) -> Spec:
    """The spec that `text` means, checked against its family; opens and loads nothing.

    Raises:
        UsageError: not of the grammar, unknown family, or something the family does not take.
    """
    spec = parse(text)
    family = encoder_family(spec.family, modality)
    if spec.checkpoint is not None and family.open is None:
        raise UsageError(f"{text!r}: {family.name} has no checkpoints. Leave out {':' + spec.checkpoint!r}.")
    for key in spec.options:
        if key not in family.options:
            raise UsageError(f"{text!r}: {family.name} takes no {key!r}. It takes: {', '.join(family.options)}.")
    return spec


def open_encoders(spec: Spec, runtime: Runtime, *, signing: Signing = "check") -> tuple[Encoder, ...]:
    """The encoders a checked spec stands for, their weights found and hashed, nothing loaded.

    Args:
        signing: what is done about the recorded hashes of fetched weights.
    Raises:
        UsageError: an option's value that this model does not have, such as a layer.
        EncoderFailed: weights missing, damaged or not allowed, not found within the runtime's timeout, or
            others than those signed off; or whatever else the family's `open` raised.
    """
    family = encoder_families()[spec.family]
    if family.open is not None:
        deadline = Deadline(runtime.timeout)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                runtime = replace(runtime, dtype=spec.options.get("dtype", runtime.dtype))
                opened = deadline.call(family.open, spec, runtime)
            # Without hashes somebody only looks around.
            return signed_off(spec, family.checkpoint, opened, signing if runtime.hash_weights else "look")
        except EncoderFailed as error:
            raise type(error)(f"The encoder {spec}: {error}") from error
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            raise EncoderFailed(f"The encoder {spec}: {type(error).__name__}: {error}") from error
        finally:
            deadline.close()
    assert family.load is not None  # _fault refuses plug-ins with neither
    load = family.load
    return (
        Encoder(
            name=spec.name, modality=family.modality, dim=family.dim, spec=str(spec), family=family.name,
            version=family.version, licence=family.licence, source=family.source, load=lambda: _Plain(load()),
            trained_on=family.trained_on, preprocessing=family.preprocessing, libraries=family.libraries,
            shares=str(spec),
        ),
    )  # fmt: skip


class _Plain:
    """A batch function as a Model: nothing to prepare, one tap."""

    def __init__(self, embed: EmbedBatch) -> None:
        self._embed = embed

    def prepare(self, sample: Any) -> Vectors:
        return sample

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        vectors = np.asarray(self._embed(batch))
        return vectors[:, None] if vectors.ndim else vectors


@cache
def metrics() -> dict[str, Metric]:
    """Every metric by name, from the files of `encsel.metrics`."""
    return {metric.name: metric for module in _modules("encsel.metrics") for metric in getattr(module, "METRICS", ())}
