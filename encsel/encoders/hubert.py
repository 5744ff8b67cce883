"""hubert: HuBERT (transformers), mean of a layer over frames."""

from encsel.loading.speech import layer_family

ENCODER = layer_family(
    name="hubert",
    dim=1024,
    version=1,
    licence="Apache-2.0",
    source="Hsu et al. 2021, doi:10.1109/TASLP.2021.3122291; facebook/hubert-large-ls960-ft.",
    checkpoint="facebook/hubert-large-ls960-ft",
    trained_on="Libri-Light (60,000 h, without labels), then fine-tuned for speech recognition (ASR) on LibriSpeech",
    n_parameters=315_438_720,
    n_bytes=1_260_000_000,
    class_name="HubertModel",
    model_type="hubert",
    tiny={"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True, "return_attention_mask": True},
)
