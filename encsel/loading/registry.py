"""Find encoder families, in `encsel.encoders` or in entry points of third parties, and open their encoders."""

import contextlib
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from encsel.core import MODALITIES, EmbedBatch, Encoder, EncoderFamily, Modality, Runtime, Spec, Vectors
from encsel.errors import EncoderFailed, UsageError, first_line, nearest
from encsel.loading.checkpoint import encoder_of
from encsel.loading.deadline import Deadline
from encsel.loading.signoff import Signing, signed_off
from encsel.loading.spec import parse

ENCODER_GROUP = "encsel.encoders"
CODE_SUFFIXES = frozenset({".py", ".so", ".pyd", ".dylib", ".dll"})
IN_WORKERS = True
"""Whether encoders with weights and plug-ins run in a process of their own each."""
_code_of: dict[str, Mapping[str, str]] = {}
"""By name of a family of third parties: its distribution with version, and the SHA-256 of its code."""


@cache
def encoder_families() -> dict[str, EncoderFamily]:
    """All encoder families by name: the files of `encsel.encoders`, then entry points of third parties.

    Raises:
        EncoderFailed: a plug-in does not import, is not a valid EncoderFamily, or has a name in use.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(importlib.import_module("encsel.encoders").__path__))
    modules = [importlib.import_module(f"encsel.encoders.{name}") for name in names]
    families = {module.ENCODER.name: module.ENCODER for module in modules}
    for point in entry_points(group=ENCODER_GROUP):
        where = f"The encoder plug-in {point.name!r} ({point.value})"
        try:
            with foreign_code():
                family = point.load()
        except (Exception, SystemExit) as error:
            raise EncoderFailed(f"{where} does not import: {first_line(error)}. Fix or uninstall it.") from error
        if problem := _problem(family):
            raise EncoderFailed(f"{where} {problem}. Fix or uninstall it.")
        if families.setdefault(family.name, family) is not family:
            raise EncoderFailed(f"{where} has the name {family.name!r}, which is in use. Rename or uninstall it.")
        distribution = f"{point.dist.name} {point.dist.version}" if point.dist else ""
        _code_of[family.name] = {"distribution": distribution, "sha256": _code_hash(point)}
    return families


@contextlib.contextmanager
def foreign_code() -> Iterator[None]:
    """Around code of others in this process: what it prints goes to stderr, and it cannot end the process."""

    process = os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:  # a process that this code forked ends itself
            before(status)
        raise SystemExit(f"it called os._exit({status})")

    before, os._exit = os._exit, refuse
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os._exit = before


def _code_hash(point: EntryPoint) -> str:
    """SHA-256 of the files of the outermost package, or of the module, that a plug-in is in."""
    parts = point.module.split(".")
    code = hashlib.sha256()
    for depth in range(1, len(parts) + 1):
        spec = importlib.util.find_spec(".".join(parts[:depth]))
        if spec is None or spec.origin is None:  # a namespace, which may hold packages of others
            continue
        root = Path(spec.origin)
        files = [p for p in root.parent.rglob("*") if p.suffix in CODE_SUFFIXES] if root.stem == "__init__" else [root]
        for path in sorted(files):
            code.update(path.relative_to(root.parent).as_posix().encode() + b"\0")
            code.update(hashlib.sha256(path.read_bytes()).digest())
        break
    return code.hexdigest()


def _problem(family: object) -> str | None:
    """The problem with a plug-in's description, or None."""
    if not isinstance(family, EncoderFamily):
        return f"is a {type(family).__name__}; it must be an encsel.core.EncoderFamily"
    if family.modality not in MODALITIES:
        return f"has the modality {family.modality!r}; it must be one of {', '.join(MODALITIES)}"
    if not isinstance(family.dim, int) or family.dim < 1:
        return f"has dim {family.dim!r}; it must be a whole number of at least 1"
    if (family.load is None) == (family.open is None):
        return "must give either load or open"
    for key, value in family.preprocessing.items():
        if not isinstance(value, str | int | float):
            return f"describes its preprocessing {key!r} by a {type(value).__name__}; it must be text or a number"
    return None


def encoder_family(name: str, modality: Modality) -> EncoderFamily:
    """The encoder family of that name and modality; UsageError names the nearest."""
    families = encoder_families()
    of_modality = [f.name for f in families.values() if f.modality == modality]
    if name not in families:
        raise UsageError(f"No {modality} encoder is named {name!r}. {nearest(name, of_modality)}")
    if families[name].modality != modality:
        other = families[name].modality
        raise UsageError(f"{name!r} is a {other} encoder; give it with --{other}. {nearest(name, of_modality)}")
    return families[name]


def checked_spec(text: str, modality: Modality) -> Spec:
    """Parse an encoder's name and check it against its family; nothing is opened or loaded.

    Raises:
        UsageError: bad syntax, unknown family, or a checkpoint or option the family does not take.
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
    """Open the encoders of a checked spec: find, hash and check the weights (`signing`), load nothing.

    Raises:
        UsageError: an option value this model does not have, such as a layer.
        EncoderFailed: weights missing, damaged, refused, late or not those signed off, or any error of `family.open`.
    """
    family = encoder_families()[spec.family]
    if family.open is not None:
        deadline = Deadline(runtime.timeout)
        try:
            with foreign_code():
                runtime = replace(runtime, dtype=spec.options.get("dtype", runtime.dtype))
                opened = deadline.call(family.open, spec, runtime)
            opened = tuple(_set_apart(encoder, runtime) for encoder in opened)
            # Without hashes there is nothing to check: the caller only looks around.
            return signed_off(spec, family.checkpoint, opened, signing if runtime.hash_weights else "look")
        except EncoderFailed as error:
            raise type(error)(f"The encoder {spec}: {error}") from error
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            raise EncoderFailed(f"The encoder {spec}: {type(error).__name__}: {error}") from error
        finally:
            deadline.close()
    assert family.load is not None  # _problem rejects plug-ins with neither
    load = family.load
    return (_set_apart(encoder_of(family, spec, load=lambda: _Plain(load())), runtime),)


def _set_apart(encoder: Encoder, runtime: Runtime) -> Encoder:
    """The encoder with the hash of a plug-in's code, to be run in a process of its own unless it is of encsel alone."""
    code = _code_of.get(encoder.family, {})
    is_foreign = bool(code or encoder.weights)
    return replace(encoder, code=code, runtime=runtime if is_foreign and IN_WORKERS else None)


class _Plain:
    """A batch function as a Model without preparation and with one tap."""

    def __init__(self, embed: EmbedBatch) -> None:
        self._embed = embed

    def prepare(self, sample: Any) -> Vectors:
        return sample

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        vectors = np.asarray(self._embed(batch))
        return vectors[:, None] if vectors.ndim else vectors
