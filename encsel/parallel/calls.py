"""Calls as bytes: large arrays and arguments are sent to a cluster once, and calls refer to them."""

import functools
import io
import itertools
import platform
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from encsel.errors import UsageError
from encsel.parallel.cluster import Cluster
from encsel.storage.signature import LIBRARIES, library_versions
from encsel.threads import one_thread
from encsel.version import __version__

Call = tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]
"""Function, arguments and options, as `joblib.delayed` makes it."""

SHARED_BYTES = 1 << 16
"""Size above which an array or an argument is sent once."""
MAX_SPREAD = 64
"""Largest ratio of the memory that an array with its strides takes to that of its values."""
N_PARTS = 256
"""Number of large arguments that are remembered for the next calls."""


class Shared:
    """An array, or bytes, on its way: an array arrives aligned in memory and with its strides.

    Dask delivers arrays at any address, and pickles have no strides; either moves last digits of products and sums.
    """

    def __init__(self, value: Any, strides: tuple[int, ...] | None = None) -> None:
        is_fine = isinstance(value, bytes) or (strides in (None, value.strides) and value.flags.aligned)
        self.value = value if is_fine else placed(value, strides or value.strides)

    def __reduce__(self) -> tuple[Any, ...]:
        return Shared, (self.value, None if isinstance(self.value, bytes) else self.value.strides)

    def __sizeof__(self) -> int:
        """Bytes that the value takes, by which Dask manages its memory."""
        return len(self.value) if isinstance(self.value, bytes) else int(self.value.nbytes)


def placed(values: Any, strides: tuple[int, ...]) -> Any:
    """A copy of an array with these strides, unless that would take far more memory than its values."""
    import numpy as np

    steps = [(n - 1) * stride for n, stride in zip(values.shape, strides, strict=True)]
    n_bytes = sum(map(abs, steps)) + values.itemsize
    if not values.size or n_bytes > MAX_SPREAD * max(values.nbytes, SHARED_BYTES):
        return values.copy()
    start = -sum(min(step, 0) for step in steps)
    array: Any = np.ndarray(values.shape, values.dtype, np.empty(n_bytes, np.uint8).data, start, strides)
    array[...] = values
    return array


def pickler(file: io.BytesIO, refer: Callable[[Any], int | None] = lambda value: None) -> Any:
    """A pickler of functions and of arrays with their strides; `refer` gives the key of what is left out."""
    import numpy as np

    try:
        from cloudpickle import Pickler
    except ImportError:
        from ray.cloudpickle import Pickler

    class WithStrides(Pickler):
        def persistent_id(self, value: Any) -> int | None:
            return refer(value)

        def reducer_override(self, value: Any) -> Any:
            if type(value) is np.ndarray and not value.flags.forc and not value.dtype.hasobject:
                return placed, (np.ascontiguousarray(value), value.strides)
            return super().reducer_override(value)

    return WithStrides(file)


def pickled(value: Any) -> bytes:
    """A value as bytes; raises whatever pickling raises."""
    file = io.BytesIO()
    pickler(file).dump(value)
    return file.getvalue()


class Packer:
    """Pickles calls. Large arrays and arguments go to the cluster once, as long as the same object is used."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        # By identity of an array: a weak reference to it, its key and its handle. Keys are not reused; identities are.
        self._arrays: dict[int, tuple[Any, int, Any]] = {}
        self._keys = itertools.count()
        self._parts: OrderedDict[int, tuple[Any, int, dict[int, Any]]] = OrderedDict()

    def packed(self, call: Call) -> tuple[Any, ...]:
        """Arguments of `answer`."""
        function, arguments, options = call
        parts, handles = [], dict[int, Any]()
        for value in (function, *arguments, options):
            part, referred = self._part(value)
            parts.append(part)
            handles |= referred
        # Handles are arguments of their own: clusters look for them only there.
        return versions(), parts, list(handles), *handles.values()

    def _part(self, value: Any) -> tuple[bytes | int, dict[int, Any]]:
        """A value as bytes, or as the key of shared bytes, and the handles that it needs by key."""
        if (known := self._parts.get(id(value))) is not None and known[0] is value:
            self._parts.move_to_end(id(value))
            return known[1], known[2]
        file, handles = io.BytesIO(), dict[int, Any]()
        pickler(file, lambda one: self._reference(one, handles)).dump(value)
        if len(file.getbuffer()) <= SHARED_BYTES:
            return file.getvalue(), handles
        key = next(self._keys)
        handles[key] = self.cluster.share(Shared(file.getvalue()))
        self._parts[id(value)] = value, key, handles
        if len(self._parts) > N_PARTS:
            self._parts.popitem(last=False)
        return key, handles

    def _reference(self, value: Any, handles: dict[int, Any]) -> int | None:
        """The key of a large array, whose handle is added to `handles`."""
        import numpy as np

        if type(value) not in (np.ndarray, np.memmap) or value.nbytes <= SHARED_BYTES or value.dtype.hasobject:
            return None
        key, handle = self._shared(value)
        handles[key] = handle
        return key

    def _shared(self, array: Any) -> tuple[int, Any]:
        """Key and handle of an array."""
        import numpy as np

        identity, arrays = id(array), self._arrays
        if identity not in arrays or arrays[identity][0]() is not array:

            def forget(reference: Any) -> None:
                if identity in arrays and arrays[identity][0] is reference:
                    del arrays[identity]

            arrays[identity] = (
                weakref.ref(array, forget),
                next(self._keys),
                self.cluster.share(Shared(np.asarray(array))),
            )
        return arrays[identity][1:]


@functools.cache
def versions() -> dict[str, Any]:
    """Versions, on this machine, of what a result depends on."""
    return {"encsel": __version__, "Python": platform.python_version_tuple()[:2], **library_versions(LIBRARIES)}


def answer(
    made_with: Mapping[str, Any], parts: Sequence[bytes | int], keys: Sequence[int], *shared: Shared
) -> tuple[bytes | None, Exception | None]:
    """On a worker: the result of a call, pickled, or what it raised."""
    import pickle

    values = {key: one.value for key, one in zip(keys, shared, strict=True)}

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, key: int) -> Any:
            return values[key]

    try:
        if (here := versions()) != made_with:
            differing = ", ".join(f"{k} {here.get(k)} instead of {v}" for k, v in made_with.items() if here.get(k) != v)
            raise UsageError(f"The worker {platform.node()} has {differing}. Install the same versions everywhere.")
        contents = [values[part] if isinstance(part, int) else part for part in parts]
        function, *arguments, options = [Unpickler(io.BytesIO(content)).load() for content in contents]
        one_thread()  # for good: tasks in other threads of this process would have it lifted too early
        return pickled(function(*arguments, **options)), None
    except Exception as error:
        return None, error


def same(value: Any) -> Any:
    """A value that is computed on a worker where it was lost with another."""
    return value
