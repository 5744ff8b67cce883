"""Checkpoints of transformers found, hashed and described as encoders, with nothing loaded; tiny ones for tests."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.errors import EncoderFailed
from encsel.loading.hub import Snapshot, find_snapshot, read_json
from encsel.storage.files import read_whole


def encoder_of(family: EncoderFamily, spec: Spec, **facts: Any) -> Encoder:
    """Describe an encoder; `facts` replace those of its family and spec.

    What the family says about its default checkpoint is said of no other.
    """
    is_default = spec.checkpoint in (None, family.checkpoint)
    elsewhere = f"see the source of {PurePath(spec.checkpoint or '').name}"
    general = {
        "name": spec.name, "modality": family.modality, "dim": family.dim, "spec": str(spec), "family": family.name,
        "version": family.version, "licence": family.licence if is_default else elsewhere,
        "source": family.source if is_default else elsewhere,
        "trained_on": family.trained_on if is_default else "", "preprocessing": family.preprocessing,
        "libraries": family.libraries, "shares": str(spec),
    }  # fmt: skip
    return Encoder(**{**general, **facts})


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of transformers on this machine; `processor` holds the saved settings of its processor."""

    family: EncoderFamily
    spec: Spec
    runtime: Runtime
    snapshot: Snapshot
    config: Mapping[str, Any]
    processor: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.spec.checkpoint or str(self.family.checkpoint)

    def encoder(
        self, *, preprocessing: Mapping[str, Any], spec: Spec | None = None, flags: Sequence[str] = (), **facts: Any
    ) -> Encoder:
        """Describe an encoder of this checkpoint, opened by `spec`, with `facts` as for `encoder_of`."""
        common = {
            "dtype": self.runtime.dtype,
            "weights": "pickle, weights_only" if self.snapshot.pickled else "safetensors",
        }
        return encoder_of(
            self.family, spec or self.spec, preprocessing={**common, **preprocessing}, folder=self.snapshot.folder,
            revision=self.snapshot.revision, weights=self.snapshot.weights, files=self.snapshot.files,
            flags=(*flags, "pickled weights") if self.snapshot.pickled else tuple(flags), **facts,
        )  # fmt: skip


def open_checkpoint(
    family: EncoderFamily, spec: Spec, runtime: Runtime, *, model_types: Sequence[str], processor: str
) -> Checkpoint:
    """Find the checkpoint of a spec, or the family's default, hash its weights and read its configuration.

    Args:
        model_types: values of `model_type` in config.json that the family reads.
        processor: part of processor_config.json with the settings of the processor.
    Raises:
        EncoderFailed: not found, of another architecture, without a processor, or what `find_snapshot` raises.
    """
    assert family.checkpoint is not None
    name = spec.checkpoint or family.checkpoint
    snapshot = find_snapshot(spec, family.checkpoint, runtime)
    config = snapshot.config()
    if "transformers_weights" in config:
        raise EncoderFailed(
            f"{name} names other weights in config.json (transformers_weights), which encsel does not read. Save the "
            "model again."
        )
    if (model_type := config.get("model_type")) not in model_types:
        raise EncoderFailed(
            f"{name} has the architecture {model_type!r}; {family.name} reads {' or '.join(model_types)}. "
            "Choose a checkpoint of such an architecture."
        )
    # transformers reads those in processor_config.json first, where newer versions save them.
    nested, path = snapshot.folder / "processor_config.json", snapshot.folder / "preprocessor_config.json"
    settings = read_json(nested).get(processor) if nested.is_file() else None
    if not isinstance(settings, dict):
        if not path.is_file():
            raise EncoderFailed(
                f"{name} has no preprocessor_config.json, which defines how samples are prepared. "
                "Copy it from the source of the checkpoint."
            )
        settings = read_json(path)
    return Checkpoint(family, spec, runtime, snapshot, config, settings)


def configured(folder: Path, name: str = "config.json") -> Mapping[str, Any]:
    """A configuration in a folder; empty if there is none, or it is damaged."""
    try:
        config = json.loads(read_whole(folder / name))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def is_of_types(folder: Path, model_types: Sequence[str], *, but_for: Sequence[str] = ()) -> bool:
    """Whether config.json names one of these model types, and no architecture that ends in one of `but_for`."""
    config = configured(folder)
    architectures = config.get("architectures") or []
    return config.get("model_type") in model_types and not any(
        str(a).endswith(end) for a in architectures for end in but_for
    )


def save_tiny(folder: Path, class_name: str, config: Mapping[str, Any], processor: Any) -> None:
    """Write a model of a transformers class with reproducible random weights, and its processor, into a folder."""
    import torch
    import transformers

    model_class = getattr(transformers, class_name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(model_class.config_class(**config))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
