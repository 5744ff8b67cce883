"""Finds encoders and metrics: one file each in their package, or a third party's entry point."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType

from encsel.core import MODALITIES, EncoderFamily, Metric, Modality
from encsel.errors import EncoderFailed, UsageError, nearest

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
        except Exception as error:
            raise EncoderFailed(f"{where} does not import: {error}. Repair or uninstall it.") from error
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
    odd = [key for key, value in family.preprocessing.items() if not isinstance(value, str | int | float)]
    if odd:
        kind = type(family.preprocessing[odd[0]]).__name__
        return f"describes its preprocessing {odd[0]!r} by a {kind}; text or a number is needed"
    return None


def encoder_family(name: str, modality: Modality) -> EncoderFamily:
    """The encoder of that name and modality.

    Raises:
        UsageError: no such encoder; names the nearest.
    """
    families = encoder_families()
    of_modality = [f.name for f in families.values() if f.modality == modality]
    if name not in families:
        raise UsageError(f"No {modality} encoder is named {name!r}. {nearest(name, of_modality)}")
    if families[name].modality != modality:
        other = families[name].modality
        raise UsageError(f"{name!r} is a {other} encoder; give it with --{other}. {nearest(name, of_modality)}")
    return families[name]


@cache
def metrics() -> dict[str, Metric]:
    """Every metric by name, from the files of `encsel.metrics`."""
    return {metric.name: metric for module in _modules("encsel.metrics") for metric in module.METRICS}
