"""The family of a checkpoint named alone, told by its files: config.json, an ONNX graph, the hub's library tag."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from encsel.core import EncoderFamily, Runtime, Spec
from encsel.errors import EncoderFailed, UsageError
from encsel.loading.hub import download
from encsel.loading.spec import is_hub_id
from encsel.storage.folders import expanded

MARKS = ("*.json", "*.yaml", "README.md")
"""Files of a repository on the hub that tell what its checkpoint is."""
_TAG = re.compile(r"^library_name:\s*[\"']?([\w.-]+)", re.MULTILINE)
_LIKELY = {
    "face": (("*.onnx", "onnx"), ("*.pt", "torchscript"), ("*", "hf"), ("*", "timm")),
    "voice": (("*.onnx", "onnx"), ("*.pt", "torchscript"), ("*.ckpt", "ecapa"), ("*", "hf"), ("*", "ecapa")),
}
"""Families that files of a name make likely, the likeliest first."""


def recognised(spec: Spec, runtime: Runtime, families: Sequence[EncoderFamily]) -> Spec:
    """A spec whose checkpoint was named alone, with its family.

    Args:
        families: all of them, or those of the modality if it is known.
    Raises:
        EncoderFailed: no such folder, file or repository, or no family recognises it.
        UsageError: families of both modalities recognise it.
    """
    assert spec.checkpoint is not None
    place = _place(spec.checkpoint, spec.options.get("revision"), runtime)
    found = [f for f in families if f.recognises is not None and f.recognises(place)]
    found = [f for f in found if not f.is_general] or found
    if len({f.modality for f in found}) > 1:
        raise UsageError(f"{spec} may be a face or a voice encoder. Say which, with --modality.")
    if len(found) == 1:
        return replace(spec, family=found[0].name, modality=found[0].modality)
    likely = [f.name for f in found] or _likely(place, families)
    names = " or ".join(f"{name}:{spec.checkpoint}" for name in likely[:2])
    what = "several families read it" if found else "its files do not tell what it is"
    raise EncoderFailed(f"{what}. Say its family: most likely {names}.")


def library_of(folder: Path) -> str:
    """The library that a repository of the hub is for, as the tag in its README says; empty if there is none."""
    try:
        found = _TAG.search((folder / "README.md").read_text("utf-8", "replace")[:10_000])
    except OSError:
        return ""
    return found[1].lower() if found else ""


def _place(checkpoint: str, revision: str | None, runtime: Runtime) -> Path:
    """The folder or file on this machine; of a repository, at least the files that tell what it is."""
    if is_hub_id(checkpoint):
        return download(checkpoint, revision, MARKS, runtime)
    path = expanded(checkpoint)
    if path is None or not path.exists():
        raise EncoderFailed(f"there is no folder or file {checkpoint}. Give one, or ORG/NAME on the Hugging Face hub.")
    return path


def _likely(place: Path, families: Sequence[EncoderFamily]) -> list[str]:
    known = {(f.modality, f.name) for f in families if f.open is not None}
    tag = library_of(place)
    names = [name for _, name in sorted(known) if name == tag]
    for modality, guesses in _LIKELY.items():
        for pattern, name in guesses:
            is_there = pattern == "*" or (any(place.rglob(pattern)) if place.is_dir() else place.match(pattern))
            if is_there and (modality, name) in known and name not in names:
                names.append(name)
    return names
