"""ONNX models that run in onnxruntime: which output is the embedding, how many samples at once, which number types."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import Runtime, Vectors
from encsel.errors import EncoderFailed
from encsel.loading.onnx_files import OnnxGraph, Value, open_session
from encsel.loading.vectors_out import Shape, beyond_one, in_parts, vectors_of

FLOATS = ("float32", "float16", "float64")


def check_dtype(runtime: Runtime) -> None:
    """Raise EncoderFailed for a number type other than the default: an ONNX file runs in its own."""
    if runtime.dtype != "float32":
        raise EncoderFailed(
            f"ONNX models run in the number types of their file (float32, for most), not in {runtime.dtype}. "
            "Add @dtype=float32 to the encoder."
        )


def embedding_output(graph: OnnxGraph) -> Value:
    """The output with the embedding: the only one, or the only one of fixed shape (N, dim)."""
    floats = [o for o in graph.outputs if o.kind in FLOATS]
    if len(graph.outputs) == 1:
        fitting = [o for o in floats if _may_be_vector(o.shape)]
    else:
        fitting = [o for o in floats if len(beyond_one(o.shape)) == 1 and None not in beyond_one(o.shape)]
    if len(fitting) != 1:
        raise EncoderFailed(
            f"{graph.path.name} gives {', '.join(f'{o.name} {o}' for o in graph.outputs)}; one output of floats of "
            "shape (N, dim) is needed, besides axes of length 1. Export it with its embedding as the output."
        )
    return fitting[0]


def _may_be_vector(shape: Shape) -> bool:
    """Whether a shape may turn out to be (N, dim): the graph may state none, or axes that are of length 1 later."""
    further = beyond_one(shape)
    return not shape or 1 <= len(further) <= further.count(None) + 1


def facts_of(graph: OnnxGraph) -> dict[str, str | int | float | bool]:
    """How the graph is run, in words."""
    return {"backend": "onnxruntime", "dtype": graph.inputs[0].kind, "output": embedding_output(graph).name}


class OnnxModel:
    """A session that turns arrays into vectors.

    Args:
        lengths: the input that takes the number of values along `axis` of each sample, if the model has one.
    """

    def __init__(self, graph: OnnxGraph, device: str, *, lengths: Value | None = None, axis: int = 1) -> None:
        self._graph, self._output, self._lengths, self._axis = graph, embedding_output(graph).name, lengths, axis
        self._session = open_session(graph.path, device, threads=os.cpu_count() or 1)

    def embed(self, batch: Sequence[NDArray[Any]]) -> Vectors:
        """(samples, 1, dim) float32 of prepared samples of one shape."""
        first = self._graph.inputs[0]
        return in_parts(self._run, np.stack(batch).astype(first.kind), first.shape[0])[:, None]

    def _run(self, batch: NDArray[Any]) -> Vectors:
        values = {self._graph.inputs[0].name: batch}
        if self._lengths is not None:
            values[self._lengths.name] = np.full(len(batch), batch.shape[self._axis], self._lengths.kind)
        (output,) = self._session.run([self._output], values)
        return vectors_of([output], len(batch))


def dim_of(graph: OnnxGraph, embed_blank: Callable[[], Vectors]) -> int:
    """Values of an embedding, from the graph where it tells, else from what the model makes of a blank sample."""
    shape = beyond_one(embedding_output(graph).shape)
    if len(shape) == 1 and shape[0] is not None:
        return shape[0]
    return int(embed_blank().shape[2])
