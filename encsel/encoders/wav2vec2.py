"""wav2vec2: wav2vec 2.0 (transformers), mean of a layer over frames."""

from __future__ import annotations

from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.loading.speech import LAYER_OPTIONS, LIBRARIES, open_layers, write_tiny_model


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    return open_layers(ENCODER, spec, runtime, class_name="Wav2Vec2Model", model_type="wav2vec2")


def write_tiny(folder: Path) -> str:
    write_tiny_model(folder, "Wav2Vec2Model", feat_extract_norm="group")
    return f"wav2vec2:{folder}"


ENCODER = EncoderFamily(
    name="wav2vec2",
    modality="voice",
    dim=1024,
    version=1,
    licence="Apache-2.0",
    source="Baevski et al. 2020, arXiv:2006.11477; facebook/wav2vec2-large-960h.",
    libraries=LIBRARIES,
    checkpoint="facebook/wav2vec2-large-960h",
    options=LAYER_OPTIONS,
    open=open_,
    trained_on="LibriSpeech 960 h (without labels), then fine-tuned for speech recognition (ASR) on the same",
    n_parameters=315_428_992,
    n_bytes=1_260_000_000,
    write_tiny=write_tiny,
)
