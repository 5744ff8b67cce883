"""ecapa: SpeechBrain's ECAPA-TDNN speaker embeddings, loaded without the checkpoint's YAML, which can run code."""

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encsel.core import Clip, Encoder, EncoderFamily, Model, Runtime, Spec, Vectors
from encsel.errors import EncoderFailed, failing
from encsel.extras import imported
from encsel.loading.checkpoint import encoder_of
from encsel.loading.hub import find_snapshot, moved_to, torch_device
from encsel.loading.speech import crop_rule, usable_part

CHECKPOINT = "speechbrain/spkrec-ecapa-voxceleb"
TRAINED_ON = "VoxCeleb1 and VoxCeleb2"
SAFE, PICKLED = "embedding_model.safetensors", "embedding_model.ckpt"
N_MELS = 80
KERNELS, DILATIONS = (5, 3, 3, 3, 1), (1, 2, 3, 4, 1)

N_LEAST = 640
"""Samples. In a shorter clip, the reflection padding of the convolutions would be longer than the clip."""


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    checkpoint = spec.checkpoint or CHECKPOINT
    is_default = checkpoint == CHECKPOINT
    snapshot = find_snapshot(spec, CHECKPOINT, runtime, pickled=(PICKLED,))
    file = snapshot.folder / (PICKLED if snapshot.pickled else SAFE)
    if file.name not in snapshot.weights:
        names = ", ".join(snapshot.weights)
        raise EncoderFailed(f"{checkpoint} has {names}; {file.name} is needed. Check that it is an ECAPA model.")
    sizes = _architecture({key: tuple(value.shape) for key, value in _read(file, "meta").items()}, checkpoint)
    encoder = encoder_of(
        ENCODER,
        spec,
        dim=sizes["lin_neurons"],
        load=lambda: _load(file, sizes, runtime),
        revision=snapshot.revision,
        weights={file.name: snapshot.weights[file.name]},
        folder=snapshot.folder,
        # A folder may hold a copy of the published model: name the data it was probably trained on.
        trained_on=TRAINED_ON if is_default else f"not stated; the published model: {TRAINED_ON}",
        preprocessing={
            "features": f"{N_MELS} log mel bands, 25 ms every 10 ms",
            "normalisation": "mean of the clip",
            "lengths": crop_rule(N_LEAST),
            "dtype": runtime.dtype if runtime.dtype == "float32" else f"{runtime.dtype} by autocast",
        },
        equal_lengths=True,
        flags=("pickled weights, read with weights_only",) if snapshot.pickled else (),
    )
    return (encoder,)


class _Ecapa:
    """Features, normalisation and network on one device."""

    def __init__(self, features: Any, normalise: Any, network: Any, device: Any, dtype: Any) -> None:
        self._features, self._normalise, self._network = features, normalise, network
        self._device, self._dtype = device, dtype

    def prepare(self, sample: Clip) -> Vectors:
        # Padding would change the vector, even with lengths given.
        return usable_part(sample, N_LEAST, common=True)

    def embed(self, batch: Sequence[Vectors]) -> Vectors:
        import torch

        with torch.inference_mode():
            waves = moved_to(self._device, np.stack(batch))
            lengths = torch.ones(len(waves), device=self._device)
            features = self._normalise(self._features(waves), lengths)
            # Autocast, not cast weights: the masks of the pooling are float32, and bfloat16 cannot represent every
            # frame count above 256.
            with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
                vectors = self._network(features, lengths)
            return vectors.float().cpu().numpy()


def _load(file: Path, sizes: Mapping[str, Any], runtime: Runtime) -> Model:
    import torch

    device = torch_device(runtime.device)
    with contextlib.redirect_stdout(sys.stderr):
        fbank, normalisation, ecapa_tdnn = _speechbrain()
    name = f"{file.parent.name}/{file.name}"
    with failing(f"{name} does not fit ECAPA-TDNN", "Check the checkpoint."):
        network = ecapa_tdnn(**sizes)
        missing, unexpected = network.load_state_dict(_read(file), strict=False)
    if missing or unexpected:
        shown = ", ".join([*missing, *unexpected][:4])
        raise EncoderFailed(
            f"{name} lacks {len(missing)} weights of ECAPA-TDNN and has {len(unexpected)} unexpected ones ({shown}). "
            "Fetch the checkpoint again, or check its architecture."
        )
    return _Ecapa(
        fbank(n_mels=N_MELS).to(device),
        normalisation(norm_type="sentence", std_norm=False).to(device),
        network.eval().to(device),
        device,
        getattr(torch, runtime.dtype),
    )


def _speechbrain() -> tuple[Any, Any, Any]:
    # Otherwise the import enables TF32 for every model in this process.
    os.environ["SB_DISABLE_QUIRKS"] = "allow_tf32,disable_jit_profiling"
    # These fail where torchaudio does not fit torch, for example.
    features, normalisation = imported("speechbrain.lobes.features"), imported("speechbrain.processing.features")
    network = imported("speechbrain.lobes.models.ECAPA_TDNN")
    return features.Fbank, normalisation.InputNormalization, network.ECAPA_TDNN


def _read(file: Path, device: str = "cpu") -> dict[str, Any]:
    """The tensors of a weight file by name; on "meta", only their shapes."""
    torch_device("cpu")  # raises EncoderFailed with a remedy when torch does not load
    import torch
    from safetensors.torch import load_file

    with failing(f"{file.name} is damaged or holds more than weights", "Fetch the checkpoint again."):
        if file.suffix == ".safetensors":
            state = load_file(file, device="cpu")
        else:
            state = torch.load(file, map_location=device, weights_only=True)
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise EncoderFailed(f"{file.name} is not a table of weights. Check that it is an ECAPA model.")
    return state


def _architecture(shapes: Mapping[str, tuple[int, ...]], checkpoint: str) -> dict[str, Any]:
    """The arguments of ECAPA_TDNN, read from weight shapes; the rest are those of the published model."""

    def weight(name: str) -> tuple[int, ...]:
        shape = shapes.get(f"{name}.weight", ())
        if len(shape) != 3:
            raise EncoderFailed(
                f"{checkpoint} has no three-axis {name}.weight as in ECAPA-TDNN. Check that it is an ECAPA model."
            )
        return shape

    first = weight("blocks.0.conv.conv")
    if first[1:] != (N_MELS, KERNELS[0]):
        raise EncoderFailed(
            f"{checkpoint} needs features of shape {first[1:]} (mel bands, frames); encsel computes those of the "
            f"published model, {(N_MELS, KERNELS[0])}. Choose another checkpoint."
        )
    channels = [first[0], *(weight(f"blocks.{i}.tdnn1.conv.conv")[0] for i in (1, 2, 3)), weight("mfa.conv.conv")[0]]
    n_scales = sum(key.startswith("blocks.1.res2net_block.") and key.endswith(".conv.conv.weight") for key in shapes)
    return {
        "input_size": N_MELS,
        "channels": channels,
        "kernel_sizes": list(KERNELS),
        "dilations": list(DILATIONS),
        "attention_channels": weight("asp.tdnn.conv.conv")[0],
        "res2net_scale": n_scales + 1,
        "se_channels": weight("blocks.1.se_block.conv1.conv")[0],
        "lin_neurons": weight("fc.conv")[0],
    }


def write_tiny(folder: Path) -> str:
    import torch
    from safetensors.torch import save_file

    *_, ecapa_tdnn = _speechbrain()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ecapa_tdnn(
            N_MELS, channels=[16] * 4 + [48], kernel_sizes=list(KERNELS), dilations=list(DILATIONS),
            attention_channels=8, se_channels=8, lin_neurons=12,
        )  # fmt: skip
    save_file(network.state_dict(), folder / SAFE)
    return f"ecapa:{folder}"


ENCODER = EncoderFamily(
    name="ecapa",
    modality="voice",
    dim=192,
    version=1,
    licence="Apache-2.0",
    source="Desplanques et al. 2020, doi:10.21437/Interspeech.2020-2650; SpeechBrain's checkpoint.",
    libraries=("torch", "speechbrain"),
    needs=("speechbrain", "torchaudio", "torch"),
    recognises=lambda path: any((path / name).is_file() for name in (SAFE, PICKLED, "hyperparams.yaml")),
    checkpoint=CHECKPOINT,
    options=("revision", "dtype", "name"),
    open=open_,
    trained_on=TRAINED_ON,
    n_parameters=20_767_552,
    n_bytes=83_316_686,
    write_tiny=write_tiny,
)
