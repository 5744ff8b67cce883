"""The worker: a process that opens, loads and runs one encoder for another process, and ends with it.

Whatever the encoder does (exit, crash, hang, print, run out of memory) affects this process only. Samples come in,
vectors go out; what `prepare` made of a sample stays here until it is embedded.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import numpy as np

from encsel.core import Model, Runtime, Vectors
from encsel.embedding.channel import Channel, Message
from encsel.errors import EncoderFailed, UnusableSample
from encsel.loading.registry import checked_spec, open_encoders
from encsel.progress import stderr_disarmed
from encsel.storage.streams import guard

BOOT = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from encsel.embedding.worker import main
main()
"""
"""Program of a worker; its argument is the list of folders that modules are imported from."""
UNUSABLE, MEMORY, FAILED = "unusable", "memory", "failed"


def main() -> NoReturn:
    """Serve the process that this one is connected to by stdin and stdout."""
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process decides what is interrupted
    channel = Channel(os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb"))
    # What native code prints on these two goes to stderr, and nothing is read.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    guard()
    try:
        order, _ = channel.receive()
        with stderr_disarmed(), contextlib.redirect_stdout(sys.stderr):
            _Worker(channel, order).serve()
    except (EOFError, OSError, ValueError):  # the other process is gone
        pass
    os._exit(0)


def _end_with_parent() -> None:
    """Be killed when the parent ends, even while native code hangs, if the system can do that (Linux)."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class _Worker:
    """One loaded encoder. Messages are read in a thread; the main thread loads and embeds, a pool prepares."""

    def __init__(self, channel: Channel, order: Message) -> None:
        self._channel, self._order = channel, order
        self._prepared: dict[int, Any] = {}
        self._batches: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(order["threads"])

    def serve(self) -> None:
        number = self._order["id"]
        try:
            model, facts = self._load()
        except BaseException as error:
            return self._fail(number, error)
        self._model = model
        self._channel.send({"id": number, **facts})
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            self._embed(self._batches.get())

    def _load(self) -> tuple[Model, Message]:
        runtime = Runtime(**self._order["runtime"])
        first = open_encoders(checked_spec(self._order["spec"], self._order["modality"]), runtime, signing="look")[0]
        model = first.load()
        torch = sys.modules.get("torch")
        on_gpu = torch is not None and torch.cuda.is_available()
        facts = {"folder": str(first.folder), "revision": first.revision, "code": dict(first.code), "on_gpu": on_gpu}
        return model, facts

    def _read(self) -> None:
        try:
            while True:
                message, arrays = self._channel.receive()
                if "prepare" in message:
                    self._pool.submit(self._prepare, message["id"], arrays[0])
                elif "embed" in message:
                    self._batches.put(message)
                else:
                    for key in message["drop"]:
                        del self._prepared[key]
        except BaseException:  # the other process is gone
            os._exit(0)

    def _prepare(self, number: int, sample: Any) -> None:
        try:
            prepared = self._model.prepare(sample)
            self._prepared[number] = prepared
            facts = {"shape": list(np.shape(prepared)), "nbytes": getattr(prepared, "nbytes", 0)}
        except BaseException as error:
            return self._fail(number, error)
        self._channel.send({"id": number, **facts})

    def _embed(self, message: Message) -> None:
        try:
            batch = [self._prepared[key] for key in message["embed"]]
            vectors = checked(self._model.embed(batch), len(batch), self._order["taps"], self._order["dim"])
        except BaseException as error:
            return self._fail(message["id"], error)
        self._channel.send({"id": message["id"]}, [vectors])

    def _fail(self, number: int, error: BaseException) -> None:
        kind = UNUSABLE if isinstance(error, UnusableSample) else MEMORY if out_of_memory(error) else FAILED
        text = named(error) if kind == FAILED else str(error)
        self._channel.send({"id": number, "error": kind, "text": text})


def checked(vectors: Any, n: int, taps: int, dim: int) -> Vectors:
    """The output of an encoder if it is (n, at least taps, dim) floats; else EncoderFailed."""
    vectors = np.asarray(vectors)
    fits = vectors.ndim == 3 and vectors.shape[::2] == (n, dim) and vectors.shape[1] >= taps
    if not fits or vectors.dtype.kind != "f":
        shape = (*vectors.shape[:1], *vectors.shape[2:])
        raise EncoderFailed(
            f"it returned {vectors.dtype} of shape {shape} for {n} samples; "
            f"floats of shape ({n}, {dim}) were declared. Fix the encoder."
        )
    return vectors


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception of any library says that memory ran out."""
    # torch on CUDA; torch on the CPU and onnxruntime; cuBLAS. They share no class.
    words = ("out of memory", "allocate memory", "alloc_failed")
    return isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in words)


def named(error: BaseException) -> str:
    """An exception in one line."""
    return str(error) if isinstance(error, EncoderFailed) else f"{type(error).__name__}: {error}"
