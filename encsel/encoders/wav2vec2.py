"""wav2vec2: wav2vec 2.0 (transformers), mean of a layer over frames."""

from encsel.loading.speech import layer_family

ENCODER = layer_family(
    name="wav2vec2",
    dim=1024,
    version=1,
    licence="Apache-2.0",
    source="Baevski et al. 2020, arXiv:2006.11477; facebook/wav2vec2-large-960h.",
    checkpoint="facebook/wav2vec2-large-960h",
    trained_on="LibriSpeech 960 h (without labels), then fine-tuned for speech recognition (ASR) on the same",
    n_parameters=315_428_992,
    n_bytes=1_260_000_000,
    class_name="Wav2Vec2Model",
    model_type="wav2vec2",
    tiny={"feat_extract_norm": "group"},
)
