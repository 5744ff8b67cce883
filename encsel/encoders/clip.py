"""clip: the image encoder of CLIP, projected into the space it shares with text."""

from collections.abc import Mapping
from typing import Any

from encsel.loading.vision import Architecture, vision_family


def architecture(config: Mapping[str, Any]) -> Architecture:
    # A full CLIP model projects to the dimension at the top level of its configuration; the class for the image encoder
    # reads the one nested in vision_config, which checkpoints may leave at the default.
    dim = config.get("projection_dim", 512)
    return Architecture("CLIPVisionModelWithProjection", "image_embeds", dim, {"projection_dim": dim})


# No `space`: CLIP shares its space with text, not with any voice encoder.
ENCODER = vision_family(
    name="clip",
    dim=512,
    version=1,
    licence="MIT (openai/CLIP); its card puts face recognition and surveillance out of scope",
    source="Radford et al. 2021, arXiv:2103.00020; openai/clip-vit-base-patch16, image_embeds.",
    checkpoint="openai/clip-vit-base-patch16",
    trained_on="400 million image-text pairs from the internet, not released (WIT of OpenAI)",
    n_parameters=86_192_640,
    n_bytes=598_482_948,  # approximate: four bytes per parameter of the full CLIP, all of which is downloaded
    model_types=("clip", "clip_vision_model"),
    architecture=architecture,
    tiny={"intermediate_size": 64, "image_size": 32, "projection_dim": 24, "initializer_factor": 3.0},
    tiny_processor=(
        "CLIPImageProcessorPil",
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    ),
)
