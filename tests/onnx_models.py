"""Tiny ONNX models with known output, in insightface's format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from insightface.utils.face_align import arcface_dst
from onnx import TensorProto, helper, numpy_helper

from encsel.loading.onnx_tiny import onnx_model, tiny_detector

Box = tuple[float, float, float, float]


def write_channel_means(path: Path, *, batch: int | str = "n", side: int = 112, n_outputs: int = 1) -> Path:
    """A recognition model whose embedding is the mean of each channel of its input, exact to float32."""
    nodes = [
        helper.make_node("Cast", ["image"], ["exact"], to=TensorProto.DOUBLE),
        helper.make_node("ReduceMean", ["exact"], ["means"], axes=[2, 3], keepdims=0),
    ]
    names = [f"embedding{i}" for i in range(n_outputs)]
    nodes += [helper.make_node("Cast", ["means"], [name], to=TensorProto.FLOAT) for name in names]
    model = onnx_model(nodes, ("image", [batch, 3, side, side]), [(name, [batch, 3]) for name in names])
    onnx.save(model, path)
    return path


def write_detector(path: Path, faces: list[Box], *, in_black_corner: bool = False, with_points: bool = True) -> Path:
    """A detector that finds these faces in every image, or only in images whose top left pixel is dark."""
    model = tiny_detector(faces)
    graph = model.graph
    if in_black_corner:
        starts, ends, zero = (numpy_helper.from_array(np.array(v), n) for v, n in (
            ([0, 0, 0, 0], "starts"), ([1, 1, 1, 1], "ends"), (np.float32(0), "zero")))  # fmt: skip
        graph.initializer.extend([starts, ends, zero])
        (scores,) = (node for node in graph.node if node.output[0] == "score32")
        scores.output[0] = "all_scores"
        graph.node.extend(
            [
                helper.make_node("Slice", ["image", "starts", "ends"], ["corner"]),
                helper.make_node("Less", ["corner", "zero"], ["is_dark"]),
                helper.make_node("Cast", ["is_dark"], ["dark"], to=TensorProto.FLOAT),
                helper.make_node("Reshape", ["dark", "one"], ["factor"]),
                helper.make_node("Mul", ["all_scores", "factor"], ["score32"]),
            ]
        )
        graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    if not with_points:
        for i in reversed(range(len(graph.output))):
            if graph.output[i].name.startswith("points"):
                del graph.output[i]
    onnx.save(model, path)
    return path


def write_bright_cell_detector(path: Path) -> Path:
    """A detector of any input size, as the real ones are: each white cell of 32 x 32 is a face.

    The face's box is 64 x 64 about the cell's upper left corner.
    """
    points = (arcface_dst / 112 * 64 - 32) / 32
    nodes, outputs, weights = [], [], []
    for kind, row in {"score": [0.0], "box": [1.0] * 4, "points": points.ravel().tolist()}.items():
        for stride in (8, 16, 32):
            name, kernel = f"{kind}{stride}", np.zeros((2 * len(row), 3, stride, stride), np.float32)
            bias = np.tile(np.float32(row), 2)  # two anchors a cell
            if kind == "score":
                kernel += 1 / (3 * stride**2)
                bias -= np.float32(0 if stride == 32 else 9)
            weights += [
                numpy_helper.from_array(value, f"{name}_{what}")
                for what, value in (("kernel", kernel), ("bias", bias), ("shape", np.array([-1, len(row)])))
            ]
            kernel_and_bias = [f"{name}_kernel", f"{name}_bias"]
            nodes += [
                helper.make_node("Conv", ["image", *kernel_and_bias], [f"{name}_map"], strides=[stride, stride]),
                helper.make_node("Transpose", [f"{name}_map"], [f"{name}_last"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}_last", f"{name}_shape"], [name]),
            ]
            outputs.append((name, [f"n{stride}", len(row)]))
    onnx.save(onnx_model(nodes, ("image", [1, 3, "height", "width"]), outputs, weights), path)
    return path
