"""Find encoder families, in `encsel.encoders` or in entry points of third parties, and open their encoders."""

import contextlib
import importlib
import logging
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from encsel.core import MODALITIES, EmbedBatch, Encoder, EncoderFamily, Modality, Runtime, Spec, Vectors
from encsel.errors import EncoderFailed, NotHere, UsageError, first_line, nearest
from encsel.extras import missing
from encsel.loading.checkpoint import encoder_of
from encsel.loading.code import code_hash
from encsel.loading.deadline import Deadline
from encsel.loading.recognise import recognised
from encsel.loading.signoff import Signing, signed_off
from encsel.loading.spec import parse

ENCODER_GROUP = "encsel.encoders"
LOGGER = logging.getLogger(__name__)
FUNCTIONS = "py"
IN_WORKERS = True
"""Whether encoders with weights and plug-ins run in a process of their own each."""
_code_of: dict[str, Mapping[str, str]] = {}
"""By name of a family of third parties: its distribution with version, and the SHA-256 of its code."""


@cache
def encoder_families() -> tuple[EncoderFamily, ...]:
    """All encoder families: the files of `encsel.encoders`, then entry points of third parties.

    Two have one name only if one is for faces and one for voices.

    Raises:
        EncoderFailed: a plug-in does not import, is not a valid EncoderFamily, or has a name in use.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(importlib.import_module("encsel.encoders").__path__))
    modules = [importlib.import_module(f"encsel.encoders.{name}") for name in names]
    families = [module.ENCODER for module in modules]
    n_of_encsel = len(families)
    for point in entry_points(group=ENCODER_GROUP):
        where = f"The encoder plug-in {point.name!r} ({point.value})"
        try:
            with foreign_code():
                family = point.load()
        except (Exception, SystemExit) as error:
            raise EncoderFailed(f"{where} does not import: {first_line(error)}. Fix or uninstall it.") from error
        if problem := problem_of(family):
            raise EncoderFailed(f"{where} {problem}. Fix or uninstall it.")
        in_use = {f.name for f in families[:n_of_encsel]}
        in_use |= {f.name for f in families[n_of_encsel:] if f.modality == family.modality and f is not family}
        if family.name in in_use:
            raise EncoderFailed(f"{where} has the name {family.name!r}, which is in use. Rename or uninstall it.")
        if family not in families:
            families.append(family)
        distribution = f"{point.dist.name} {point.dist.version}" if point.dist else ""
        _code_of[family.name] = {"distribution": distribution, "sha256": code_hash(point.module)}
    return tuple(families)


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


def problem_of(family: object) -> str | None:
    """The problem with a plug-in's description, or None."""
    if not isinstance(family, EncoderFamily):
        return f"is a {type(family).__name__}; it must be an encsel.core.EncoderFamily"
    if family.modality not in MODALITIES:
        return f"has the modality {family.modality!r}; it must be one of {', '.join(MODALITIES)}"
    least = 1 if family.has_default else 0
    if not isinstance(family.dim, int) or family.dim < least:
        return f"has dim {family.dim!r}; it must be a whole number of at least {least}"
    if (family.load is None) == (family.open is None):
        return "must give either load or open"
    for key, value in family.preprocessing.items():
        if not isinstance(value, str | int | float):
            return f"describes its preprocessing {key!r} by a {type(value).__name__}; it must be text or a number"
    return None


def encoder_family(name: str, modality: Modality | None = None) -> EncoderFamily:
    """The encoder family of that name, in any case of letters, and of that modality.

    Raises:
        UsageError: there is none, with the nearest; or there are two and no modality was given.
    """
    families = encoder_families()
    named = [f for f in families if f.name == name] or [f for f in families if f.name.lower() == name.lower()]
    fitting = [f for f in named if modality in (None, f.modality)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"{name} reads faces and voices. Say which, with --modality.")
    kind, of_modality = modality or "face or voice", [f.name for f in families if modality in (None, f.modality)]
    if named:
        other = named[0].modality
        raise UsageError(f"{name!r} is a {other} encoder; give it with --{other}. {nearest(name, of_modality)}")
    raise UsageError(
        f"No {kind} encoder is named {name!r}. {nearest(name, of_modality)} A checkpoint is ORG/NAME on the Hugging "
        "Face hub, or a path such as ./FOLDER or FILE.onnx."
    )


def checked_spec(text: str, modality: Modality | None = None) -> Spec:
    """Parse an encoder's name and check it against its family; nothing is opened or loaded.

    The family of a checkpoint that is named alone is found when it is opened.

    Raises:
        UsageError: bad syntax, unknown family, or a checkpoint or option the family does not take.
    """
    spec = replace(parse(text), modality=modality)
    if not spec.family:
        return spec
    try:
        family = encoder_family(spec.family, modality)
    except UsageError:
        # A folder of this machine, if its name can mean nothing else.
        if spec.checkpoint is None and all(f.name.lower() != spec.family.lower() for f in encoder_families()):
            path = Path(spec.family)
            if path.exists():
                return replace(spec, family="", checkpoint=spec.family, alone=True)
        raise
    spec = replace(spec, family=family.name, modality=family.modality)
    check_against(family, spec)
    return spec


def check_against(family: EncoderFamily, spec: Spec) -> None:
    """Raise UsageError for a checkpoint, or an option, that the family does not take, or a checkpoint that it needs."""
    if spec.checkpoint is not None and family.open is None:
        raise UsageError(f"{spec}: {family.name} has no checkpoints. Leave out {':' + spec.checkpoint!r}.")
    if spec.checkpoint is None and not family.has_default:
        raise UsageError(f"{spec}: {family.name} has no default. Name a checkpoint: {family.name}:CHECKPOINT_OR_PATH.")
    for key in spec.options:
        if key not in family.options:
            raise UsageError(f"{spec}: {family.name} takes no {key!r}. It takes: {', '.join(family.options)}.")


def open_encoders(spec: Spec, runtime: Runtime, *, signing: Signing = "check") -> tuple[Encoder, ...]:
    """Open the encoders of a checked spec: find, hash and check the weights (`signing`), load nothing.

    Raises:
        UsageError: an option that this family, or a value that this model, does not have.
        EncoderFailed: weights missing, damaged, refused, late or not those signed off, not recognised, or any error of
            `family.open`.
    """
    deadline = Deadline(runtime.timeout)
    with _blamed(spec), contextlib.closing(deadline):
        if not spec.family:
            of_modality = [f for f in encoder_families() if spec.modality in (None, f.modality)]
            spec = deadline.call(recognised, spec, runtime, of_modality)
        return open_family(encoder_family(spec.family, spec.modality), spec, runtime, deadline, signing=signing)


def open_family(
    family: EncoderFamily, spec: Spec, runtime: Runtime, deadline: Deadline | None = None, *, signing: Signing = "check"
) -> tuple[Encoder, ...]:
    """As `open_encoders`, for a family that need not be registered."""
    with _blamed(spec):
        check_against(family, spec)
        if lacking := missing(family.needs):
            raise NotHere(lacking)
        if family.open is None:
            assert family.load is not None  # problem_of rejects plug-ins with neither
            load = family.load
            return (_set_apart(encoder_of(family, spec, load=lambda: Plain(load())), runtime),)
        with foreign_code():
            runtime = replace(runtime, dtype=spec.options.get("dtype", runtime.dtype))
            opened = (deadline or Deadline(None)).call(family.open, spec, runtime)
        opened = tuple(_set_apart(encoder, runtime) for encoder in opened)
        if family.name == FUNCTIONS:  # what a function reads is the user's
            return opened
        # Without hashes there is nothing to check: the caller only looks around.
        return signed_off(spec, family.checkpoint, opened, signing if runtime.hash_weights else "look")


@contextlib.contextmanager
def _blamed(spec: Spec) -> Iterator[None]:
    """Turn whatever is raised into an EncoderFailed that names the encoder, once; a UsageError stays."""
    prefix = "The encoder "
    try:
        yield
    except UsageError:
        raise
    except EncoderFailed as error:
        if str(error).startswith(prefix):
            raise
        LOGGER.debug("%s could not be opened", spec, exc_info=error)
        raise type(error)(f"{prefix}{spec}: {error}") from error
    except (Exception, SystemExit) as error:
        LOGGER.debug("%s could not be opened", spec, exc_info=error)
        raise EncoderFailed(f"{prefix}{spec}: {type(error).__name__}: {first_line(error)}") from error


def _set_apart(encoder: Encoder, runtime: Runtime) -> Encoder:
    """The encoder with the hash of a plug-in's code, to be run in a process of its own unless it is of encsel alone."""
    code = {**_code_of.get(encoder.family, {}), **encoder.code}
    is_foreign = bool(code or encoder.weights)
    return replace(encoder, code=code, runtime=runtime if is_foreign and IN_WORKERS else None)


class Plain:
    """A batch function as a Model without preparation and with one tap."""

    def __init__(self, embed: EmbedBatch) -> None:
        self._embed = embed

    def prepare(self, sample: Any) -> Vectors:
        return sample

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        vectors = np.asarray(self._embed(batch))
        return vectors[:, None] if vectors.ndim else vectors
