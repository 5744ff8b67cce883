"""Parse the text that names an encoder: [FAMILY:]CHECKPOINT_OR_PATH[@key=value,...], or a family alone."""

import re
from pathlib import Path, PurePath

from encsel.core import Modality, Spec
from encsel.errors import UsageError, printable

DTYPES = ("float32", "bfloat16", "float16")
GRAMMAR = "[FAMILY:]CHECKPOINT_OR_PATH[@key=value,...], or FAMILY[@key=value,...]"
FILE_SUFFIXES = frozenset({".onnx", ".pt", ".pth", ".ts", ".torchscript", ".ckpt", ".safetensors", ".bin"})
"""Of files with models or weights: a text that ends so is a path."""
MAX_NAME_BYTES = 200
_FORBIDDEN_IN_NAMES = frozenset('/\\:*?"<>|\0')
_FAMILY = re.compile(r"[A-Za-z][\w-]+")  # at least two characters: C: is a drive
_KEY = re.compile(r"[a-z][a-z0-9_]*")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def parse(text: str) -> Spec:
    """Parse an encoder's name. The family of a checkpoint that is named alone is left empty.

    Raises:
        UsageError: bad syntax, a repeated key, an empty part, or an invalid value.
    """

    def invalid(problem: str) -> UsageError:
        return UsageError(f"The encoder {text!r} {problem}. Syntax: {GRAMMAR}.")

    head, options = text, {}
    before, at, tail = text.rpartition("@")
    # A folder name may contain @: options follow the last one, and contain an equals sign.
    if at and "=" in tail:
        head = before
        for part in tail.split(","):
            key, equals, value = part.partition("=")
            if not _KEY.fullmatch(key):
                raise invalid(f"has {key!r} where a key is needed")
            if not equals or not value or value != value.strip():
                raise invalid(f"gives {key} no value")
            if key in options:
                raise invalid(f"gives {key} twice")
            options[key] = value
    if not head or head != head.strip():
        raise invalid("names no encoder")
    family, colon, checkpoint = head.partition(":")
    alone = not _FAMILY.fullmatch(family) or (not colon and is_path(head))
    if alone:
        if colon and not is_path(head):
            raise invalid("names no family before the colon")
        family, checkpoint = "", head
    elif colon and not checkpoint.strip():
        raise invalid("has a colon but no checkpoint after it")
    if "dtype" in options and options["dtype"] not in DTYPES:
        raise invalid(f"has the dtype {options['dtype']!r}; it must be one of {', '.join(DTYPES)}")
    layer = options.get("layer", "last")
    if layer not in ("last", "all") and not (layer.isascii() and layer.isdigit() and len(layer) < 5):
        raise invalid(f"has the layer {layer!r}; it must be a number from 0, 'last' or 'all'")
    name = options.get("name", "")
    if set(name) & _FORBIDDEN_IN_NAMES or name.startswith(".") or printable(name) != name:
        raise invalid(f"has the name {name!r}, which cannot be a file name")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise invalid(f"has a name of {len(name.encode())} bytes; the maximum is {MAX_NAME_BYTES}")
    return Spec(family, checkpoint or None, options, alone=alone)


def is_path(text: str) -> bool:
    """Whether a text names a folder or file whatever is on this machine, and never a repository of the hub."""
    return (
        text in (".", "..", "~")
        or text.startswith(("./", "../", "/", "~"))
        or "\\" in text
        or _DRIVE.match(text) is not None
        or PurePath(text).suffix.lower() in FILE_SUFFIXES
        or text.count("/") > 1
    )


def is_hub_id(text: str) -> bool:
    """Whether a text is ORG/NAME of a repository on the hub, even if a folder here has that name."""
    return _HUB_ID.fullmatch(text) is not None and not is_path(text)


def namesake(spec: Spec, modality: Modality) -> str | None:
    """A note where a folder has the name of what a spec stands for, which is something else."""
    meant = spec.checkpoint or spec.family
    # A path with a separator says that it is one; a bare name is a family or a pack.
    if not (is_hub_id(meant) or spec.checkpoint is None) or not Path(meant).exists():
        return None
    what = "the repository on the hub" if spec.checkpoint else f"the {modality} encoder"
    family = "" if spec.alone or spec.checkpoint is None else f"{spec.family}:"
    return f"{meant} is taken as {what}; for the folder here, name it {family}./{meant}"
