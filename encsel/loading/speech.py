"""What the speech encoders of transformers share: opening a checkpoint, preparing clips, pooling frames, layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encsel.core import SAMPLING_RATE, Clip, Encoder, EncoderFamily, Model, Runtime, Spec, Vectors
from encsel.errors import EncoderFailed, UnusableSample, UsageError
from encsel.loading.hub import Snapshot, find_snapshot, load_transformers, read_json, sha256_of, torch_device

LAYER_OPTIONS = ("revision", "layer", "pooling", "dtype", "name")
LIBRARIES = ("torch", "transformers")

COMMON_SECONDS = (5.0, 4.0, 3.0, 2.5, 2.0, 1.5, 1.0, 0.75, 0.5, 0.35, 0.25, 0.2, 0.15, 0.1)
"""Clips of models that cannot be padded are cut to the longest of these that fits, so that batches stay full."""

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
"""The library's own, for keys a config.json leaves out: reading them here saves importing it when all is cached."""

EXTRACTOR = "Wav2Vec2FeatureExtractor"

Forward = Callable[[Any, Any, Any], Any]
"""(clips, values), attention mask or None, frames of each clip or None -> (clips, taps, dim), all tensors."""


@dataclass(frozen=True)
class Checkpoint:
    """A speech checkpoint found on this machine, its configuration read, nothing loaded.

    Attributes:
        config: config.json over CONFIG_DEFAULTS.
        do_normalize: its feature extractor brings each clip to mean 0 and variance 1.
        equal_lengths: padding would change what it makes of a clip, with a mask or without.
        n_least: samples a clip must have.
    """

    family: EncoderFamily
    spec: Spec
    runtime: Runtime
    snapshot: Snapshot
    config: Mapping[str, Any]
    do_normalize: bool
    equal_lengths: bool
    n_least: int

    def encoder(
        self, load: Callable[[], Model], *, dim: int, pooling: str, spec: Spec | None = None, **facts: Any
    ) -> Encoder:
        """The Encoder with everything the checkpoint says filled in; `facts` are further fields of it.

        Args:
            pooling: how frames become one vector, in words.
            spec: the one that opens this encoder, if not the checkpoint's own.
        """
        family, spec = self.family, spec or self.spec
        is_default = spec.checkpoint in (None, family.checkpoint)
        preprocessing = {
            "pooling": pooling,
            "dtype": self.runtime.dtype,
            "do_normalize": self.do_normalize,
            "lengths": crop_rule(self.n_least) if self.equal_lengths else "padded, with attention mask",
            # Number of heads, activation and the like move the vectors and leave the weights as they are.
            "config sha256": sha256_of(self.snapshot.folder / "config.json"),
            "weights": "pickle, weights_only" if self.snapshot.pickled else "safetensors",
            **facts.pop("preprocessing", {}),
        }
        flags = (*facts.pop("flags", ()), *(("pickled weights",) if self.snapshot.pickled else ()))
        return Encoder(
            name=facts.pop("name", spec.name), modality="voice", dim=dim, spec=str(spec), family=family.name,
            version=family.version, licence=family.licence if is_default else "as the checkpoint states",
            source=family.source, load=load, revision=self.snapshot.revision, weights=self.snapshot.weights,
            folder=self.snapshot.folder,
            trained_on=family.trained_on if is_default else "", preprocessing=preprocessing,
            libraries=family.libraries, shares=str(self.spec), equal_lengths=self.equal_lengths, flags=flags, **facts,
        )  # fmt: skip

    def load(self, class_name: str, forward: Callable[[Any], Forward], **options: Any) -> Model:
        """The model, loaded as that class of transformers; `forward` makes of it what turns batches into vectors."""
        torch_device(self.runtime.device)  # says what to do where torch does not load
        import transformers

        # Of WavLM with a mask, once a run; it is the library's own doing, and nothing the user can act on.
        warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
        extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(self.snapshot.folder, local_files_only=True)
        # Only training reads the vector that masked frames are replaced with.
        unread = frozenset({"masked_spec_embed", f"{self.config['model_type']}.masked_spec_embed"})
        model = load_transformers(
            getattr(transformers, class_name), self.snapshot, self.runtime, optional=unread, **options
        )
        return _SpeechModel(model, extractor, self, forward(model))


def open_checkpoint(
    family: EncoderFamily, spec: Spec, runtime: Runtime, *, model_type: str, equal_lengths: bool = False
) -> Checkpoint:
    """The checkpoint a spec names, or the family's own, found and its configuration read.

    Args:
        model_type: that of config.json.
        equal_lengths: this kind of model can never be padded, whatever the configuration says.
    Raises:
        EncoderFailed: not there, not of this kind, or without what is needed to prepare clips for it.
        UsageError: a revision of a folder.
    """
    name = spec.checkpoint or family.checkpoint
    assert name is not None
    snapshot = find_snapshot(
        name, runtime, revision=spec.options.get("revision"), may_be_pickled=name == family.checkpoint
    )
    config = {**CONFIG_DEFAULTS, **snapshot.config()}
    _check(config, name)
    found = config.get("model_type")
    if found != model_type:
        raise EncoderFailed(
            f"{name} holds a model of type {found!r}; {family.name} reads {model_type!r}. Name its own family."
        )
    if config.get("add_adapter"):
        raise EncoderFailed(f"{name} has an adapter after its layers, which {family.name} cannot pool. Name another.")
    # A batch norm before the convolution turns padding into something else than silence.
    unpaddable = config["feat_extract_norm"] != "layer" or config.get("conv_pos_batch_norm", False)
    return Checkpoint(
        family, spec, runtime, snapshot, config, _do_normalize(snapshot.folder),
        equal_lengths or unpaddable, n_samples_for(1, config),
    )  # fmt: skip


def open_layers(
    family: EncoderFamily, spec: Spec, runtime: Runtime, *, class_name: str, model_type: str
) -> tuple[Encoder, ...]:
    """The encoders of a spec whose vectors are means over a layer's frames; several for `layer=all`.

    Raises:
        UsageError: a layer the model does not have, or a pooling other than mean.
        EncoderFailed: see `open_checkpoint`.
    """
    pooling = spec.options.get("pooling", "mean")
    if pooling != "mean":
        raise UsageError(f"{spec}: pooling {pooling!r} is not known; {family.name} has 'mean' alone. Leave it out.")
    checkpoint = open_checkpoint(family, spec, runtime, model_type=model_type)
    n_layers: int = checkpoint.config["num_hidden_layers"]
    asked = spec.options.get("layer", "last")
    if asked.isdigit():
        asked = str(int(asked))
        if int(asked) > n_layers:
            raise UsageError(f"{spec}: layer {asked} is not there; the model has 0 to {n_layers}, 'last' and 'all'.")
    layers: list[str] = [asked]
    if asked == "all":
        layers = [str(k) for k in range(n_layers + 1)]
        # Post-norm models have no norm after their layers: there the last layer's output is `last` already.
        layers += ["last"] if checkpoint.config["do_stable_layer_norm"] else []

    def load() -> Model:
        options = {}
        if asked.isdigit():
            # Layers above the one asked for are never built. The input of the first layer needs that layer to pass by.
            options["num_hidden_layers"] = max(1, int(asked))
        return checkpoint.load(class_name, lambda model: _mean_of_layers(model, layers), **options)

    flags = (f"one of {len(layers)} layers: the best of many is flattered by the choice",) if len(layers) > 1 else ()
    encoders = []
    for tap, layer in enumerate(layers):
        own = {**spec.options, "layer": layer} if "layer" in spec.options else dict(spec.options)
        if "name" in own and len(layers) > 1:
            own["name"] += f"-{layer}"
        encoders.append(
            checkpoint.encoder(
                load, dim=checkpoint.config["hidden_size"], pooling="mean over valid frames",
                spec=Spec(spec.family, spec.checkpoint, own), tap=tap, flags=flags, preprocessing={"layer": layer},
            )
        )  # fmt: skip
    return tuple(encoders)


def n_frames_of(n_samples: int, config: Mapping[str, Any]) -> int:
    """Frames that the convolutions make of so many samples; at least one must fit."""
    for kernel, stride in zip(config["conv_kernel"], config["conv_stride"], strict=True):
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


def n_samples_for(n_frames: int, config: Mapping[str, Any]) -> int:
    """The fewest samples that the convolutions make so many frames of."""
    for kernel, stride in zip(reversed(config["conv_kernel"]), reversed(config["conv_stride"]), strict=True):
        n_frames = (n_frames - 1) * stride + kernel
    return n_frames


def common_length(n_samples: int, n_least: int = 0) -> int:
    """Samples to keep of a clip so that many clips have one length: the longest of COMMON_SECONDS that fits.

    Clips shorter than all of these, or than the first that leaves `n_least`, keep their length.
    """
    for seconds in COMMON_SECONDS:
        common = round(seconds * SAMPLING_RATE)
        if n_least <= common <= n_samples:
            return common
    return n_samples


def crop_rule(n_least: int) -> str:
    """`common_length` in words: part of what identifies a vector."""
    usable = [s for s in COMMON_SECONDS if round(s * SAMPLING_RATE) >= n_least]
    return (
        f"equal within a batch, no mask: cut to the longest of {', '.join(f'{s:g}' for s in usable)} s that fits, "
        "shorter ones as they are"
    )


def mean_over_frames(hidden: Any, n_frames: Any) -> Any:
    """(clips, dim) float32 means of (clips, frames, dim); of the first `n_frames` of each clip, if given."""
    import torch

    if n_frames is None:
        return hidden.mean(1, dtype=torch.float32)
    is_padding = torch.arange(hidden.shape[1], device=hidden.device) >= n_frames[:, None]
    # Filled, not multiplied: whatever padding became, even if not finite, is left out.
    return hidden.masked_fill(is_padding[..., None], 0).sum(1, dtype=torch.float32) / n_frames[:, None]


def write_tiny_model(
    folder: Path, class_name: str, *, do_normalize: bool = True, return_attention_mask: bool = False, **config: Any
) -> None:
    """A small random model of that class of transformers, with its feature extractor, saved as its authors save theirs.

    The convolutions keep the kernels and strides of the real models, and so 400 samples a frame and 320 between them.
    """
    import torch
    import transformers

    small = {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
        "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        # As wide as the real models' 0.02 is for their 1024 dimensions; narrower, all clips would look alike.
        "initializer_range": 0.15,
    }  # fmt: skip
    model_class = getattr(transformers, class_name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(model_class.config_class(**{**small, **config}))
    model.save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(
        do_normalize=do_normalize, return_attention_mask=return_attention_mask
    )
    extractor.save_pretrained(folder)


class _SpeechModel:
    def __init__(self, model: Any, extractor: Any, checkpoint: Checkpoint, forward: Forward) -> None:
        self._extractor = extractor
        self._config = checkpoint.config
        self._equal_lengths = checkpoint.equal_lengths
        self._n_least = checkpoint.n_least
        self._forward = forward
        self._device, self._dtype = model.device, model.dtype

    def prepare(self, sample: Clip) -> Vectors:
        if len(sample) < self._n_least:
            found, needed = len(sample) / SAMPLING_RATE, self._n_least / SAMPLING_RATE
            raise UnusableSample(f"too short for this encoder: {found:.3f} s, at least {needed:g} s")
        if self._equal_lengths:
            sample = sample[: common_length(len(sample), self._n_least)]
        # One clip at a time: in a batch the library would normalise over the padding.
        (values,) = self._extractor(sample, sampling_rate=SAMPLING_RATE, padding=False)["input_values"]
        return np.asarray(values, dtype=np.float32)

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        import torch

        lengths = np.array([len(clip) for clip in batch])
        mask = n_frames = None
        with torch.inference_mode():
            if lengths.min() == lengths.max():  # nothing padded, and a mask only costs time
                values = np.stack(batch)
            else:
                assert not self._equal_lengths, "clips of one length are needed"
                mask_values = np.arange(lengths.max()) < lengths[:, None]
                values = np.zeros(mask_values.shape, np.float32)
                values[mask_values] = np.concatenate(batch)
                mask = self._moved(mask_values.astype(np.int32))
                n_frames = self._moved(np.array([n_frames_of(int(n), self._config) for n in lengths]))
            return self._forward(self._moved(values).to(self._dtype), mask, n_frames).float().cpu().numpy()

    def _moved(self, array: Any) -> Any:
        import torch

        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)


def _mean_of_layers(model: Any, layers: Sequence[str]) -> Forward:
    """One tap a layer: "last" is the model's output, k the k-th of its hidden states, 0 what its first layer reads."""

    def forward(values: Any, mask: Any, n_frames: Any) -> Any:
        import torch

        output = model(values, attention_mask=mask, output_hidden_states=set(layers) != {"last"})
        taken = [output.last_hidden_state if k == "last" else output.hidden_states[int(k)] for k in layers]
        return torch.stack([mean_over_frames(hidden, n_frames) for hidden in taken], dim=1)

    return forward


def _check(config: Mapping[str, Any], name: str) -> None:
    """EncoderFailed unless the configuration's counts are counts, and its convolutions have as many of each."""

    def is_count(value: Any) -> bool:
        return type(value) is int and value >= 1

    for key in ("hidden_size", "num_hidden_layers", "xvector_output_dim"):
        if not is_count(config[key]):
            raise EncoderFailed(f"{name} gives {config[key]!r} as {key} in config.json. Fetch it again.")
    for one, other in (("conv_kernel", "conv_stride"), ("tdnn_kernel", "tdnn_dilation")):
        pair = config[one], config[other]
        if not all(isinstance(v, list | tuple) and all(map(is_count, v)) for v in pair) or len(set(map(len, pair))) > 1:
            raise EncoderFailed(f"{name} gives {pair[0]!r} as {one}, {pair[1]!r} as {other}. Fetch it again.")


def _do_normalize(folder: Path) -> bool:
    """Whether the checkpoint's feature extractor normalises; EncoderFailed unless it takes waves at SAMPLING_RATE."""
    settings = None
    if (folder / "processor_config.json").is_file():  # where transformers 5 puts them, and looks first
        settings = read_json(folder / "processor_config.json").get("feature_extractor")
    if settings is None:
        settings = read_json(folder / "preprocessor_config.json")
    kind, rate = settings.get("feature_extractor_type", EXTRACTOR), settings.get("sampling_rate", SAMPLING_RATE)
    if kind != EXTRACTOR or rate != SAMPLING_RATE:
        raise EncoderFailed(
            f"{folder.name} prepares clips by {kind} at {rate} Hz; {EXTRACTOR} at {SAMPLING_RATE} Hz is needed. "
            "Name another checkpoint."
        )
    return bool(settings.get("do_normalize", True))
