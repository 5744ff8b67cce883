"""Run a model in this process, or in a worker, whose crash, exit or hang affects only that encoder."""

import gc
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from encsel.core import Encoder, Vectors
from encsel.embedding.channel import Channel, Message
from encsel.embedding.worker import BOOT, MEMORY, UNUSABLE, checked
from encsel.errors import EncoderFailed, UnusableSample
from encsel.loading.hub import sha256_of


class Engine(Protocol):
    """A place where one encoder runs."""

    on_gpu: bool

    def load(self) -> None:
        """Load the encoder; EncoderFailed, or whatever it raises, if it does not load."""

    def prepare(self, sample: Any) -> Any:
        """Prepare a sample for `embed`; the result has a shape. Called from several threads; raises as `Model`."""

    def embed(self, batch: Sequence[Any]) -> Vectors:
        """(samples, taps, dim) of prepared samples; MemoryError when memory runs out."""

    def drop(self, batch: Sequence[Any]) -> None:
        """Forget prepared samples."""

    def close(self) -> None:
        """Free the model."""


def engine_of(encoder: Encoder, taps: int, n_threads: int, folder: Path | None = None) -> Engine:
    """The engine, not loaded, of an encoder whose model has at least `n_taps` taps.

    Args:
        folder: where relative paths of the encoder start from; None: the current folder.
    """
    return _Here(encoder, taps) if encoder.runtime is None else _Worker(encoder, taps, n_threads, folder)


def check_files(encoder: Encoder, folder: Path | None = None) -> None:
    """Raise EncoderFailed if a file of the encoder changed since it was hashed: the loaded model may differ, too."""
    if encoder.folder is None:
        return
    for name, sha256 in {**encoder.weights, **encoder.files}.items():
        path = (folder or Path()) / encoder.folder / name
        if sha256 and (not path.is_file() or sha256_of(path) != sha256):
            raise EncoderFailed(
                f"{name} changed while it was being loaded. Run again when nothing writes to {path.parent}."
            )


class _Here:
    """A model in this process. It cannot write into the samples, which other encoders share."""

    def __init__(self, encoder: Encoder, taps: int) -> None:
        self._encoder, self._taps, self.on_gpu = encoder, taps, False
        self._model: Any = None

    def load(self) -> None:
        self._model = self._encoder.load()
        torch = sys.modules.get("torch")
        self.on_gpu = torch is not None and torch.cuda.is_available()

    def prepare(self, sample: NDArray[Any]) -> Any:
        view = sample.view()
        view.flags.writeable = False
        return self._model.prepare(view)

    def embed(self, batch: Sequence[Any]) -> Vectors:
        return checked(self._model.embed(batch), len(batch), self._taps, self._encoder.dim)

    def drop(self, batch: Sequence[Any]) -> None:
        pass

    def close(self) -> None:
        self._model = None
        gc.collect()  # some layers of torch hold each other in circles
        if self.on_gpu:
            sys.modules["torch"].cuda.empty_cache()


@dataclass(frozen=True)
class _Prepared:
    """A prepared sample that is in the worker."""

    number: int
    shape: tuple[int, ...]
    nbytes: int

    def __len__(self) -> int:
        return self.shape[0]


class _Worker:
    """A model in a separate process."""

    def __init__(self, encoder: Encoder, taps: int, n_threads: int, folder: Path | None) -> None:
        assert encoder.runtime is not None
        # What was found, hashed and signed off is opened again, without a network and without hashing it again.
        runtime = replace(
            encoder.runtime, offline=True, hash_weights=False, cache=None, backend="local", scheduler=None
        )
        self._order = {
            "spec": encoder.shares or encoder.spec, "modality": encoder.modality, "runtime": asdict(runtime),
            "taps": taps, "dim": encoder.dim, "threads": n_threads,
        }  # fmt: skip
        self._opened, self.on_gpu = (str(encoder.folder), encoder.revision, dict(encoder.code)), False
        self._numbers = count()
        self._waiting: dict[int, Future[tuple[Message, list[NDArray[Any]]]]] = {}
        self._lock, self._end = threading.Lock(), ""
        # -P: no module of the current folder takes the place of one that the program imports before it has its path.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOT, json.dumps(sys.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=folder, start_new_session=True, creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._channel = Channel(self._process.stdout, self._process.stdin)
        threading.Thread(target=self._receive, name="encsel-answers", daemon=True).start()

    def load(self) -> None:
        facts, _ = self._call(self._order)
        if (facts["folder"], facts["revision"], facts["code"]) != self._opened:
            raise EncoderFailed(
                "its weights or its code were replaced while it was being opened, or differ between machines. Run "
                "again when nothing writes to them."
            )
        self.on_gpu = facts["on_gpu"]

    def prepare(self, sample: NDArray[Any]) -> _Prepared:
        number = next(self._numbers)
        facts, _ = self._call({"prepare": True}, [sample], number)
        return _Prepared(number, tuple(facts["shape"]), facts["nbytes"])

    def embed(self, batch: Sequence[_Prepared]) -> Vectors:
        _, (vectors,) = self._call({"embed": [one.number for one in batch]})
        return vectors

    def drop(self, batch: Sequence[_Prepared]) -> None:
        with suppress(OSError, ValueError):
            self._channel.send({"drop": [one.number for one in batch]})

    def close(self) -> None:
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError, ValueError, AttributeError):
                pipe.close()  # type: ignore[union-attr]

    def _call(
        self, message: Message, arrays: Sequence[NDArray[Any]] = (), number: int | None = None
    ) -> tuple[Message, list[NDArray[Any]]]:
        """Send a message and wait for the answer; raise what the worker reports, or why it ended."""
        number = next(self._numbers) if number is None else number
        future: Future[tuple[Message, list[NDArray[Any]]]] = Future()
        with self._lock:
            self._waiting[number] = future
            if self._end:
                raise EncoderFailed(self._end)
        with suppress(OSError, ValueError):  # it is gone: `_receive` gives the reason
            self._channel.send({**message, "id": number}, arrays)
        answer, content = future.result()
        if error := answer.get("error"):
            kind = {UNUSABLE: UnusableSample, MEMORY: MemoryError}.get(error, EncoderFailed)
            raise kind(answer["text"])
        return answer, content

    def _receive(self) -> None:
        """Pass each answer to the thread that waits for it, until the worker ends."""
        try:
            while True:
                answer, arrays = self._channel.receive()
                self._waiting.pop(answer["id"]).set_result((answer, arrays))
        except (EOFError, OSError, ValueError, KeyError):
            pass
        with suppress(OSError):
            self._process.kill()
        reason = _end(self._process.wait())
        with self._lock:
            self._end = reason
            for future in self._waiting.values():
                future.set_exception(EncoderFailed(reason))


def _end(code: int) -> str:
    """Describe how a process ended."""
    if code >= 0:
        return f"its process exited (exit code {code}). Fix the encoder."
    name = next((s.name for s in signal.Signals if s == -code), str(-code))
    cause = "; it may have run out of memory" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{cause}. Fix the encoder, or run it elsewhere."
