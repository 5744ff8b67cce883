"""What rank says of encoders beyond their numbers: joint spaces, training data, health, failures."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
from toy import people, population

import encsel
from encsel.core import Embeddings, Traits
from encsel.data.calibration_set import CalibrationSet
from encsel.data.embedding_files import read_embeddings, write_embeddings
from encsel.errors import BadCalibration
from encsel.matching.eer import eer
from encsel.progress import Silent
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
    write(tmp_path, "face", "a", sides[0], space="joint", trained_on="x", flags=("f",))
    embeddings, _ = read_embeddings(tmp_path / "faces" / "a.npz", "face")
    assert embeddings.traits == Traits("x", "joint", ("f",))
    assert embeddings.provenance["made_by"]["weights"] == {"w.safetensors": "0" * 64}


def declared(path, space):
    """A file of three rows that declares a space in the way of its kind."""
    arrays = {"embeddings": np.eye(3, 4, dtype=np.float32)}
    if path.suffix == ".npz":
        np.savez(path, labels=["ann", "bob", "cleo"], **arrays, **({} if space is None else {"space": space}))
        return path
    columns = ["identity,space", *(f"{name},{'' if space is None else space}" for name in ("ann", "bob", "cleo"))]
    if path.suffix == ".npy":
        np.save(path, arrays["embeddings"])
        path.with_suffix(".csv").write_text("\n".join(columns))
    else:
        metadata = None if space is None else {"space": space}
        safetensors.numpy.save_file({**arrays, "labels": np.arange(3)}, path, metadata)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors"])
def test_a_file_declares_a_joint_space_and_the_signature_follows(tmp_path, suffix):
    def read(name, space):
        return read_embeddings(declared(tmp_path / f"{name}{suffix}", space), "face")[0]

    without, one, other = read("a", None), read("b", "joint"), read("c", " joint 2")
    assert [e.traits.space for e in (without, one, other)] == [None, "joint", "joint 2"]
    assert len({e.provenance["sha256"] for e in (without, one, other)}) == 3
    assert [len(e.vectors) for e in (without, one, other)] == [3, 3, 3]
    assert not any(e.attributes for e in (without, one, other))
    write_embeddings(one, tmp_path / "again.npz")
    assert read_embeddings(tmp_path / "again.npz", "face")[0].traits == one.traits
    with np.load(tmp_path / "again.npz") as arrays:
        assert arrays["space"] == "joint"


def test_labels_beside_an_npy_are_part_of_its_hash(tmp_path):
    path = declared(tmp_path / "a.npy", None)
    before = read_embeddings(path, "face")[0].provenance["sha256"]
    table = path.with_suffix(".csv")
    table.write_text(table.read_text().replace("ann", "dan"))
    assert read_embeddings(path, "face")[0].provenance["sha256"] != before


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (["a", "b", "b"], "'space' has 2 values (a, b); an encoder has one joint space"),
        (["a", "b"], "'space' has shape (2,); it must be one text"),
        (1.5, "'space': the type is float64; text or whole numbers are needed"),
        ("x" * 1025, "has a cell of 1025 characters; at most 1024 are read"),
        (b"\xff", "'space': some bytes are not text"),
    ],
)
def test_a_space_that_cannot_be_read_is_an_error(tmp_path, space, message):
    with pytest.raises(BadCalibration) as caught:
        read_embeddings(declared(tmp_path / "a.npz", np.array(space)), "face")
    assert message in str(caught.value)


def test_the_name_of_a_space_is_read_as_other_names_are(tmp_path):
    def read(space):
        return read_embeddings(declared(tmp_path / "a.npz", np.array(space)), "face")[0].traits.space

    assert read("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert read("e\u0301 ") == read(["\u00e9", "", "\u00e9"]) == read("\u00e9".encode()) == "\u00e9"
    assert read("") is read(["", "", ""]) is None


def test_arrays_declare_a_joint_space(sides):
    def given(space):
        columns = {} if space is None else {"space": space}
        x, who = sides[0].mean(axis=1), people(N)
        return CalibrationSet.from_arrays({"a": (x, who, columns)}, {"b": (x, who, columns)}).embeddings

    assert [[e.traits.space for e in given(space)] for space in (None, "joint", ["joint"] * N)] == [
        [None, None], ["joint", "joint"], ["joint", "joint"],
    ]  # fmt: skip
    hashes = [given(space)[0].provenance["sha256"] for space in (None, "joint", "other")]
    assert len(set(hashes)) == 3
    with pytest.raises(BadCalibration, match="'space' has 2 values"):
        given(["a", *["b"] * (N - 1)])


def test_encoders_of_one_space_and_different_dimensions_are_named(tmp_path, sides):
    write(tmp_path, "face", "a", sides[0], space="joint")
    write(tmp_path, "voice", "b", sides[1][:, :, :7], space="joint")
    write(tmp_path, "voice", "c", sides[1], space="joint")
    ranking = ranked(tmp_path)
    assert (ranking.pair("a", "b").joint_space, ranking.pair("a", "c").joint_space.space) == (None, "joint")
    (note,) = [note for note in ranking.notes if "different dimensions" in note]
    assert "The joint space joint has encoders of different dimensions (face a 16, voice b 7, voice c 16)" in note


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
    assert "in the joint training" in " ".join(render(ranking, "table").split())


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
    broken = np.random.default_rng(0).normal(size=sides[0].shape).astype(np.float32)
    write(tmp_path, "face", "broken", broken)
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


def test_verification_eers_and_a_few_shared_rows_are_told_and_harm_nothing(tmp_path):
    face, voice = population(N, rows=30)
    face[3, 0] = face[8, 2]
    write(tmp_path, "face", "a", face)
    write(tmp_path, "voice", "b", voice)
    heard = []
    progress = Silent()
    progress.note = heard.append
    ranking = ranked(tmp_path, strict_health=True, progress=progress)
    assert ranking.exit_code == 0
    note = f"face encoder a: 2 of {N * 30} rows equal a row of another person, too few to matter; stderr names them."
    assert note in ranking.notes
    assert any("the same vector stands for" in said for said in heard)
    by_name = {e.name: e.unimodal_eer for e in ranking.encoders}
    shown = f"Verification EER, within the encoder's own modality: a {by_name['a']:.3f}, b {by_name['b']:.3f}."
    assert shown in render(ranking, "table", width=400)
