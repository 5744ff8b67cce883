"""dinov2: DINOv2's class token after the last layer norm."""

from encsel.loading.vision import Architecture, vision_family

ENCODER = vision_family(
    name="dinov2",
    dim=768,
    version=1,
    licence="Apache-2.0",
    source="Oquab et al. 2023, arXiv:2304.07193; facebook/dinov2-base, pooler_output.",
    checkpoint="facebook/dinov2-base",
    trained_on="LVD-142M: 142 million curated images from the internet, without labels, not released",
    n_parameters=86_580_480,
    n_bytes=346_321_920,  # approximate: four bytes per parameter
    model_types=("dinov2",),
    architecture=lambda config: Architecture("Dinov2Model", "pooler_output", config.get("hidden_size", 768)),
    # Position embeddings for larger images than the processor's, as in the real checkpoints: interpolated.
    tiny={"mlp_ratio": 2, "image_size": 56, "initializer_range": 0.2},
    tiny_processor=(
        "BitImageProcessorPil",
        {
            "size": {"shortest_edge": 36},
            "crop_size": {"height": 32, "width": 32},
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
    ),
)
