"""timm: the pooled features of any image model of timm, before its classifier."""

import json
import sys
from pathlib import Path
from typing import Any

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.errors import EncoderFailed, UsageError, failing, first_line
from encsel.loading.checkpoint import Checkpoint, configured
from encsel.loading.hub import find_snapshot
from encsel.loading.torch_images import ImageModel, load_strictly, read_weights, ready, with_torchvision

TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    snapshot = find_snapshot(spec, None, runtime, safe="model.safetensors", pickled=("pytorch_model.bin",))
    checkpoint = Checkpoint(ENCODER, spec, runtime, snapshot, snapshot.config(), {})
    if not isinstance(checkpoint.config.get("architecture"), str):
        raise EncoderFailed(
            f"{checkpoint.name} has no architecture in config.json. Save the model with timm.models.save_for_hf."
        )
    timm = with_torchvision("timm")
    import torch

    with torch.device("meta"):  # shapes without values: nothing is loaded
        model = _pooled(_bare(checkpoint), checkpoint)
        data = timm.data.resolve_data_config({}, pretrained_cfg=model.pretrained_cfg)
        # Not num_features of config.json: 35 of 256 architectures tried return more features than that.
        with failing(f"{checkpoint.name} does not run", "Choose another checkpoint."), torch.inference_mode():
            shape = tuple(model.eval()(torch.zeros(1, *data["input_size"])).shape)
    if len(shape) != 2:
        raise EncoderFailed(
            f"{checkpoint.name} returns values of shape {shape} for an image; one vector is needed. Add @pooling=avg."
        )
    encoder = checkpoint.encoder(
        dim=shape[1],
        load=lambda: _load(checkpoint, data, shape[1]),
        preprocessing={
            "transform": json.dumps(data, sort_keys=True),
            "reader": "pillow",
            "pooling": spec.options.get("pooling", "as config.json says"),
        },
    )
    return (encoder,)


def _bare(checkpoint: Checkpoint) -> Any:
    """The model without a classifier, its weights random."""
    import timm

    problem = f"timm {timm.__version__} cannot build {checkpoint.config['architecture']!r} of {checkpoint.name}"
    with failing(problem, "Check its config.json, or upgrade timm."):
        return timm.create_model(f"local-dir:{checkpoint.snapshot.folder}", pretrained=False, num_classes=0)


def _pooled(model: Any, checkpoint: Checkpoint) -> Any:
    """The model with the pooling that the user asks for; no pooling that timm allows here adds weights."""
    if (pooling := checkpoint.spec.options.get("pooling")) is not None:
        try:
            model.reset_classifier(0, global_pool=pooling)
        except Exception as error:
            raise UsageError(
                f"{checkpoint.name} has no pooling {pooling!r} ({first_line(error)}). Leave out pooling=, or give one "
                "that timm has for this model, such as avg, max or token."
            ) from error
    return model


def _load(checkpoint: Checkpoint, data: dict[str, Any], dim: int) -> ImageModel:
    timm = with_torchvision("timm")
    name, architecture = checkpoint.name, checkpoint.config["architecture"]
    model, weights = _bare(checkpoint), read_weights(checkpoint.snapshot)
    # Renames weights of older versions, where the architecture has any.
    module = sys.modules[timm.models.model_entrypoint(architecture).__module__]
    if (convert := getattr(module, "checkpoint_filter_fn", None)) is not None:
        with failing(f"timm cannot convert the weights of {name}", "Fetch the checkpoint again."):
            weights = convert(weights, model)
    # Of the architecture: a configuration may leave it out.
    classifiers = getattr(timm.models.get_pretrained_cfg(architecture), "classifier", None) or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
    load_strictly(model, weights, name, unused=[classifier.split(".")[0] for classifier in classifiers])
    with failing(f"timm cannot prepare images as {name} says", "Check pretrained_cfg in its config.json."):
        transform = timm.data.create_transform(**data, is_training=False)
    return ready(_pooled(model, checkpoint), transform, checkpoint, dim)


def recognises(path: Path) -> bool:
    config = configured(path)
    return isinstance(config.get("architecture"), str) and "model_type" not in config


def write_tiny(folder: Path) -> str:
    import timm
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **TINY)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(5)  # else all images have nearly the same features
    config = {"model_args": TINY, "pretrained_cfg": {"input_size": (3, 32, 32)}}
    timm.models.save_for_hf(model, str(folder), model_config=config, safe_serialization=True)
    return f"timm:{folder}"


ENCODER = EncoderFamily(
    name="timm",
    modality="face",
    dim=0,
    version=1,
    licence="as the checkpoint states",
    source="Image models of timm: Wightman 2019, doi:10.5281/zenodo.4414861; forward_head(pre_logits=True).",
    libraries=("timm", "torch", "torchvision", "Pillow"),
    options=("revision", "dtype", "pooling", "name"),
    needs=("timm", "torch", "torchvision"),
    recognises=recognises,
    open=open_,
    write_tiny=write_tiny,
)
