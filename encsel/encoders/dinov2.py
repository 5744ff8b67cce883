"""dinov2: DINOv2's class token after the last layer norm."""

from __future__ import annotations

from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.loading.vision import LIBRARIES, OPTIONS, Architecture, find_checkpoint, vision_encoder, write_tiny_model


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    checkpoint = find_checkpoint(ENCODER, spec, runtime, ("dinov2",))
    dim = checkpoint.config.get("hidden_size", ENCODER.dim)
    return (vision_encoder(ENCODER, checkpoint, Architecture("Dinov2Model", "pooler_output", dim)),)


def write_tiny(folder: Path) -> str:
    from transformers import Dinov2Config

    config = Dinov2Config(
        # Position embeddings for larger images than the processor's, as in the real checkpoints: interpolated.
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=56, patch_size=8,
        initializer_range=0.2,
    )  # fmt: skip
    settings = {
        "size": {"shortest_edge": 36},
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    write_tiny_model(folder, "Dinov2Model", config, "BitImageProcessorPil", settings)
    return f"dinov2:{folder}"


ENCODER = EncoderFamily(
    name="dinov2",
    modality="face",
    dim=768,
    version=1,
    licence="Apache-2.0",
    source="Oquab et al. 2023, arXiv:2304.07193; facebook/dinov2-base, pooler_output.",
    libraries=LIBRARIES,
    checkpoint="facebook/dinov2-base",
    options=OPTIONS,
    open=open_,
    trained_on="LVD-142M: 142 million curated images from the internet, without labels, not released",
    n_parameters=86_580_480,
    n_bytes=346_321_920,  # approximate: four bytes per parameter
    write_tiny=write_tiny,
)
