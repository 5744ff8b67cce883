"""Parse the text that names an encoder: FAMILY[:CHECKPOINT_OR_DIR][@key=value,...]."""

from encsel.core import SPEC_OPTIONS, Spec
from encsel.errors import UsageError, nearest, printable

DTYPES = ("float32", "bfloat16", "float16")
GRAMMAR = "FAMILY[:CHECKPOINT_OR_DIR][@key=value,...] with " + ", ".join(SPEC_OPTIONS)
MAX_NAME_BYTES = 200
_FORBIDDEN_IN_NAMES = frozenset('/\\:*?"<>|\0')


def parse(text: str) -> Spec:
    """Parse an encoder's name.

    Raises:
        UsageError: bad syntax, an unknown or repeated key, an empty part, or an invalid value.
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
            if key not in SPEC_OPTIONS:
                raise UsageError(f"The encoder {text!r} has the unknown key {key!r}. {nearest(key, SPEC_OPTIONS)}")
            if not equals or not value or value != value.strip():
                raise invalid(f"gives {key} no value")
            if key in options:
                raise invalid(f"gives {key} twice")
            options[key] = value
    family, colon, checkpoint = head.partition(":")
    if not family or family != family.strip() or "@" in family:
        raise invalid("names no family")
    if colon and not checkpoint.strip():
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
    return Spec(family, checkpoint if colon else None, options)
