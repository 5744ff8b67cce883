"""Small ONNX models for tests: a detector that finds known faces, and random projections."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def tiny_projection() -> Any:
    """A model of aligned faces of 112 x 112 pixels: a random projection of coarse pixels to 16 values."""
    return _projection(
        """
        tiny (float[n, 3, 112, 112] image) => (float[n, 16] embedding) {
            small = AveragePool <kernel_shape = [16, 16], strides = [16, 16]> (image)
            flat = Flatten (small)
            embedding = MatMul (flat, weights)
        }
    """,
        7 * 7 * 3,
    )


def tiny_fbank_model() -> Any:
    """A model of voices: a random projection of how far 80 features rise above their mean, to 16 values."""
    return _projection(
        """
        tiny (float[n, frames, 80] features) => (float[n, 16] embedding) {
            above = Relu (features)
            level = ReduceMean <axes = [1], keepdims = 0> (above)
            embedding = MatMul (level, weights)
        }
    """,
        80,
    )


def _projection(graph: str, n_rows: int) -> Any:
    """The model of a graph in text, and the matrix `weights` (n_rows, 16) that it multiplies by."""
    import onnx.numpy_helper
    import onnx.parser

    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> {graph}')
    weights = np.random.default_rng(0).normal(size=(n_rows, 16)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    return model


def tiny_detector(faces: Sequence[tuple[float, float, float, float]]) -> Any:
    """An ONNX detector of 128 x 128 pixels that finds upright faces in these x1 y1 x2 y2 boxes of every image."""
    from insightface.utils.face_align import arcface_dst
    from onnx import helper, numpy_helper

    nodes: list[Any] = []
    outputs: list[tuple[str, list[int | str]]] = []
    n_anchors = {stride: 2 * (128 // stride) ** 2 for stride in (8, 16, 32)}
    arrays = {(kind, s): np.zeros((n, width), np.float32)
              for kind, width in (("score", 1), ("box", 4), ("points", 10)) for s, n in n_anchors.items()}  # fmt: skip
    for row, (x1, y1, x2, y2) in enumerate(faces):
        anchor = 32.0 * np.array([row // 2 % 4, row // 2 // 4])
        points = np.array([x1, y1]) + arcface_dst / 112 * np.array([x2 - x1, y2 - y1])
        arrays["score", 32][row] = 0.9
        arrays["box", 32][row] = np.concatenate([anchor - (x1, y1), np.array([x2, y2]) - anchor]) / 32
        arrays["points", 32][row] = ((points - anchor) / 32).ravel()
    for (kind, stride), array in arrays.items():
        name = f"{kind}{stride}"
        nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
        outputs.append((name, list(array.shape)))
    return onnx_model(nodes, ("image", [1, 3, 128, 128]), outputs)


def onnx_model(
    nodes: list[Any],
    image: tuple[str, list[int | str]],
    outputs: Sequence[tuple[str, list[int | str]]],
    weights: Sequence[Any] = (),
) -> Any:
    """An ONNX model with one image input; all values are float."""
    from onnx import TensorProto, helper

    def value(name: str, shape: list[int | str]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(nodes, "tiny", [value(*image)], [value(*output) for output in outputs], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
