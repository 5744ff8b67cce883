"""siglip: the image half of SigLIP, pooled by its attention head."""

from collections.abc import Mapping
from typing import Any

from encsel.loading.vision import Architecture, vision_family


def architecture(config: Mapping[str, Any]) -> Architecture:
    nested = config.get("vision_config")
    # Saved configurations omit the library's defaults, which are those of the default checkpoint.
    dim = (nested if isinstance(nested, dict) else config).get("hidden_size", 768)
    return Architecture("SiglipVisionModel", "pooler_output", dim)


ENCODER = vision_family(
    name="siglip",
    dim=768,
    version=1,
    licence="Apache-2.0",
    source="Zhai et al. 2023, arXiv:2303.15343; google/siglip-base-patch16-384, pooler_output.",
    checkpoint="google/siglip-base-patch16-384",
    trained_on="WebLI: image-text pairs from the internet, English part, not released",
    n_parameters=93_176_064,
    n_bytes=813_791_240,  # approximate: four bytes per parameter of the full SigLIP, all of which is downloaded
    model_types=("siglip", "siglip_vision_model"),
    architecture=architecture,
    tiny={"intermediate_size": 64, "image_size": 32},
    tiny_processor=("SiglipImageProcessorPil", {"size": {"height": 32, "width": 32}}),
)
