"""onnx: any face model in an ONNX file; the size, layout and number type of its input are read from the graph."""

from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.errors import EncoderFailed
from encsel.loading import pictures_in
from encsel.loading.checkpoint import encoder_of
from encsel.loading.hub import hashes_of
from encsel.loading.onnx_files import data_files, find_onnx, has_input_axes, read_graph
from encsel.loading.onnx_run import OnnxModel, check_dtype, dim_of, facts_of
from encsel.loading.onnx_tiny import tiny_projection

LIBRARIES = ("onnxruntime",)


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    check_dtype(runtime)
    path, commit = find_onnx(spec, runtime)
    graph = read_graph(path)
    if len(graph.inputs) != 1:
        names = ", ".join(f"{value.name} {value}" for value in graph.inputs)
        raise EncoderFailed(f"{path.name} takes {names}; one input is needed, the picture. Export it again.")
    weights = hashes_of([path, *data_files(graph)], runtime)
    picture = pictures_in.picture_input(spec, runtime, graph.inputs[0], white=graph.white)

    def run() -> OnnxModel:
        return OnnxModel(graph, runtime.device)

    encoder = encoder_of(
        ENCODER,
        spec,
        dim=dim_of(graph, lambda: run().embed([picture.blank()])),
        load=lambda: picture.model(run().embed, runtime.device),
        revision=commit,
        weights=weights,
        folder=path.parent,
        preprocessing={**facts_of(graph), **picture.facts},
        libraries=tuple(dict.fromkeys((*LIBRARIES, *picture.libraries))),
        flags=picture.flags,
    )
    return (encoder,)


def write_tiny(folder: Path) -> str:
    import onnx

    onnx.save(tiny_projection(), folder / "face.onnx")
    return f"onnx:{folder}"


ENCODER = EncoderFamily(
    name="onnx",
    modality="face",
    dim=0,
    version=1,
    licence="that of the file",
    source="Any ONNX file that turns a picture of a face into a vector.",
    libraries=LIBRARIES,
    needs=("onnxruntime", "onnx"),
    recognises=lambda path: has_input_axes(path, 4),
    options=("revision", *pictures_in.OPTIONS),
    open=open_,
    write_tiny=write_tiny,
)
