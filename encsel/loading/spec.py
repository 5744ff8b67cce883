"""The text that names an encoder: FAMILY[:CHECKPOINT_OR_DIR][@key=value,...]."""

from __future__ import annotations

from encsel.core import SPEC_OPTIONS, Spec
from encsel.errors import UsageError, nearest, printable

DTYPES = ("float32", "bfloat16", "float16")
GRAMMAR = "FAMILY[:CHECKPOINT_OR_DIR][@key=value,...] with " + ", ".join(SPEC_OPTIONS)
MAX_NAME_BYTES = 200
_FORBIDDEN_IN_NAMES = frozenset('/\\:*?"<>|\0')


def parse(text: str) -> Spec:
    """The spec that `text` means.

    Raises:
        UsageError: not of the grammar, an unknown or repeated key, an empty part, or an unknown dtype.
    """

    def refuse(what: str) -> UsageError:
        return UsageError(f"The encoder {text!r} {what}. An encoder is {GRAMMAR}.")

    head, options = text, {}
    before, at, tail = text.rpartition("@")
    # A folder may hold an @; options are what follows the last one, if it has an equals sign.
    if at and "=" in tail:
        head = before
        for part in tail.split(","):
            key, equals, value = part.partition("=")
            if key not in SPEC_OPTIONS:
                raise UsageError(f"The encoder {text!r} has the unknown key {key!r}. {nearest(key, SPEC_OPTIONS)}")
            if not equals or not value or value != value.strip():
                raise refuse(f"gives {key} no value")
            if key in options:
                raise refuse(f"gives {key} twice")
            options[key] = value
    family, colon, checkpoint = head.partition(":")
    if not family or family != family.strip() or "@" in family:
        raise refuse("names no family")
    if colon and not checkpoint.strip():
        raise refuse("has a colon and no checkpoint after it")
    if "dtype" in options and options["dtype"] not in DTYPES:
        raise refuse(f"asks for dtype {options['dtype']!r}; known: {', '.join(DTYPES)}")
    layer = options.get("layer", "last")
    if layer not in ("last", "all") and not (layer.isascii() and layer.isdigit() and len(layer) < 5):
        raise refuse(f"asks for layer {layer!r}; a number from 0, 'last' or 'all' is needed")
    name = options.get("name", "")
    if set(name) & _FORBIDDEN_IN_NAMES or name.startswith(".") or printable(name) != name:
        raise refuse(f"has the name {name!r}, which cannot be a file's name")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise refuse(f"has a name of {len(name.encode())} bytes; {MAX_NAME_BYTES} are the most a file's name can have")
    return Spec(family, checkpoint if colon else None, options)
