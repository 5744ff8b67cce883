"""Any checkpoint of transformers, through its Auto classes: which class it is, what it returns, how large that is."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from encsel.core import Encoder, EncoderFamily, Modality, Runtime, Spec
from encsel.errors import EncoderFailed, UsageError, failing
from encsel.extras import imported
from encsel.loading.auto_inputs import Inputs, inputs_of
from encsel.loading.auto_run import AutoRun, pooled_output, token_mean
from encsel.loading.checkpoint import Checkpoint, open_checkpoint
from encsel.loading.hub import load_transformers, weight_names
from encsel.loading.speech import HEAD, crop_rule

POOLINGS = ("pooler", "class", "mean")
OPTIONS = ("revision", "layer", "pooling", "dtype", "name")
HALVES: Mapping[Modality, tuple[str, ...]] = {
    "face": ("VisionModelWithProjection", "VisionModel"),
    "voice": ("AudioModelWithProjection", "AudioModel"),
}
"""Ends of the names of classes for one half of a model with two, such as images and text."""
_CLASS_TOKENS = frozenset({"cls_token", "class_embedding", "class_token"})
_PROCESSORS = {"face": "image_processor", "voice": "feature_extractor"}


@dataclass(frozen=True)
class Anatomy:
    """The structure of a checkpoint's model, found by running it without its weights.

    Attributes:
        dims: size of each hidden state, 0 being the input of the first layer; empty if the model does not return them.
        pooler: output that the model pools itself, and its size; None if it has none, or lacks the weights for it.
        unread: weights of that pooling, which the checkpoint lacks.
        last: size of the last hidden state.
    """

    class_name: str
    config: Any
    attention: str
    pooler: tuple[str, int] | None
    unread: frozenset[str]
    has_class_token: bool
    last: int
    dims: tuple[int, ...]


def open_auto(family: EncoderFamily, spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    """Open a checkpoint of any model type of transformers: the encoder of one layer, or of all for `layer=all`.

    Raises:
        EncoderFailed: as `open_checkpoint`, or a model that transformers cannot build or encsel cannot read.
        UsageError: a layer or pooling that this model does not have.
    """
    return encoders_of(open_checkpoint(family, spec, runtime, processor=_PROCESSORS[family.modality]))


def encoders_of(checkpoint: Checkpoint, class_name: str | None = None) -> tuple[Encoder, ...]:
    """The encoders of an open checkpoint; arguments and errors as `open_auto`.

    Args:
        class_name: class of transformers; None: as the checkpoint's configuration says.
    """
    family, spec = checkpoint.family, checkpoint.spec
    if "auto_map" in checkpoint.config:
        raise EncoderFailed(
            f"{checkpoint.name} needs its own Python code (auto_map), which encsel does not run. Wrap it in "
            "a function: py:FILE.py:FUNCTION."
        )
    imported("torch")
    imported("transformers")
    inputs = inputs_of(family.modality, checkpoint)
    with failing(f"{checkpoint.name} does not run as a {family.modality} encoder", "Name another checkpoint."):
        anatomy, inputs = _examined(checkpoint, inputs, class_name)
    pooling, layers = _pooling(spec, anatomy), _layers(spec, anatomy)
    flags = (f"one of {len(layers)} layers: the best of many is flattered by the choice",) if len(layers) > 1 else ()
    encoders = []
    for tap, layer in enumerate(layers):
        options = {**spec.options, "layer": layer} if "layer" in spec.options else dict(spec.options)
        if "name" in options and len(layers) > 1:
            options["name"] += f"-{layer}"
        one = replace(spec, options=options)
        encoders.append(
            checkpoint.encoder(
                spec=one, name=one.name, dim=_dim(anatomy, pooling, layer), tap=tap, flags=flags,
                load=lambda: _load(checkpoint, inputs, anatomy, pooling, layers),
                equal_lengths=family.modality == "voice", shares=str(spec),
                preprocessing=_description(checkpoint, inputs, anatomy, pooling, layer),
            )
        )  # fmt: skip
    return tuple(encoders)


def _examined(checkpoint: Checkpoint, inputs: Inputs, class_name: str | None) -> tuple[Anatomy, Inputs]:
    """The anatomy of a model, and its inputs with the least length of a clip that it takes."""
    import torch
    import transformers

    folder, modality = checkpoint.snapshot.folder, checkpoint.family.modality
    name = class_name or _class_name(checkpoint.config, modality)
    model_class = getattr(transformers, name, None)
    if model_class is None:
        raise EncoderFailed(f"this transformers has no model for {checkpoint.config.get('model_type')!r}. Upgrade it.")
    config = model_class.config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # The size of a projection stands at the top of a configuration of two halves.
    if hasattr(config, "projection_dim") and "projection_dim" in checkpoint.config:
        config.projection_dim = checkpoint.config["projection_dim"]
    if hasattr(config, "mask_ratio"):  # patches left out at random, in training
        config.mask_ratio = 0.0
    attention = "sdpa" if getattr(model_class, "_supports_sdpa", False) else "eager"
    config._attn_implementation = attention
    with torch.device("meta"):
        model = model_class(config).eval()
    half = half_of(model)
    outputs, inputs = _first_outputs(half, inputs)
    have = weight_names(checkpoint.snapshot)
    pooling = [key for key in half.state_dict() if "pooler" in key.split(".")]
    unread = frozenset(key for key in pooling if not any(name == key or name.endswith(f".{key}") for name in have))
    states = getattr(outputs, "hidden_states", None) or ()
    last = getattr(outputs, "last_hidden_state", None)
    last = states[-1] if last is None and states else last
    pooler = None if unread else pooled_output(outputs)
    if pooler is None and last is None:
        raise EncoderFailed("it returns neither a pooled output nor hidden states.")
    return Anatomy(
        name, config, attention,
        pooler=None if pooler is None else (pooler[0], pooler[1].shape[-1]),
        unread=unread,
        has_class_token=any(key.split(".")[-1] in _CLASS_TOKENS for key in half.state_dict()),
        last=0 if last is None else token_mean(last, None).shape[-1],
        dims=tuple(token_mean(state, None).shape[-1] for state in states),
    ), inputs  # fmt: skip


def _class_name(config: Mapping[str, Any], modality: Modality) -> str:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    saved = next(iter(config.get("architectures") or []), "")
    ends = (*HALVES[modality], HEAD) if modality == "voice" else HALVES[modality]
    if saved.endswith(ends):
        return saved
    names = MODEL_MAPPING_NAMES.get(str(config.get("model_type")), "")
    general = names if isinstance(names, str) else names[0]
    if {"vision_config", "audio_config"} & config.keys():
        import transformers

        for end in HALVES[modality]:
            if hasattr(transformers, name := general.removesuffix("Model") + end):
                return name
    return general


def half_of(model: Any) -> Any:
    """The encoder of a model with a decoder; any other model as it is."""
    return model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model


def _first_outputs(model: Any, inputs: Inputs) -> tuple[Any, Inputs]:
    """What a model without weights returns for the smallest sample that it takes."""
    import torch

    error: Exception | None = None
    for least in inputs.sizes():
        smaller = replace(inputs, n_least=least)
        try:
            batch = smaller.batch([smaller.arrays(smaller.blank(least))], model)
        except Exception as failure:  # too short for its features
            error = failure
            continue
        for device in ("meta", "cpu"):  # some models read values of their inputs, which meta tensors lack
            try:
                on = model if device == "meta" else model.to_empty(device="cpu")
                moved = {key: value.to(device) for key, value in batch.items()}
                with torch.inference_mode():
                    return _call(on, moved), smaller
            except Exception as failure:
                error = failure
    raise error or EncoderFailed("it takes no sample.")


def _call(model: Any, batch: Mapping[str, Any]) -> Any:
    takes = inspect.signature(model.forward).parameters
    more = {"output_hidden_states": True} if {"output_hidden_states", "kwargs"} & takes.keys() else {}
    return model(**batch, **more)


def _pooling(spec: Spec, anatomy: Anatomy) -> str:
    """How the model's output becomes a vector: as asked for, else by what it has."""
    has = {"pooler": anatomy.pooler is not None, "class": anatomy.has_class_token, "mean": anatomy.last > 0}
    of_layer = spec.options.get("layer", "last") != "last"
    if of_layer:
        has["pooler"] = False
    possible = [name for name in POOLINGS if has[name]]
    asked = spec.options.get("pooling", possible[0])
    if asked not in possible:
        where = "a layer of " if of_layer else ""
        raise UsageError(
            f"{spec}: {where}{anatomy.class_name} has no pooling {asked!r}. It has: {', '.join(possible)}."
        )
    return asked


def _layers(spec: Spec, anatomy: Anatomy) -> list[str]:
    choice, n_layers = spec.options.get("layer", "last"), len(anatomy.dims) - 1
    if choice == "last":
        return ["last"]
    if n_layers < 1:
        raise UsageError(f"{spec}: {anatomy.class_name} returns no layers. Leave out layer=.")
    if choice == "all":
        if len(set(anatomy.dims)) > 1:
            sizes = ", ".join(map(str, anatomy.dims))
            raise UsageError(f"{spec}: the layers of {anatomy.class_name} differ in size ({sizes}). Name one of them.")
        return [str(k) for k in range(n_layers + 1)]
    if int(choice) > n_layers:
        raise UsageError(f"{spec}: there is no layer {choice}; the model has 0 to {n_layers}, 'last' and 'all'.")
    return [str(int(choice))]


def _dim(anatomy: Anatomy, pooling: str, layer: str) -> int:
    if layer != "last":
        return anatomy.dims[int(layer)]
    return anatomy.pooler[1] if pooling == "pooler" and anatomy.pooler else anatomy.last


def _description(
    checkpoint: Checkpoint, inputs: Inputs, anatomy: Anatomy, pooling: str, layer: str
) -> dict[str, str | int | float | bool]:
    frames = "frames" if checkpoint.family.modality == "voice" else "tokens or positions"
    how = {
        "pooler": f"{anatomy.pooler[0] if anatomy.pooler else ''} of the model",
        "class": "class token",
        "mean": f"mean over {frames}",
    }
    facts = {"model": anatomy.class_name, "attention": anatomy.attention, "pooling": how[pooling], "layer": layer}
    lengths = {"lengths": crop_rule(inputs.n_least)} if checkpoint.family.modality == "voice" else {}
    return {**facts, **inputs.description(), **lengths}


def _load(checkpoint: Checkpoint, inputs: Inputs, anatomy: Anatomy, pooling: str, layers: Sequence[str]) -> AutoRun:
    import transformers

    model = load_transformers(
        getattr(transformers, anatomy.class_name), checkpoint.snapshot, checkpoint.runtime, optional=anatomy.unread,
        config=anatomy.config, attn_implementation=anatomy.attention,
    )  # fmt: skip
    return AutoRun(half_of(model), inputs, pooling, tuple(layers))
