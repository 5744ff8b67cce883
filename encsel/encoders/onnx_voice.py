"""onnx: any voice model in an ONNX file that takes samples or filterbank features, told from the shape of its input."""

from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.errors import EncoderFailed
from encsel.loading import clips_in
from encsel.loading.checkpoint import encoder_of
from encsel.loading.hub import hashes_of
from encsel.loading.onnx_files import OnnxGraph, Value, data_files, find_onnx, has_input_axes, read_graph
from encsel.loading.onnx_run import OnnxModel, check_dtype, dim_of, facts_of
from encsel.loading.onnx_tiny import tiny_fbank_model

LIBRARIES = ("onnxruntime",)


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    check_dtype(runtime)
    path, commit = find_onnx(spec, runtime)
    graph = read_graph(path)
    lengths = _lengths(graph)
    weights = hashes_of([path, *data_files(graph)], runtime)
    clip = clips_in.clip_input(spec, graph.inputs[0], toolkit=graph.properties.get("framework", ""))

    def run() -> OnnxModel:
        return OnnxModel(graph, runtime.device, lengths=lengths, axis=clip.time_axis)

    encoder = encoder_of(
        ENCODER,
        spec,
        dim=dim_of(graph, lambda: run().embed([clip.blank()])),
        load=lambda: clip.model(run().embed),
        revision=commit,
        weights=weights,
        folder=path.parent,
        preprocessing={**facts_of(graph), **clip.facts, **({"second input": "lengths"} if lengths else {})},
        libraries=(*LIBRARIES, *clip.libraries),
        equal_lengths=True,
    )
    return (encoder,)


def _lengths(graph: OnnxGraph) -> Value | None:
    """The second input, which takes the length of each clip; EncoderFailed if there are others than that."""
    further = graph.inputs[1:]
    if not further:
        return None
    if len(further) > 1 or len(further[0].shape) != 1 or further[0].kind not in ("int64", "int32"):
        names = ", ".join(f"{value.name} {value}" for value in graph.inputs)
        raise EncoderFailed(
            f"{graph.path.name} takes {names}; a clip and, at most, its length as int64 (N) can be given to it. "
            "Export it again."
        )
    return further[0]


def write_tiny(folder: Path) -> str:
    import onnx

    onnx.save(tiny_fbank_model(), folder / "voice.onnx")
    return f"onnx:{folder}"


ENCODER = EncoderFamily(
    name="onnx",
    modality="voice",
    dim=0,
    version=1,
    licence="that of the file",
    source="Any ONNX file that turns a clip of a voice into a vector.",
    libraries=LIBRARIES,
    needs=("onnxruntime", "onnx", "kaldi_native_fbank"),
    recognises=lambda path: has_input_axes(path, 2, 3),
    options=("revision", *clips_in.OPTIONS),
    open=open_,
    write_tiny=write_tiny,
)
