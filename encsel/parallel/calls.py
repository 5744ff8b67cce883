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
N_PARTS = 256
"""Number of large arguments that are remembered for the next calls."""


class Shared:
    """An array, or bytes, on its way: wherever it arrives, an array is aligned in memory.

    Dask delivers arrays at any address. numpy then multiplies copies of them, which moves last digits.
    """

    def __init__(self, value: Any) -> None:
        self.value = value if isinstance(value, bytes) or value.flags.aligned else value.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return Shared, (self.value,)

    def __sizeof__(self) -> int:
        """Bytes that the value takes, by which Dask manages its memory."""
        return len(self.value) if isinstance(self.value, bytes) else int(self.value.nbytes)


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
        self._pickler(file, handles).dump(value)
        if len(file.getbuffer()) <= SHARED_BYTES:
            return file.getvalue(), handles
        key = next(self._keys)
        handles[key] = self.cluster.share(Shared(file.getvalue()))
        self._parts[id(value)] = value, key, handles
        if len(self._parts) > N_PARTS:
            self._parts.popitem(last=False)
        return key, handles

    def _pickler(self, file: io.BytesIO, handles: dict[int, Any]) -> Any:
        import numpy as np

        packer = self

        class Pickler(self.cluster.pickler):  # type: ignore[name-defined]
            def persistent_id(self, value: Any) -> int | None:
                if type(value) not in (np.ndarray, np.memmap) or value.nbytes <= SHARED_BYTES or value.dtype.hasobject:
                    return None
                key, handle = packer._shared(value)
                handles[key] = handle
                return key

        return Pickler(file)

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
) -> tuple[Any, Exception | None]:
    """On a worker: the result of a call, or what it raised."""
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
        return function(*arguments, **options), None
    except Exception as error:
        return None, error


def same(value: Any) -> Any:
    """A value that is computed on a worker where it was lost with another."""
    return value
