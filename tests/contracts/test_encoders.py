"""The contract of every registered encoder, found through the registry.

Families with weights are opened from the small random model that they write themselves.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from media_samples import write_face, write_voice

from encsel.core import MODALITIES, Encoder, EncoderFamily, Model, Runtime, Spec, Vectors
from encsel.data.media import decode
from encsel.embedding.check import CHECKS, Subject, vectors_of
from encsel.embedding.model_run import describe
from encsel.errors import EncoderFailed, UsageError
from encsel.loading.registry import checked_spec, encoder_families, encoder_family, open_encoders
from encsel.loading.spec import parse
from encsel.storage.signature import canonical, digest

FAMILIES = list(encoder_families())
WITH_WEIGHTS = [f for f in FAMILIES if f.open is not None]
WITH_DEFAULT = [f for f in WITH_WEIGHTS if f.has_default]
N = 6

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda f: f"{f.name}-{f.modality}")
def family(request) -> EncoderFamily:
    return request.param


def for_families(families: Sequence[EncoderFamily]) -> pytest.MarkDecorator:
    """Run for these families only."""
    return pytest.mark.parametrize(
        "family", [pytest.param(f, id=f.name) for f in families], indirect=True, scope="module"
    )


def home(family: EncoderFamily) -> Path:
    function = family.load or family.open
    assert function is not None
    return Path(function.__code__.co_filename)


OF_ENCSEL = [f for f in FAMILIES if home(f).parent.parts[-2:] == ("encsel", "encoders")]


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp(family.name)


@pytest.fixture(scope="module")
def text(family, folder) -> str:
    """The spec of the family: as it is, or with a small model on disk."""
    if family.write_tiny is not None:
        return family.write_tiny(folder)
    if family.load is None:
        pytest.skip("a plug-in with weights that writes no small model")
    return family.name


def opened(spec: str | Spec, modality: str) -> tuple[Encoder, ...]:
    return open_encoders(checked_spec(str(spec), modality), Runtime(device="cpu", offline=True, allow_pickle=True))


@pytest.fixture(scope="module")
def encoder(family, text) -> Encoder:
    return opened(text, family.modality)[0]


@pytest.fixture(scope="module")
def model(encoder) -> Model:
    return encoder.load()


@pytest.fixture(scope="module")
def samples(family, tmp_path_factory) -> list[np.ndarray]:
    """Pictures, or clips of different lengths."""
    root = tmp_path_factory.mktemp("samples")
    if family.modality == "face":
        paths = [write_face(root / f"{i}.png", i) for i in range(N)]
    else:
        paths = [write_voice(root / f"{i}.wav", i, seconds=0.5 + 0.07 * (i // 2)) for i in range(N)]
    return [decode(path.read_bytes(), family.modality, path.suffix) for path in paths]


def assert_close(found: Vectors, expected: Vectors) -> None:
    # A model on a batch may sum in another order than on one sample: the last digits of float32 are free.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


# --- what it says of itself


def test_family_describes_itself(family):
    assert family.name == family.name.strip() != ""
    assert family.modality in MODALITIES
    assert family.dim >= (1 if family.has_default else 0)
    assert family.version >= 1
    assert family.licence.strip()
    assert family.source.strip()


@for_families(WITH_DEFAULT)
def test_family_with_default_weights_says_which_and_how_large_they_are(family):
    assert family.checkpoint
    assert family.trained_on.strip()
    assert family.n_parameters > 1e6
    assert family.n_bytes > 1e6


@for_families([f for f in WITH_WEIGHTS if f.needs])
def test_family_with_weights_says_what_runs_them(family):
    assert family.libraries
    assert {"name"} <= set(family.options)


def test_family_is_found_by_its_name_and_modality(family):
    assert encoder_family(family.name, family.modality) is family


@for_families(OF_ENCSEL)
def test_family_of_encsel_lives_in_the_file_of_its_name(family):
    name = family.name.replace("-", "_")
    assert home(family).stem in (name, f"{name}_{family.modality}")


@for_families(OF_ENCSEL)
def test_family_of_encsel_can_be_tested_without_a_download(family):
    assert (family.load is None) == (family.write_tiny is not None)


def test_encoder_describes_itself(family, encoder):
    assert (encoder.family, encoder.modality, encoder.version) == (family.name, family.modality, family.version)
    assert encoder.name.strip()
    assert encoder.licence.strip()
    assert encoder.source.strip()
    assert encoder.dim >= 1
    description = describe(encoder)
    assert canonical(description)
    assert None not in description["libraries"].values()
    assert bool(encoder.weights or encoder.code) == (family.open is not None)


def test_description_does_not_say_where_on_this_machine_the_weights_are(folder, encoder):
    assert str(folder.parent) not in canonical(describe(encoder))


def test_opening_twice_gives_the_same_description(family, text, encoder):
    (again,) = opened(text, family.modality)
    assert describe(again) == describe(encoder)


@for_families(WITH_WEIGHTS)
def test_moved_weights_are_the_same_encoder_and_one_byte_makes_another(family, text, folder, encoder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    moved = text.replace(str(folder), str(copy))
    assert moved != text
    expected = digest(describe(encoder))
    assert digest(describe(opened(moved, family.modality)[0])) == expected
    for name in encoder.weights:
        (path,) = copy.rglob(name)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert digest(describe(opened(moved, family.modality)[0])) != expected, name
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def test_spec_round_trips_and_opens_the_same_encoder(family, text, encoder):
    spec = checked_spec(text, family.modality)
    assert str(spec) == text
    assert parse(str(spec)) == spec
    assert describe(opened(encoder.spec, family.modality)[0]) == describe(encoder)


@pytest.mark.parametrize(
    ("family", "option"),
    [
        pytest.param(f, option, id=f"{f.name}-{option}")
        for f in WITH_WEIGHTS
        for option in ("dtype=bfloat16", "dtype=float16", "layer=0", "layer=1")
        if option.split("=")[0] in f.options
    ],
    indirect=["family"],
    scope="module",
)
def test_option_that_moves_vectors_changes_the_description_or_is_refused(family, text, encoder, option):
    key, value = option.split("=")
    spec = parse(text)
    try:
        (other,) = opened(Spec(spec.family, spec.checkpoint, {**spec.options, key: value}), family.modality)
    except (EncoderFailed, UsageError):
        return
    assert digest(describe(other)) != digest(describe(encoder))


def test_name_given_by_the_user_is_the_encoder_s_and_changes_nothing_else(family, text, encoder):
    spec = parse(text)
    (mine,) = opened(Spec(spec.family, spec.checkpoint, {**spec.options, "name": "mine"}), family.modality)
    assert mine.name == "mine" != encoder.name
    assert describe(mine) == describe(encoder)


def test_encoder_is_opened_and_run_offline_without_a_connection(family, text, samples, no_network):
    (encoder,) = opened(text, family.modality)
    vectors_of(encoder.load(), encoder, samples[:1])


# --- what it makes of samples


@pytest.mark.parametrize("name", CHECKS)
def test_encoder_does_what_every_encoder_must(name, encoder, model, samples):
    CHECKS[name](Subject(encoder, model, samples, encoder.load))


@for_families([f for f in WITH_WEIGHTS if "layer" in f.options])
def test_layers_of_one_pass_equal_those_opened_alone(family, text, samples):
    spec = parse(text)
    layers = opened(Spec(spec.family, spec.checkpoint, {**spec.options, "layer": "all"}), family.modality)
    assert len(layers) > 1
    assert len({layer.name for layer in layers}) == len({digest(describe(layer)) for layer in layers}) == len(layers)
    assert len({layer.shares for layer in layers}) == 1
    assert [layer.tap for layer in layers] == list(range(len(layers)))
    assert all(layer.flags for layer in layers)
    model = layers[0].load()
    for layer in layers:
        (alone,) = opened(layer.spec, family.modality)
        assert describe(alone) == describe(layer)
        assert_close(vectors_of(alone.load(), alone, samples), vectors_of(model, layer, samples))
