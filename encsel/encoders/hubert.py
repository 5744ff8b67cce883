"""hubert: HuBERT (transformers), mean of a layer over frames."""

from __future__ import annotations

from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.loading.speech import LAYER_OPTIONS, LIBRARIES, open_layers, write_tiny_model


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    return open_layers(ENCODER, spec, runtime, class_name="HubertModel", model_type="hubert")


def write_tiny(folder: Path) -> str:
    write_tiny_model(
        folder, "HubertModel", feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True,
        return_attention_mask=True,
    )  # fmt: skip
    return f"hubert:{folder}"


ENCODER = EncoderFamily(
    name="hubert",
    modality="voice",
    dim=1024,
    version=1,
    licence="Apache-2.0",
    source="Hsu et al. 2021, doi:10.1109/TASLP.2021.3122291; facebook/hubert-large-ls960-ft.",
    libraries=LIBRARIES,
    checkpoint="facebook/hubert-large-ls960-ft",
    options=LAYER_OPTIONS,
    open=open_,
    trained_on="Libri-Light (60,000 h, without labels), then fine-tuned for speech recognition (ASR) on LibriSpeech",
    n_parameters=315_438_720,
    n_bytes=1_260_000_000,
    write_tiny=write_tiny,
)
