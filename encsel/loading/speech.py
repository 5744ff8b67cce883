"""Shared by the transformers speech families: checkpoint, clip preparation, pooling over frames, layers."""

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
"""For models that cannot be padded, clips are cut to the longest of these that fits, so that batches stay full."""

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

Forward = Callable[[Any, Any, Any], Any]
"""(clips, values), attention mask or None, frames per clip or None -> (clips, taps, dim), all tensors."""


@dataclass(frozen=True)
class Checkpoint:
    """A speech checkpoint on this machine with its configuration read; nothing is loaded.

    Attributes:
        config: config.json over CONFIG_DEFAULTS.
        do_normalize: its feature extractor scales each clip to mean 0 and variance 1.
        equal_lengths: padding changes the vectors, with or without a mask.
        n_least: the fewest samples a clip may have.
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
        """Describe an encoder of this checkpoint; `facts` are further fields of Encoder.

        Args:
            pooling: how frames become one vector, in words.
            spec: opens this encoder; default: the checkpoint's spec.
        """
        family, spec = self.family, spec or self.spec
        is_default = spec.checkpoint in (None, family.checkpoint)
        preprocessing = {
            "pooling": pooling,
            "dtype": self.runtime.dtype,
            "do_normalize": self.do_normalize,
            "lengths": crop_rule(self.n_least) if self.equal_lengths else "padded, with attention mask",
            # The activation or the number of heads, for example, changes vectors without changing weights.
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
        """Load the model as that transformers class; `forward(model)` is the function from batches to vectors."""
        torch_device(self.runtime.device)  # raises EncoderFailed with a remedy when torch does not load
        import transformers

        # Caused by transformers' WavLM when it gets a mask; users can do nothing about it.
        warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
        extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(self.snapshot.folder, local_files_only=True)
        # Only training uses the vector that replaces masked frames.
        unread = frozenset({"masked_spec_embed", f"{self.config['model_type']}.masked_spec_embed"})
        model = load_transformers(
            getattr(transformers, class_name), self.snapshot, self.runtime, optional=unread, **options
        )
        return _SpeechModel(model, extractor, self, forward(model))


def open_checkpoint(
    family: EncoderFamily, spec: Spec, runtime: Runtime, *, model_type: str, equal_lengths: bool = False
) -> Checkpoint:
    """Find the checkpoint of a spec, or the family's default, and read its configuration.

    Args:
        model_type: required value in config.json.
        equal_lengths: this kind of model can never be padded, whatever the configuration says.
    Raises:
        EncoderFailed: not found, of another type, or without a usable feature extractor.
        UsageError: a revision was given for a folder.
    """
    name = spec.checkpoint or family.checkpoint
    assert name is not None
    snapshot = find_snapshot(
        name, runtime, revision=spec.options.get("revision"), may_be_pickled=name == family.checkpoint
    )
    config = {**CONFIG_DEFAULTS, **snapshot.config()}
    _check(config, name)
    if config.get("model_type") != model_type:
        raise EncoderFailed(
            f"{name} has the architecture {config.get('model_type')!r}; {family.name} reads {model_type!r}. "
            "Choose a checkpoint of that architecture."
        )
    if config.get("add_adapter"):
        raise EncoderFailed(
            f"{name} has an adapter after its layers, which {family.name} cannot pool. Choose another checkpoint."
        )
    # A batch norm before the convolution makes padding differ from silence.
    unpaddable = config["feat_extract_norm"] != "layer" or config.get("conv_pos_batch_norm", False)
    return Checkpoint(
        family, spec, runtime, snapshot, config, _do_normalize(snapshot.folder),
        equal_lengths or unpaddable, n_samples_for(1, config),
    )  # fmt: skip


def open_layers(
    family: EncoderFamily, spec: Spec, runtime: Runtime, *, class_name: str, model_type: str
) -> tuple[Encoder, ...]:
    """Describe the encoders of a spec that average a layer over frames; several for `layer=all`.

    Raises:
        UsageError: a layer the model does not have, or a pooling other than mean.
        EncoderFailed: see `open_checkpoint`.
    """
    pooling = spec.options.get("pooling", "mean")
    if pooling != "mean":
        raise UsageError(f"{spec}: unknown pooling {pooling!r}; {family.name} has only 'mean'. Leave it out.")
    checkpoint = open_checkpoint(family, spec, runtime, model_type=model_type)
    n_layers: int = checkpoint.config["num_hidden_layers"]
    choice = spec.options.get("layer", "last")
    if choice.isdigit():
        choice = str(int(choice))
        if int(choice) > n_layers:
            raise UsageError(f"{spec}: there is no layer {choice}; the model has 0 to {n_layers}, 'last' and 'all'.")
    layers: list[str] = [choice]
    if choice == "all":
        layers = [str(k) for k in range(n_layers + 1)]
        # Post-norm models have no norm after their layers: the output of the last layer equals `last`.
        layers += ["last"] if checkpoint.config["do_stable_layer_norm"] else []

    def load() -> Model:
        options = {}
        if choice.isdigit():
            # Layers above the chosen one are not built. Even layer 0, the input of the first, needs one layer.
            options["num_hidden_layers"] = max(1, int(choice))
        return checkpoint.load(class_name, lambda model: _mean_of_layers(model, layers), **options)

    flags = (f"one of {len(layers)} layers: the best of many is flattered by the choice",) if len(layers) > 1 else ()
    encoders = []
    for tap, layer in enumerate(layers):
        options = {**spec.options, "layer": layer} if "layer" in spec.options else dict(spec.options)
        if "name" in options and len(layers) > 1:
            options["name"] += f"-{layer}"
        encoders.append(
            checkpoint.encoder(
                load, dim=checkpoint.config["hidden_size"], pooling="mean over valid frames",
                spec=Spec(spec.family, spec.checkpoint, options), tap=tap, flags=flags, preprocessing={"layer": layer},
            )
        )  # fmt: skip
    return tuple(encoders)


def n_frames_of(n_samples: int, config: Mapping[str, Any]) -> int:
    """Number of frames the convolutions make from `n_samples`, enough for at least one."""
    for kernel, stride in zip(config["conv_kernel"], config["conv_stride"], strict=True):
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


def n_samples_for(n_frames: int, config: Mapping[str, Any]) -> int:
    """The fewest samples from which the convolutions make `n_frames`."""
    for kernel, stride in zip(reversed(config["conv_kernel"]), reversed(config["conv_stride"]), strict=True):
        n_frames = (n_frames - 1) * stride + kernel
    return n_frames


def common_length(n_samples: int, n_least: int = 0) -> int:
    """Number of samples to keep of a clip: the longest of COMMON_SECONDS that fits, so that many clips share a length.

    A clip that fits none of at least `n_least` samples keeps its length.
    """
    for seconds in COMMON_SECONDS:
        common = round(seconds * SAMPLING_RATE)
        if n_least <= common <= n_samples:
            return common
    return n_samples


def crop_rule(n_least: int) -> str:
    """`common_length` in words, for the description that identifies a vector."""
    usable = [s for s in COMMON_SECONDS if round(s * SAMPLING_RATE) >= n_least]
    return (
        f"equal within a batch, no mask: cut to the longest of {', '.join(f'{s:g}' for s in usable)} s that fits, "
        "shorter ones as they are"
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
    """Write a small random model of that transformers class, and its feature extractor, as published ones are saved.

    The convolutions keep the kernels and strides of the real models: frames of 400 samples, 320 apart.
    """
    import torch
    import transformers

    small = {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
        "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        # Corresponds to 0.02 at the real models' 1024 dimensions; with less, all clips would look alike.
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
            seconds, needed = len(sample) / SAMPLING_RATE, self._n_least / SAMPLING_RATE
            raise UnusableSample(f"too short for this encoder: {seconds:.3f} s, at least {needed:g} s")
        if self._equal_lengths:
            sample = sample[: common_length(len(sample), self._n_least)]
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
                assert not self._equal_lengths, "clips must have one length"
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
    """One tap per layer: "last" is the model's output, k its k-th hidden state, 0 the input of the first layer."""

    def forward(values: Any, mask: Any, n_frames: Any) -> Any:
        import torch

        output = model(values, attention_mask=mask, output_hidden_states=set(layers) != {"last"})
        states = [output.last_hidden_state if k == "last" else output.hidden_states[int(k)] for k in layers]
        return torch.stack([mean_over_frames(hidden, n_frames) for hidden in states], dim=1)

    return forward


def _check(config: Mapping[str, Any], name: str) -> None:
    """Check the sizes in a configuration; EncoderFailed when one is not a positive integer or list lengths differ."""

    def is_count(value: Any) -> bool:
        return type(value) is int and value >= 1

    for key in ("hidden_size", "num_hidden_layers", "xvector_output_dim"):
        if not is_count(config[key]):
            raise EncoderFailed(f"{name} has {config[key]!r} as {key} in config.json. Fetch it again.")
    for one, other in (("conv_kernel", "conv_stride"), ("tdnn_kernel", "tdnn_dilation")):
        pair = config[one], config[other]
        if not all(isinstance(v, list | tuple) and all(map(is_count, v)) for v in pair) or len(set(map(len, pair))) > 1:
            raise EncoderFailed(f"{name} has {pair[0]!r} as {one}, {pair[1]!r} as {other}. Fetch it again.")


def _do_normalize(folder: Path) -> bool:
    """Whether the feature extractor normalises clips; EncoderFailed unless it takes waveforms at SAMPLING_RATE."""
    settings = None
    if (folder / "processor_config.json").is_file():  # where transformers 5 saves settings, and looks first
        settings = read_json(folder / "processor_config.json").get("feature_extractor")
    if settings is None:
        settings = read_json(folder / "preprocessor_config.json")
    kind, rate = settings.get("feature_extractor_type", EXTRACTOR), settings.get("sampling_rate", SAMPLING_RATE)
    if kind != EXTRACTOR or rate != SAMPLING_RATE:
        raise EncoderFailed(
            f"{folder.name} prepares clips with {kind} at {rate} Hz; encsel needs {EXTRACTOR} at {SAMPLING_RATE} Hz. "
            "Choose another checkpoint."
        )
    return bool(settings.get("do_normalize", True))
