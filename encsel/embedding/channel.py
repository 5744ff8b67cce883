"""Messages between a process and its worker: a JSON object and arrays, never a pickle."""

import json
import struct
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Message = dict[str, Any]


class Channel:
    """A two-way connection between processes; several threads may send, one receives."""

    def __init__(self, reading: IO[bytes], writing: IO[bytes]) -> None:
        self._reading, self._writing, self._sending = reading, writing, threading.Lock()

    def send(self, message: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
        """Send a message with arrays of numbers; OSError or ValueError if the other process is gone."""
        header = json.dumps({**message, "arrays": [[array.dtype.str, array.shape] for array in arrays]}).encode()
        with self._sending:
            self._writing.write(struct.pack("<Q", len(header)) + header)
            for array in arrays:
                self._writing.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            self._writing.flush()

    def receive(self) -> tuple[Message, list[NDArray[Any]]]:
        """The next message; EOFError if the other process is gone."""
        (size,) = struct.unpack("<Q", self._read(bytearray(8)))
        message = json.loads(self._read(bytearray(size)))
        arrays = []
        for dtype, shape in message.pop("arrays"):
            array = np.empty(shape, np.dtype(dtype))
            self._read(array.reshape(-1).view(np.uint8).data)
            arrays.append(array)
        return message, arrays

    def _read(self, into: Any) -> Any:
        rest = memoryview(into)
        while len(rest):
            if not (n := self._reading.readinto(rest)):  # type: ignore[attr-defined]
                raise EOFError
            rest = rest[n:]
        return into
