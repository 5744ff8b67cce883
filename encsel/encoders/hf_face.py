"""hf for faces: any image model of transformers, by its Auto classes."""

from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.loading.auto import OPTIONS, open_auto
from encsel.loading.checkpoint import is_transformers, save_tiny


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    return open_auto(ENCODER, spec, runtime)


def write_tiny(folder: Path) -> str:
    import transformers

    config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
              "image_size": 32, "patch_size": 8, "initializer_range": 0.2}  # fmt: skip
    save_tiny(folder, "ViTModel", config, transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}))
    return f"hf:{folder}"


ENCODER = EncoderFamily(
    name="hf",
    modality="face",
    dim=0,
    version=1,
    licence="as the checkpoint states",
    source="Image models of transformers: the model's own pooled output, else its class token, else the mean.",
    libraries=("transformers", "torch", "Pillow"),
    options=OPTIONS,
    needs=("transformers", "torch"),
    recognises=lambda path: is_transformers(path, "face"),
    is_general=True,
    open=open_,
    write_tiny=write_tiny,
)
