"""What encsel adds on the CPU to the time of a bare model: `pytest -m slow tests/benchmarks -s` prints it."""

from __future__ import annotations

import pytest
from gpu import HUBERT_BASE, load_encoder, measure_speed, write_model, write_set

MAX_COST = 1.15
CLIP_OF_6_LAYERS = {
    "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6,
    "image_size": 224, "patch_size": 16, "projection_dim": 256,
}  # fmt: skip
CASES = {"face": (CLIP_OF_6_LAYERS, 30, 8, 16), "voice": (HUBERT_BASE, 6, 2, 4)}


@pytest.mark.slow
@pytest.mark.parametrize("modality", CASES)
def test_embedding_on_the_cpu_costs_little_more_than_the_bare_model(tmp_path, modality):
    shape, n_identities, n_samples, batch_size = CASES[modality]
    encoder = load_encoder(write_model(tmp_path / "model", modality, shape), device="cpu")
    calibration = write_set(tmp_path / "set", modality, n_identities, n_samples)
    speed = measure_speed(encoder, calibration, batch_size=batch_size, n_rounds=5)
    rounds = " ".join(f"{ratio:.3f}" for ratio in speed.ratios)
    print(f"\n{encoder.family}, CPU, float32: bare {speed.bare:.1f}/s, encsel {speed.encsel:.1f}/s; rounds {rounds}")
    assert speed.ratio >= 1 / MAX_COST
