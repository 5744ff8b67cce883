"""clip: the image encoder of CLIP, projected into the space it shares with text."""

from __future__ import annotations

from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.loading.vision import LIBRARIES, OPTIONS, Architecture, find_checkpoint, vision_encoder, write_tiny_model


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    checkpoint = find_checkpoint(ENCODER, spec, runtime, ("clip", "clip_vision_model"))
    # A full CLIP model projects to the dimension at the top level of its configuration; the class for the image encoder
    # reads the one nested in vision_config, which checkpoints may leave at the default.
    dim = checkpoint.config.get("projection_dim", ENCODER.dim)
    architecture = Architecture("CLIPVisionModelWithProjection", "image_embeds", dim, {"projection_dim": dim})
    return (vision_encoder(ENCODER, checkpoint, architecture),)


def write_tiny(folder: Path) -> str:
    from transformers import CLIPVisionConfig

    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
        projection_dim=24, initializer_factor=3.0,
    )  # fmt: skip
    settings = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    write_tiny_model(folder, "CLIPVisionModelWithProjection", config, "CLIPImageProcessorPil", settings)
    return f"clip:{folder}"


# No `space`: CLIP shares its space with text, not with any voice encoder.
ENCODER = EncoderFamily(
    name="clip",
    modality="face",
    dim=512,
    version=1,
    licence="MIT (openai/CLIP); its card puts face recognition and surveillance out of scope",
    source="Radford et al. 2021, arXiv:2103.00020; openai/clip-vit-base-patch16, image_embeds.",
    libraries=LIBRARIES,
    checkpoint="openai/clip-vit-base-patch16",
    options=OPTIONS,
    open=open_,
    trained_on="400 million image-text pairs from the internet, not released (WIT of OpenAI)",
    n_parameters=86_192_640,
    n_bytes=598_482_948,  # approximate: four bytes per parameter of the full CLIP, all of which is downloaded
    write_tiny=write_tiny,
)
