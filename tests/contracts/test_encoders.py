"""What every registered encoder must do by itself; encoders are found, not listed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media_samples import write_face, write_voice

from encsel.core import MODALITIES, SAMPLING_RATE, EmbedBatch, EncoderFamily, Vectors
from encsel.media import MAX_SECONDS, MIN_SECONDS, MIN_SIDE, decode
from encsel.registry import encoder_families, encoder_family
from encsel.signature import canonical

FAMILIES = list(encoder_families().values())
N = 6

rng = np.random.default_rng(0)
TONE = np.sin(2 * np.pi * 150 * np.arange(SAMPLING_RATE) / SAMPLING_RATE).astype(np.float32)
ODD = {
    "face": {
        "smallest": rng.integers(0, 256, (MIN_SIDE, MIN_SIDE, 3), dtype=np.uint8),
        "wide": rng.integers(0, 256, (16, 1000, 3), dtype=np.uint8),
        "tall": rng.integers(0, 256, (1000, 16, 3), dtype=np.uint8),
        "black": np.zeros((64, 64, 3), np.uint8),
        "grey": np.full((64, 64, 3), 128, np.uint8),
        "white": np.full((64, 64, 3), 255, np.uint8),
    },
    "voice": {
        "shortest": TONE[: int(MIN_SECONDS * SAMPLING_RATE)],
        "longest": np.resize(TONE, int(MAX_SECONDS * SAMPLING_RATE)),
        "constant": np.full(SAMPLING_RATE, 0.3, np.float32),
        "one value": np.eye(1, SAMPLING_RATE, dtype=np.float32)[0],
        "very quiet": TONE / 32768,
        "full scale": np.sign(TONE + 1e-3),
    },
}


@pytest.fixture(params=FAMILIES, ids=lambda f: f.name)
def family(request: pytest.FixtureRequest) -> EncoderFamily:
    return request.param


@pytest.fixture
def embed(family) -> EmbedBatch:
    return family.load()


@pytest.fixture
def samples(family, tmp_path) -> list[np.ndarray]:
    write, suffix = (write_face, ".png") if family.modality == "face" else (write_voice, ".wav")
    paths = [tmp_path / f"{seed}{suffix}" for seed in range(N)]
    for seed, path in enumerate(paths):
        write(path, seed)
    return [decode(path.read_bytes(), family.modality, path.suffix) for path in paths]


def assert_close(found: Vectors, expected: Vectors) -> None:
    # A model on a batch may sum in another order than on one sample: the last digits of float32 are free.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_encoder_describes_itself(family):
    assert family.name == family.name.strip() != ""
    assert family.modality in MODALITIES
    assert family.dim >= 1
    assert family.version >= 1
    assert family.licence.strip()
    assert family.source.strip()
    assert canonical(dict(family.preprocessing))


def test_encoder_is_found_by_its_name_and_modality(family):
    assert encoder_family(family.name, family.modality) is family


def test_encoder_of_encsel_lives_in_the_file_of_its_name(family):
    home = Path(family.load.__code__.co_filename)
    if home.parent.parts[-2:] != ("encsel", "encoders"):
        pytest.skip("a plug-in")
    assert home.stem == family.name


def test_vectors_are_finite_floats_of_the_declared_shape(family, embed, samples):
    vectors = embed(samples)
    assert vectors.shape == (N, family.dim)
    assert vectors.dtype.kind == "f"
    assert np.isfinite(vectors).all()


def test_encoder_is_deterministic(family, embed, samples):
    np.testing.assert_array_equal(embed(samples), embed(samples))
    np.testing.assert_array_equal(family.load()(samples), embed(samples))


def test_order_of_samples_does_not_change_a_vector(embed, samples):
    assert_close(embed(samples[::-1])[::-1], embed(samples))


def test_batch_does_not_change_a_vector(family, embed, samples):
    together = embed(samples)
    assert_close(np.concatenate([embed([one]) for one in samples]), together)
    assert_close(embed([*samples, *ODD[family.modality].values()])[:N], together)


def test_encoder_leaves_its_samples_as_they_are(embed, samples):
    before = [sample.copy() for sample in samples]
    embed(samples)
    for sample, copy in zip(samples, before, strict=True):
        np.testing.assert_array_equal(sample, copy)


def test_different_samples_have_different_vectors(embed, samples):
    assert len(np.unique(embed(samples), axis=0)) == N


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("family", "odd"),
    [pytest.param(f, odd, id=f"{f.name}-{what}") for f in FAMILIES for what, odd in ODD[f.modality].items()],
)
def test_odd_but_legal_sample_is_embedded_or_refused(family, odd):
    (vector,) = family.load()([odd])
    assert vector.shape == (family.dim,)
    assert np.isfinite(vector).all() or np.isnan(vector).all()
