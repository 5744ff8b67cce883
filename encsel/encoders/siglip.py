"""siglip: the image half of SigLIP, pooled by its attention head."""

from __future__ import annotations

from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.loading.vision import LIBRARIES, OPTIONS, Architecture, find_checkpoint, vision_encoder, write_tiny_model


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    checkpoint = find_checkpoint(ENCODER, spec, runtime, ("siglip", "siglip_vision_model"))
    nested = checkpoint.config.get("vision_config")
    # Saved configurations omit the library's defaults, which are those of the default checkpoint.
    dim = (nested if isinstance(nested, dict) else checkpoint.config).get("hidden_size", ENCODER.dim)
    return (vision_encoder(ENCODER, checkpoint, Architecture("SiglipVisionModel", "pooler_output", dim)),)


def write_tiny(folder: Path) -> str:
    from transformers import SiglipVisionConfig

    config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8
    )
    settings = {"size": {"height": 32, "width": 32}}
    write_tiny_model(folder, "SiglipVisionModel", config, "SiglipImageProcessorPil", settings)
    return f"siglip:{folder}"


ENCODER = EncoderFamily(
    name="siglip",
    modality="face",
    dim=768,
    version=1,
    licence="Apache-2.0",
    source="Zhai et al. 2023, arXiv:2303.15343; google/siglip-base-patch16-384, pooler_output.",
    libraries=LIBRARIES,
    checkpoint="google/siglip-base-patch16-384",
    options=OPTIONS,
    open=open_,
    trained_on="WebLI: image-text pairs from the internet, English part, not released",
    n_parameters=93_176_064,
    n_bytes=813_791_240,  # approximate: four bytes per parameter of the full SigLIP, all of which is downloaded
    write_tiny=write_tiny,
)
