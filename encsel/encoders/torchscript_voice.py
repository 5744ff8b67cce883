"""torchscript: any voice model that torch.jit.save wrote; loaded only where pickles are allowed."""

from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.loading import clips_in
from encsel.loading.checkpoint import encoder_of
from encsel.loading.hub import hashes_of
from encsel.loading.torchscript import TorchScriptModel, find_torchscript, is_torchscript

LIBRARIES = ("torch",)


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    path = find_torchscript(spec, runtime)
    clip = clips_in.clip_input(spec)
    encoder = encoder_of(
        ENCODER,
        spec,
        dim=TorchScriptModel(path, runtime).embed([clip.blank()]).shape[2],
        load=lambda: clip.model(TorchScriptModel(path, runtime).embed),
        weights=hashes_of([path], runtime),
        folder=path.parent,
        preprocessing={"backend": "TorchScript", "dtype": runtime.dtype, **clip.facts},
        libraries=(*LIBRARIES, *clip.libraries),
        equal_lengths=True,
    )
    return (encoder,)


def write_tiny(folder: Path) -> str:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pooled = nn.AdaptiveAvgPool1d(1), nn.Flatten()
        module = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 16, 400, 160), nn.ReLU(), *pooled)
    torch.jit.save(torch.jit.trace(module, torch.zeros(2, 16_000)), folder / "voice.pt")
    return f"torchscript:{folder / 'voice.pt'}"


ENCODER = EncoderFamily(
    name="torchscript",
    modality="voice",
    dim=0,
    version=1,
    licence="that of the file",
    source="Any TorchScript file that turns a clip of a voice into a vector.",
    libraries=LIBRARIES,
    needs=("torch",),
    recognises=is_torchscript,
    is_general=True,
    options=clips_in.OPTIONS,
    open=open_,
    write_tiny=write_tiny,
)
