"""wavlm: WavLM (transformers), mean of a layer over frames."""

from __future__ import annotations

from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.loading.speech import LAYER_OPTIONS, LIBRARIES, open_layers, write_tiny_model


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    # WavLM computes its own attention with relative positions; scaled-dot-product attention does not apply.
    return open_layers(ENCODER, spec, runtime, class_name="WavLMModel", model_type="wavlm")


def write_tiny(folder: Path) -> str:
    write_tiny_model(
        folder, "WavLMModel", feat_extract_norm="layer", do_stable_layer_norm=True, return_attention_mask=True
    )
    return f"wavlm:{folder}"


ENCODER = EncoderFamily(
    name="wavlm",
    modality="voice",
    dim=1024,
    version=1,
    licence="CC BY-SA 3.0",
    source="Chen et al. 2022, doi:10.1109/JSTSP.2022.3188113; microsoft/wavlm-large.",
    libraries=LIBRARIES,
    checkpoint="microsoft/wavlm-large",
    options=LAYER_OPTIONS,
    open=open_,
    trained_on="Libri-Light, GigaSpeech, VoxPopuli (94,000 h, without labels)",
    n_parameters=315_453_120,
    n_bytes=1_260_000_000,
    write_tiny=write_tiny,
)
