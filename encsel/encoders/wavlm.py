"""wavlm: WavLM (transformers), mean of a layer over frames."""

from encsel.loading.speech import layer_family

ENCODER = layer_family(
    name="wavlm",
    dim=1024,
    version=1,
    licence="CC BY-SA 3.0",
    source="Chen et al. 2022, doi:10.1109/JSTSP.2022.3188113; microsoft/wavlm-large.",
    checkpoint="microsoft/wavlm-large",
    trained_on="Libri-Light, GigaSpeech, VoxPopuli (94,000 h, without labels)",
    n_parameters=315_453_120,
    n_bytes=1_260_000_000,
    # WavLM computes its own attention with relative positions; scaled-dot-product attention does not apply.
    class_name="WavLMModel",
    model_type="wavlm",
    tiny={"feat_extract_norm": "layer", "do_stable_layer_norm": True, "return_attention_mask": True},
)
