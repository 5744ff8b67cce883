"""The memory that all decoding threads share."""

import contextlib
import threading
from collections.abc import Iterator


class Memory:
    """Bytes that threads reserve before they use them, and wait for while others hold them."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes, self.in_use = n_bytes, 0
        self._changed = threading.Condition()
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def reserved(self, n_bytes: int) -> Iterator[None]:
        """Hold `n_bytes`, or everything if that is more than there is; not to be nested, which could deadlock."""
        n_bytes = min(n_bytes, self.n_bytes)
        # Threads wait in order, so that small samples do not overtake a large one for ever.
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self.in_use + n_bytes <= self.n_bytes)
            self.in_use += n_bytes
        try:
            yield
        finally:
            with self._changed:
                self.in_use -= n_bytes
                self._changed.notify_all()


DECODING_MEMORY = Memory(640 << 20)
"""Enough for the largest picture and, with samples waiting to be embedded, less than 1 GB in total."""
