"""wavlm-sv: WavLM with the x-vector head of transformers, trained for speaker verification."""

from dataclasses import replace
from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Model, Runtime, Spec
from encsel.loading.checkpoint import is_of_types
from encsel.loading.speech import HEAD, LIBRARIES, NEEDS, n_samples_for, open_speech, write_tiny_model


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    # Given a mask, the head ignores dilation when it counts frames and pools over padding: equal lengths only.
    checkpoint = open_speech(ENCODER, spec, runtime, model_type="wavlm", with_head=True)
    config = checkpoint.config
    reach = sum((k - 1) * d for k, d in zip(config["tdnn_kernel"], config["tdnn_dilation"], strict=True))
    # The head takes a standard deviation over frames, so it needs at least two.
    checkpoint = replace(checkpoint, n_least=n_samples_for(reach + 2, config))

    def load() -> Model:
        return checkpoint.load("WavLMForXVector", lambda model: lambda values, *_: model(values).embeddings[:, None])

    dim, pooling = config["xvector_output_dim"], "x-vector head: mean and deviation"
    return (checkpoint.pooled(pooling, load=load, dim=dim),)


def write_tiny(folder: Path) -> str:
    write_tiny_model(
        folder, "WavLMForXVector", feat_extract_norm="group", do_normalize=False, use_weighted_layer_sum=True,
        tdnn_dim=(16, 16, 16, 16, 24), xvector_output_dim=24,
    )  # fmt: skip
    return f"wavlm-sv:{folder}"


ENCODER = EncoderFamily(
    name="wavlm-sv",
    modality="voice",
    dim=512,
    version=1,
    licence="CC BY-SA 3.0",
    source="Chen et al. 2022, doi:10.1109/JSTSP.2022.3188113; microsoft/wavlm-base-plus-sv.",
    libraries=LIBRARIES,
    needs=NEEDS,
    recognises=lambda path: is_of_types(path, ("wavlm",)) and not is_of_types(path, ("wavlm",), but_for=(HEAD,)),
    checkpoint="microsoft/wavlm-base-plus-sv",
    options=("revision", "dtype", "name"),
    open=open_,
    trained_on="Libri-Light, GigaSpeech, VoxPopuli (94,000 h, without labels), then fine-tuned on VoxCeleb1 speakers",
    n_parameters=101_100_000,
    n_bytes=405_000_000,
    write_tiny=write_tiny,
)
