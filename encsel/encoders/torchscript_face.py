"""torchscript: any face model that torch.jit.save wrote; loaded only where pickles are allowed."""

from pathlib import Path

from encsel.core import Encoder, EncoderFamily, Runtime, Spec
from encsel.loading import pictures_in
from encsel.loading.checkpoint import encoder_of
from encsel.loading.hub import hashes_of
from encsel.loading.torchscript import TorchScriptModel, find_torchscript, is_torchscript

LIBRARIES = ("torch",)


def open_(spec: Spec, runtime: Runtime) -> tuple[Encoder, ...]:
    path = find_torchscript(spec, runtime)
    picture = pictures_in.picture_input(spec, runtime, side=pictures_in.ASSUMED_SIDE)
    flags = () if "size" in spec.options else (f"input side not stated: {picture.height} pixels assumed",)
    encoder = encoder_of(
        ENCODER,
        spec,
        dim=TorchScriptModel(path, runtime).embed([picture.blank()]).shape[2],
        load=lambda: picture.model(TorchScriptModel(path, runtime).embed, runtime.device),
        weights=hashes_of([path], runtime),
        folder=path.parent,
        preprocessing={"backend": "TorchScript", "dtype": runtime.dtype, **picture.facts},
        libraries=(*LIBRARIES, *picture.libraries),
        flags=(*picture.flags, *flags),
    )
    return (encoder,)


def write_tiny(folder: Path) -> str:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.AvgPool2d(16), torch.nn.Flatten(), torch.nn.Linear(7 * 7 * 3, 16))
    torch.jit.save(torch.jit.trace(module, torch.zeros(2, 3, 112, 112)), folder / "face.pt")
    return f"torchscript:{folder / 'face.pt'}"


ENCODER = EncoderFamily(
    name="torchscript",
    modality="face",
    dim=0,
    version=1,
    licence="that of the file",
    source="Any TorchScript file that turns a picture of a face into a vector.",
    libraries=LIBRARIES,
    needs=("torch",),
    recognises=is_torchscript,
    is_general=True,
    options=pictures_in.OPTIONS,
    open=open_,
    write_tiny=write_tiny,
)
