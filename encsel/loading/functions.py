"""Python functions and torch modules as encoders: given from Python, or named py:FILE.py:NAME or py:MODULE:NAME."""

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from encsel.core import SAMPLING_RATE, Encoder, EncoderFamily, Modality, Model, Runtime, Spec, Vectors
from encsel.errors import EncoderFailed, UsageError, first_line, nearest
from encsel.loading.checkpoint import encoder_of
from encsel.loading.code import code_hash
from encsel.loading.hub import hashes_of, torch_device
from encsel.storage.folders import expanded

GRAMMAR = "py:FILE.py:NAME or py:PACKAGE.MODULE:NAME"


@dataclass(frozen=True)
class FunctionEncoder:
    """A Python function, or a torch module with a transform, as an encoder.

    A function takes a list of samples and returns (samples, dim) floats; a row of NaN says that it cannot use a sample.
    Samples are faces, (height, width, 3) uint8 RGB, or voices, (frames,) float32 at 16 kHz, of 0.1 to 5 seconds.

    Attributes:
        function: the function, or a torch.nn.Module.
        name: in reports; empty: its __name__.
        transform: makes of one sample what the function gets in its place; may raise UnusableSample. Called from
            several threads. For a torch module it must return arrays or tensors, which are stacked.
        dim: of its vectors; None: it is run once on a made-up sample when it is opened.
        version: change it whenever the vectors change. Without it, nothing that is given from Python is cached.
        space: encoders of one joint space compare by plain cosine, across modalities.
        files: weights and whatever else the vectors depend on; their hashes are part of the cache key.
        libraries: packages whose version can change the vectors.
        equal_lengths: give it only samples of one shape at a time, as torch modules always get them.
    """

    function: Callable[..., Any]
    name: str = ""
    transform: Callable[[Any], Any] | None = None
    dim: int | None = None
    version: str = ""
    space: str | None = None
    files: Sequence[str | Path] = ()
    libraries: Sequence[str] = ()
    licence: str = "not stated"
    trained_on: str = ""
    equal_lengths: bool = False

    @property
    def is_module(self) -> bool:
        """Whether it is a torch module; torch is not imported to find out."""
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(self.function, torch.nn.Module)


def function_family(modality: Modality) -> EncoderFamily:
    """The family `py` for one modality."""

    def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
        assert spec.checkpoint is not None
        given, code = named_object(spec.checkpoint)
        encoder = encoder_of_function(as_function(given, spec.checkpoint), family, spec, runtime)
        return (replace(encoder, code={**encoder.code, **code}),)

    family = EncoderFamily(
        name="py",
        modality=modality,
        dim=0,
        version=1,
        licence="as its author states",
        source="A function of yours, py:FILE.py:NAME or py:PACKAGE.MODULE:NAME.",
        options=("name", "dtype"),
        open=open_,
        write_tiny=_write_tiny,
    )
    return family


def from_python(given: Any, modality: Modality, runtime: Runtime) -> Encoder:
    """The encoder of a callable, module or FunctionEncoder that was given from Python. It runs in this process.

    Raises:
        UsageError: not a callable, or a module without a transform.
        EncoderFailed: it does not run on a made-up sample.
    """
    function = as_function(given, type(given).__name__)
    name = function.name or getattr(function.function, "__name__", type(function.function).__name__).strip("<>")
    spec = Spec("py", None, {"name": name}, modality=modality)
    family = function_family(modality)
    try:
        encoder = encoder_of_function(function, family, spec, runtime)
    except EncoderFailed as error:
        raise EncoderFailed(f"The encoder {name}: {error}") from error
    code = {"version": function.version} if function.version else {"source": _source_hash(function.function)}
    return replace(encoder, spec=f"py:{name}", shares=f"py:{name}", code=code, is_cached=bool(function.version))


def as_function(given: Any, where: str) -> FunctionEncoder:
    """A FunctionEncoder of what was given; UsageError if it is none and cannot be one."""
    if isinstance(given, FunctionEncoder):
        function = given
    elif callable(given) and not inspect.isclass(given):
        function = FunctionEncoder(given)
    else:
        raise UsageError(f"{where} is a {type(given).__name__}; a function or an encsel.FunctionEncoder is needed.")
    if function.is_module and function.transform is None:
        raise UsageError(
            f"{where} is a torch module, which needs a transform from a sample to its input: "
            "encsel.FunctionEncoder(module, transform=...)."
        )
    return function


def encoder_of_function(function: FunctionEncoder, family: EncoderFamily, spec: Spec, runtime: Runtime) -> Encoder:
    """Describe the encoder of a function; errors as `from_python`."""

    def load() -> Model:
        return _Module(function, runtime) if function.is_module else _Function(function)

    files = [Path(file) for file in function.files]
    if absent := [file for file in files if not file.is_file()]:
        raise EncoderFailed(f"it names the file {absent[0]}, which is not there.")
    if "dtype" in spec.options and not function.is_module:
        raise UsageError(f"{spec}: a function has no dtype; it returns what it returns. Leave it out.")
    dim = _tried(load, family.modality) if function.dim is None else function.dim
    facts = {"transform": function.transform is not None, "dtype": runtime.dtype if function.is_module else "float32"}
    return encoder_of(
        family,
        spec,
        dim=dim,
        licence=function.licence,
        source="a Python function",
        trained_on=function.trained_on,
        space=function.space,
        load=load,
        weights=hashes_of(files, runtime),
        code={"version": function.version} if function.version else {},
        preprocessing=facts,
        libraries=tuple(function.libraries) + (("torch",) if function.is_module else ()),
        equal_lengths=function.equal_lengths or function.is_module,
    )


class _Function:
    def __init__(self, function: FunctionEncoder) -> None:
        self._function, self._transform = function.function, function.transform

    def prepare(self, sample: Any) -> Any:
        return sample if self._transform is None else self._transform(sample)

    def embed(self, batch: Sequence[Any]) -> Vectors:
        vectors = np.asarray(self._function(list(batch)))
        return vectors[:, None] if vectors.ndim == 2 else vectors


class _Module:
    """A torch module on the runtime's device."""

    def __init__(self, function: FunctionEncoder, runtime: Runtime) -> None:
        import torch

        self._device, self._dtype = torch_device(runtime.device), getattr(torch, runtime.dtype)
        self._module: Any = function.function.to(self._device, self._dtype).eval()  # type: ignore[attr-defined]
        self._transform = function.transform

    def prepare(self, sample: Any) -> Vectors:
        assert self._transform is not None
        return np.ascontiguousarray(self._transform(np.array(sample)))

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        import torch

        with torch.inference_mode():
            stacked = torch.from_numpy(np.stack(batch)).to(self._device)
            output = self._module(stacked.to(self._dtype) if stacked.is_floating_point() else stacked)
            if not torch.is_tensor(output):
                raise EncoderFailed(
                    f"it returned {type(output).__name__}; a tensor of shape (samples, dim) is needed. Wrap the module."
                )
            return output.float().cpu().numpy()[:, None]


def _tried(load: Callable[[], Model], modality: Modality) -> int:
    """The dimension of a model's vectors, from one made-up sample."""
    rng = np.random.default_rng(0)
    sample: Any = rng.integers(0, 256, (160, 160, 3), dtype=np.uint8)
    if modality == "voice":
        sample = (0.1 * rng.normal(size=2 * SAMPLING_RATE)).astype(np.float32)
    try:
        model = load()
        vectors = np.asarray(model.embed([model.prepare(sample)]))
    except (Exception, SystemExit) as error:
        raise EncoderFailed(
            f"it fails on a made-up sample ({type(error).__name__}: {first_line(error)}). Repair it, or state the size "
            "of its vectors: encsel.FunctionEncoder(function, dim=...)."
        ) from error
    if vectors.ndim != 3 or len(vectors) != 1 or not vectors.shape[2]:
        shape = (*vectors.shape[:1], *vectors.shape[2:]) if vectors.ndim == 3 else vectors.shape
        raise EncoderFailed(f"it returned shape {shape} for one sample; (1, dim) is needed. Repair it.")
    return int(vectors.shape[2])


def named_object(text: str) -> tuple[Any, dict[str, str]]:
    """What FILE.py:NAME or PACKAGE.MODULE:NAME names, and the hash of the code it is in.

    Raises:
        UsageError: another form of text.
        EncoderFailed: it does not import, or has no such name.
    """
    place, _, name = text.rpartition(":")
    if not place or not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"py:{text} names no function. Syntax: {GRAMMAR}.")
    try:
        if place.endswith(".py"):
            path = expanded(place)
            if path is None or not path.is_file():
                raise EncoderFailed(f"there is no file {place}. Syntax: {GRAMMAR}.")
            code = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            module: Any = _module_of(path.resolve(), code["sha256"])
        else:
            with _current_folder():
                module = importlib.import_module(place)
                code = {"module": place, "sha256": code_hash(place)}
    except EncoderFailed:
        raise
    except (Exception, SystemExit) as error:
        raise EncoderFailed(
            f"{place} does not import ({type(error).__name__}: {first_line(error)}). Fix it."
        ) from error
    try:
        return functools.reduce(getattr, name.split("."), module), code
    except AttributeError as error:
        known = [n for n in vars(module) if not n.startswith("_")]
        raise EncoderFailed(f"{place} has no {name!r}. {nearest(name, known)}") from error


@functools.cache
def _module_of(path: Path, sha256: str) -> Any:
    """The module in a file, run once as long as it does not change."""
    name = f"encsel_py_{path.stem}_{sha256[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look it up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    """Import from the current folder, too, after all other places."""
    sys.path.append("")
    try:
        yield
    finally:
        sys.path.remove("")


def _source_hash(function: Any) -> str:
    """A hash of a function's source, or of its bytecode; empty if it has neither."""
    try:
        text = inspect.getsource(function).encode()
    except (OSError, TypeError):
        text = getattr(getattr(function, "__code__", None), "co_code", b"")
    return hashlib.sha256(text).hexdigest() if text else ""


def _write_tiny(folder: Path) -> str:
    (folder / "tiny.py").write_text(_TINY, encoding="utf-8")
    return f"py:{folder / 'tiny.py'}:embed"


_TINY = """\
import numpy as np


def embed(samples):
    return np.stack([np.histogram(sample, bins=8, density=True)[0] + np.mean(sample) for sample in samples])
"""
