"""Families of transformers speech models: clip preparation, pooling over frames, layers."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from encsel.core import SAMPLING_RATE, Clip, Encoder, EncoderFamily, Model, Runtime, Spec, Vectors
from encsel.errors import EncoderFailed, UnusableSample, UsageError
from encsel.loading.checkpoint import Checkpoint, is_of_types, open_checkpoint, save_tiny
from encsel.loading.hub import load_transformers, moved_to, torch_device

LIBRARIES = ("torch", "transformers")
NEEDS = ("transformers", "torch")
HEAD = "ForXVector"
"""End of the names of classes with a head for speaker embeddings."""

COMMON_SECONDS = (*(s / 100 for s in range(500, 100, -25)), *(s / 100 for s in range(100, 5, -5)))
"""For models that cannot be padded, clips are cut to the longest of these that fits, so that batches stay full.

In steps of 0.05 s up to a second: speaker models lose much with the little that short clips have.
"""
COMMON_LENGTHS = "multiple of 0.25 s (up to 1 s: of 0.05 s)"

CONFIG_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "feat_extract_norm": "group",
    "do_stable_layer_norm": False,
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    "tdnn_kernel": (5, 3, 3, 1, 1),
    "tdnn_dilation": (1, 2, 3, 1, 1),
    "xvector_output_dim": 512,
}
"""Defaults of transformers for keys missing in config.json; copied to avoid the import when everything is cached."""

EXTRACTOR = "Wav2Vec2FeatureExtractor"
ATTENTION = {"hubert": "sdpa", "wav2vec2": "sdpa", "wavlm": "eager"}
"""By model type. Stated, because config.json may name another, even code on the hub."""

Forward = Callable[[Any, Any, Any], Any]
"""(clips, values), attention mask or None, frames per clip or None -> (clips, taps, dim), all tensors."""


@dataclass(frozen=True)
class SpeechCheckpoint(Checkpoint):
    """A checkpoint of a speech model; its `config` is config.json over CONFIG_DEFAULTS.

    Attributes:
        do_normalize: its feature extractor scales each clip to mean 0 and variance 1.
        equal_lengths: padding changes the vectors, with or without a mask.
        n_least: the fewest samples a clip may have.
    """

    do_normalize: bool
    equal_lengths: bool
    n_least: int

    def pooled(self, pooling: str, *, preprocessing: Mapping[str, Any] | None = None, **facts: Any) -> Encoder:
        """Describe an encoder that makes one vector of all frames; `pooling` says how, in words."""
        prepared = {
            "pooling": pooling,
            "do_normalize": self.do_normalize,
            "lengths": crop_rule(self.n_least) if self.equal_lengths else "padded, with attention mask",
            **(preprocessing or {}),
        }
        return self.encoder(
            preprocessing=prepared, shares=str(self.spec),
            equal_lengths=self.equal_lengths, **facts,
        )  # fmt: skip

    def load(self, class_name: str, forward: Callable[[Any], Forward], **options: Any) -> Model:
        """Load the model as that transformers class; `forward(model)` is the function from batches to vectors."""
        torch_device(self.runtime.device)  # raises EncoderFailed with a remedy when torch does not load
        import transformers

        # Caused by transformers' WavLM when it gets a mask; users can do nothing about it.
        warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
        extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(self.snapshot.folder, local_files_only=True)
        model_class = getattr(transformers, class_name)
        attention = ATTENTION[self.config["model_type"]]
        model = load_transformers(model_class, self.snapshot, self.runtime, attn_implementation=attention, **options)
        return _SpeechModel(model, extractor, self, forward(model))


def open_speech(
    family: EncoderFamily, spec: Spec, runtime: Runtime, *, model_type: str, with_head: bool = False
) -> SpeechCheckpoint:
    """Open the checkpoint of a spec; errors as `open_checkpoint`, and EncoderFailed for an unsuitable configuration.

    A model `with_head` can never be padded, whatever the configuration says; without, a checkpoint with one is refused.
    """
    opened = open_checkpoint(family, spec, runtime, model_types=(model_type,), processor="feature_extractor")
    config = {**CONFIG_DEFAULTS, **opened.config}
    _check(config, opened.name)
    if (
        not with_head
        and "layer" not in spec.options
        and not is_of_types(opened.snapshot.folder, [model_type], but_for=[HEAD])
    ):
        raise EncoderFailed(
            f"{opened.name} has a head for speaker embeddings, which {family.name} does not use. Name it "
            f"hf:{opened.name} for what the head returns, or add @layer=last for the mean over frames before it."
        )
    if config.get("add_adapter"):
        raise EncoderFailed(
            f"{opened.name} has an adapter after its layers, which {family.name} cannot pool. Choose another model."
        )
    kind = opened.processor.get("feature_extractor_type", EXTRACTOR)
    rate = opened.processor.get("sampling_rate", SAMPLING_RATE)
    if kind != EXTRACTOR or rate != SAMPLING_RATE:
        raise EncoderFailed(
            f"{opened.name} prepares clips with {kind} at {rate} Hz; encsel needs {EXTRACTOR} at {SAMPLING_RATE} Hz. "
            "Choose another checkpoint."
        )
    # A batch norm before the convolution makes padding differ from silence.
    unpaddable = config["feat_extract_norm"] != "layer" or config.get("conv_pos_batch_norm", False)
    return SpeechCheckpoint(
        **{**vars(opened), "config": config},
        do_normalize=bool(opened.processor.get("do_normalize", True)),
        equal_lengths=with_head or unpaddable,
        n_least=n_samples_for(1, config),
    )


def layer_family(*, class_name: str, model_type: str, tiny: Mapping[str, Any], **facts: Any) -> EncoderFamily:
    """A family of speech models of which one layer is averaged over frames; `tiny`: arguments of `write_tiny_model`."""

    def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
        return _open_layers(family, spec, runtime, class_name, model_type)

    def write_tiny(folder: Path) -> str:
        write_tiny_model(folder, class_name, **tiny)
        return f"{family.name}:{folder}"

    family = EncoderFamily(
        modality="voice", libraries=LIBRARIES, options=("revision", "layer", "pooling", "dtype", "name"), needs=NEEDS,
        recognises=lambda path: is_of_types(path, (model_type,), but_for=(HEAD,)), open=open_, write_tiny=write_tiny,
        **facts,
    )  # fmt: skip
    return family


def _open_layers(
    family: EncoderFamily, spec: Spec, runtime: Runtime, class_name: str, model_type: str
) -> tuple[Encoder, ...]:
    """The encoder of one layer, or those of all layers for `layer=all`."""
    pooling = spec.options.get("pooling", "mean")
    if pooling != "mean":
        raise UsageError(f"{spec}: unknown pooling {pooling!r}; {family.name} has only 'mean'. Leave it out.")
    checkpoint = open_speech(family, spec, runtime, model_type=model_type)
    n_layers: int = checkpoint.config["num_hidden_layers"]
    choice, fewer = spec.options.get("layer", "last"), {}
    if choice.isdigit():
        choice = str(int(choice))
        if int(choice) > n_layers:
            raise UsageError(f"{spec}: there is no layer {choice}; the model has 0 to {n_layers}, 'last' and 'all'.")
        # Layers above the chosen one are not built. Even layer 0, the input of the first, needs one layer.
        fewer = {"num_hidden_layers": max(1, int(choice))}
    layers: list[str] = [choice]
    if choice == "all":
        layers = [str(k) for k in range(n_layers + 1)]
        # Post-norm models have no norm after their layers: the output of the last layer equals `last`.
        layers += ["last"] if checkpoint.config["do_stable_layer_norm"] else []

    def load() -> Model:
        return checkpoint.load(class_name, lambda model: _mean_of_layers(model, layers), **fewer)

    flags = (f"one of {len(layers)} layers: the best of many is flattered by the choice",) if len(layers) > 1 else ()
    encoders = []
    for tap, layer in enumerate(layers):
        options = {**spec.options, "layer": layer} if "layer" in spec.options else dict(spec.options)
        if "name" in options and len(layers) > 1:
            options["name"] += f"-{layer}"
        encoders.append(
            checkpoint.pooled(
                "mean over valid frames", load=load, dim=checkpoint.config["hidden_size"], tap=tap, flags=flags,
                spec=replace(spec, options=options), preprocessing={"layer": layer},
            )
        )  # fmt: skip
    return tuple(encoders)


def n_frames_of(n_samples: Any, config: Mapping[str, Any]) -> Any:
    """Number (or array of numbers) of frames the convolutions make from `n_samples`, enough for at least one."""
    for kernel, stride in zip(config["conv_kernel"], config["conv_stride"], strict=True):
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


def n_samples_for(n_frames: int, config: Mapping[str, Any]) -> int:
    """The fewest samples from which the convolutions make `n_frames`."""
    for kernel, stride in zip(reversed(config["conv_kernel"]), reversed(config["conv_stride"]), strict=True):
        n_frames = (n_frames - 1) * stride + kernel
    return n_frames


def usable_part(clip: Clip, n_least: int, *, common: bool) -> Clip:
    """The clip, or its first samples of a `common` length (COMMON_SECONDS); UnusableSample below `n_least` samples."""
    if len(clip) < n_least:
        seconds, needed = len(clip) / SAMPLING_RATE, n_least / SAMPLING_RATE
        raise UnusableSample(f"too short for this encoder: {seconds:.3f} s, at least {needed:g} s")
    return clip[: common_length(len(clip), n_least)] if common else clip


def common_length(n_samples: int, n_least: int = 0) -> int:
    """Longest of COMMON_SECONDS, of at least `n_least` samples, that fits a clip; if none does, the clip's length."""
    lengths = (round(seconds * SAMPLING_RATE) for seconds in COMMON_SECONDS)
    return next((n for n in lengths if n_least <= n <= n_samples), n_samples)


def crop_rule(n_least: int) -> str:
    """`common_length` in words, for the description that identifies a vector."""
    return (
        f"equal within a batch, no mask: cut to the longest {COMMON_LENGTHS}, of at least {n_least} samples, that fits;"
        " shorter ones as they are"
    )


def mean_over_frames(hidden: Any, n_frames: Any) -> Any:
    """(clips, dim) float32 means of (clips, frames, dim), over the first `n_frames` of each clip when given."""
    import torch

    if n_frames is None:
        return hidden.mean(1, dtype=torch.float32)
    is_padding = torch.arange(hidden.shape[1], device=hidden.device) >= n_frames[:, None]
    # Filled, not multiplied by zero: padding may have become NaN or infinite.
    return hidden.masked_fill(is_padding[..., None], 0).sum(1, dtype=torch.float32) / n_frames[:, None]


def write_tiny_model(
    folder: Path, class_name: str, *, do_normalize: bool = True, return_attention_mask: bool = False, **config: Any
) -> None:
    """Write a small random model of that class, with real kernels and strides, and its feature extractor."""
    import transformers

    small = {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
        "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        # Corresponds to 0.02 at the real models' 1024 dimensions; with less, all clips would look alike.
        "initializer_range": 0.15,
    }  # fmt: skip
    extractor = transformers.Wav2Vec2FeatureExtractor(
        do_normalize=do_normalize, return_attention_mask=return_attention_mask
    )
    save_tiny(folder, class_name, {**small, **config}, extractor)


class _SpeechModel:
    def __init__(self, model: Any, extractor: Any, checkpoint: SpeechCheckpoint, forward: Forward) -> None:
        self._extractor, self._checkpoint, self._forward = extractor, checkpoint, forward
        self._device, self._dtype = model.device, model.dtype

    def prepare(self, sample: Clip) -> Vectors:
        sample = usable_part(sample, self._checkpoint.n_least, common=self._checkpoint.equal_lengths)
        # One clip at a time: in a batch, transformers would normalise over the padding.
        (values,) = self._extractor(sample, sampling_rate=SAMPLING_RATE, padding=False)["input_values"]
        return np.asarray(values, dtype=np.float32)

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        import torch

        lengths = np.array([len(clip) for clip in batch])
        mask = n_frames = None
        with torch.inference_mode():
            if lengths.min() == lengths.max():  # no padding; a mask would only cost time
                values = np.stack(batch)
            else:
                assert not self._checkpoint.equal_lengths, "clips must have one length"
                mask_values = np.arange(lengths.max()) < lengths[:, None]
                values = np.zeros(mask_values.shape, np.float32)
                values[mask_values] = np.concatenate(batch)
                mask = moved_to(self._device, mask_values.astype(np.int32))
                n_frames = moved_to(self._device, n_frames_of(lengths, self._checkpoint.config))
            return self._forward(moved_to(self._device, values).to(self._dtype), mask, n_frames).float().cpu().numpy()


def _mean_of_layers(model: Any, layers: Sequence[str]) -> Forward:
    """One tap per layer: "last" is the model's output, k its k-th hidden state, 0 the input of the first layer."""

    def forward(values: Any, mask: Any, n_frames: Any) -> Any:
        import torch

        output = model(values, attention_mask=mask, output_hidden_states=set(layers) != {"last"})
        states = [output.last_hidden_state if k == "last" else output.hidden_states[int(k)] for k in layers]
        return torch.stack([mean_over_frames(hidden, n_frames) for hidden in states], dim=1)

    return forward


def _check(config: Mapping[str, Any], name: str) -> None:
    """EncoderFailed unless the sizes in a configuration are positive integers and paired lists of one length."""

    def is_count(value: Any) -> bool:
        return type(value) is int and value >= 1

    for key in ("hidden_size", "num_hidden_layers", "xvector_output_dim"):
        if not is_count(config[key]):
            raise EncoderFailed(f"{name} has {config[key]!r} as {key} in config.json. Fetch it again.")
    for one, other in (("conv_kernel", "conv_stride"), ("tdnn_kernel", "tdnn_dilation")):
        pair = config[one], config[other]
        if not all(isinstance(v, list | tuple) and all(map(is_count, v)) for v in pair) or len(set(map(len, pair))) > 1:
            raise EncoderFailed(f"{name} has {pair[0]!r} as {one}, {pair[1]!r} as {other}. Fetch it again.")
