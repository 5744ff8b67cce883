"""hf for voices: any audio model of transformers, by its Auto classes."""

from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.loading.auto import OPTIONS, open_auto
from encsel.loading.checkpoint import is_transformers
from encsel.loading.speech import write_tiny_model


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    return open_auto(ENCODER, spec, runtime)


def write_tiny(folder: Path) -> str:
    write_tiny_model(folder, "UniSpeechSatModel", feat_extract_norm="layer", num_clusters=8)
    return f"hf:{folder}"


ENCODER = EncoderFamily(
    name="hf",
    modality="voice",
    dim=0,
    version=1,
    licence="as the checkpoint states",
    source="Audio models of transformers: the output of a speaker head or the model's own pooling, else the mean over "
    "frames.",
    libraries=("transformers", "torch"),
    options=OPTIONS,
    needs=("transformers", "torch"),
    recognises=lambda path: is_transformers(path, "voice"),
    is_general=True,
    open=open_,
    write_tiny=write_tiny,
)
