"""What rank says of encoders beyond their numbers: joint spaces, training data, health, failures."""

from __future__ import annotations

import numpy as np
import pytest
from toy import people, population

import encsel
from encsel.core import Embeddings, Traits
from encsel.data.embedding_files import read_embeddings, write_embeddings
from encsel.matching.eer import eer
from encsel.ranking.flags import TRAINED_ON_THESE, UNSOUND
from encsel.storage.result import render

N = 9
"""Too few people for cross-validation, which would take most of the time here."""


def write(root, modality, name, samples, *, labels=None, **traits):
    n, rows, dim = samples.shape
    made = Embeddings(
        name,
        modality,
        samples.reshape(-1, dim),
        np.repeat(people(n) if labels is None else labels, rows),
        np.tile([f"s{j}" for j in range(rows)], n),
        provenance={"name": name, "weights": {"w.safetensors": "0" * 64}},
        traits=Traits(**traits),
    )
    write_embeddings(made, root / f"{modality}s" / f"{name}.npz")


def ranked(root, **options):
    return encsel.rank(root, min_identities=N, cache=None, **options)


@pytest.fixture
def sides():
    return population(N, shared=1.0, dims=(16, 16))


def test_traits_and_origin_survive_a_file(tmp_path, sides):
    write(tmp_path, "face", "a", sides[0], space="joint", trained_on="x", identity_trained=True, flags=("f",))
    embeddings, _ = read_embeddings(tmp_path / "faces" / "a.npz", "face")
    assert embeddings.traits == Traits("x", True, "joint", ("f",))
    assert embeddings.provenance["made_by"]["weights"] == {"w.safetensors": "0" * 64}


def test_two_encoders_of_one_space_are_also_compared_by_plain_cosine(tmp_path, sides):
    faces, _ = sides
    rng = np.random.default_rng(0)
    voices = faces + 15 * rng.normal(size=faces.shape).astype(np.float32)
    write(tmp_path, "face", "a", faces, space="joint")
    write(tmp_path, "voice", "b", voices, space="joint")
    write(tmp_path, "voice", "c", voices)
    ranking = ranked(tmp_path)
    assert ranking.pair("a", "c").joint_space is None

    def unit(x):
        means = x.astype(np.float64).mean(axis=1)
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    scores = unit(faces) @ unit(voices).T
    expected = eer(np.diag(scores), scores[~np.eye(N, dtype=bool)])
    assert 0 < expected < 0.5
    assert ranking.pair("a", "b").joint_space.space == "joint"
    assert ranking.pair("a", "b").joint_space.cosine_eer == pytest.approx(expected)
    documents = {p["voice"]: p["joint_space"] for p in ranking.to_dict()["pairs"]}
    assert (documents["b"]["space"], documents["c"]) == ("joint", None)
    assert "share the space joint" in render(ranking, "table")


@pytest.mark.parametrize(
    ("first_id", "warned"), [("id10001", True), ("id11251", True), ("id11252", False), ("anna", False)]
)
def test_an_encoder_trained_on_voxceleb_is_flagged_on_voxceleb_people(tmp_path, sides, first_id, warned):
    labels = [first_id, *people(N)[1:]]
    write(tmp_path, "face", "a", sides[0], labels=labels)
    write(tmp_path, "voice", "ecapa", sides[1], labels=labels, trained_on="VoxCeleb1 and VoxCeleb2")
    write(tmp_path, "voice", "other", sides[1], labels=labels, trained_on="LibriSpeech")
    ranking = ranked(tmp_path)
    flagged = {e.name for e in ranking.encoders if TRAINED_ON_THESE in e.flags}
    assert flagged == ({"ecapa"} if warned else set())
    assert {p.voice for p in ranking.pairs if TRAINED_ON_THESE in p.flags} == flagged


def test_an_unsound_encoder_is_named_in_table_and_json_and_strict_health_exits_4(tmp_path, sides):
    collapsed = 1 + 1e-3 * sides[0]
    write(tmp_path, "face", "broken", collapsed, identity_trained=True)
    write(tmp_path, "voice", "b", sides[1])
    lenient, strict = ranked(tmp_path), ranked(tmp_path, strict_health=True)
    assert (lenient.exit_code, strict.exit_code) == (0, 4)
    assert "UNSOUND face encoder broken" in render(strict, "table")
    assert strict.to_dict()["encoders"][0]["health"]
    assert all(UNSOUND in p.flags for p in strict.pairs)


def test_sound_encoders_pass_strict_health(tmp_path, sides):
    write(tmp_path, "face", "a", 3 * sides[0])
    write(tmp_path, "voice", "b", 3 * sides[1])
    ranking = ranked(tmp_path, strict_health=True)
    assert [e.health for e in ranking.encoders] == [(), ()]
    assert ranking.exit_code == 0
