"""open_clip: image features of models of OpenCLIP, projected, before they are normalised."""

import json
from dataclasses import replace
from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.errors import EncoderFailed, failing
from encsel.loading.checkpoint import Checkpoint, configured
from encsel.loading.hub import find_snapshot, hashes_of, read_json
from encsel.loading.torch_images import ImageModel, load_strictly, read_weights, ready, with_torchvision

CONFIG, WEIGHTS, PICKLE = "open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
VISUAL = "visual."
"""Prefix of the weights of the image encoder."""


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    snapshot = find_snapshot(spec, None, runtime, safe=WEIGHTS, pickled=(PICKLE,))
    config = read_json(snapshot.folder / CONFIG)
    # The other settings beside the weights are of transformers or timm.
    snapshot = replace(snapshot, files=hashes_of([snapshot.folder / CONFIG], runtime))
    checkpoint = Checkpoint(ENCODER, spec, runtime, snapshot, config, config.get("preprocess_cfg") or {})
    model = config.get("model_cfg")
    if not isinstance(model, dict) or not isinstance(model.get("vision_cfg"), dict):
        raise EncoderFailed(f"{checkpoint.name} has no model_cfg with a vision_cfg in {CONFIG}. Fetch it again.")
    dim = model.get("embed_dim")
    if type(dim) is not int or dim < 1:
        raise EncoderFailed(f"{checkpoint.name} gives {dim!r} as its embed_dim in {CONFIG}. Fetch it again.")
    encoder = checkpoint.encoder(
        dim=dim,
        load=lambda: _load(checkpoint),
        preprocessing={
            "image size": json.dumps(model["vision_cfg"].get("image_size", "default")),
            "transform": json.dumps(checkpoint.processor, sort_keys=True),
            "reader": "pillow",
            "output": "encode_image, not normalised",
        },
    )
    return (encoder,)


def _load(checkpoint: Checkpoint) -> ImageModel:
    with_torchvision("open_clip")
    from open_clip.model import _build_vision_tower
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    config = checkpoint.config["model_cfg"]
    # The text encoder, which may need a download, is not built.
    vision = {**config["vision_cfg"], "timm_model_pretrained": False, "output_tokens": False}
    with failing(f"open_clip cannot build {checkpoint.name}", f"Check its {CONFIG}, or upgrade open_clip_torch."):
        model = _build_vision_tower(config["embed_dim"], vision, bool(config.get("quick_gelu")))
        settings = merge_preprocess_dict(PreprocessCfg(), {**checkpoint.processor, "size": model.image_size})
        transform = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    weights = read_weights(checkpoint.snapshot)
    visual = {name.removeprefix(VISUAL): w for name, w in weights.items() if name.startswith(VISUAL)}
    load_strictly(model, visual, checkpoint.name)
    return ready(model, transform, checkpoint, config["embed_dim"])


def recognises(path: Path) -> bool:
    return "model_cfg" in configured(path, CONFIG) and "model_type" not in configured(path)


def write_tiny(folder: Path) -> str:
    import open_clip
    import torch
    from safetensors.torch import save_file

    half = {"width": 32, "layers": 2}
    vision = {**half, "head_width": 8, "patch_size": 8, "image_size": 32}
    text = {**half, "heads": 2, "context_length": 8, "vocab_size": 50}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(**config)
    save_file(model.state_dict(), folder / WEIGHTS)
    (folder / CONFIG).write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"resize_mode": "shortest"}}), encoding="utf-8"
    )
    return f"open_clip:{folder}"


# No `space`: it is shared with text, not with any voice encoder.
ENCODER = EncoderFamily(
    name="open_clip",
    modality="face",
    dim=0,
    version=1,
    licence="as the checkpoint states",
    source="Models of OpenCLIP: Ilharco et al. 2021, doi:10.5281/zenodo.5143773; encode_image.",
    libraries=("open_clip_torch", "timm", "torch", "torchvision", "Pillow"),
    options=("revision", "dtype", "name"),
    needs=("open_clip", "torch", "torchvision"),
    recognises=recognises,
    open=open_,
    write_tiny=write_tiny,
)
