"""Calibration sets from paths and arrays: layouts, joining, restricting, and sets that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from media_samples import write_set

from encsel.core import SetOptions, Skipped
from encsel.data.calibration_set import CalibrationSet, check_skipped
from encsel.embedding.candidates import embeddings_of
from encsel.errors import BadCalibration, UsageError


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def media(root: Path, faces: str, voices: str, n_samples: int = 1) -> Path:
    """Empty files of these people: listing a set does not open them."""
    root.mkdir(exist_ok=True)
    for k in range(n_samples):
        touch(root, *(f"faces/{p}/{k}.png" for p in faces.split()), *(f"voices/{p}/{k}.wav" for p in voices.split()))
    return root


def vectors(n: int, dim: int = 5, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def npz(path: Path, labels: Any, rows: Any = None, **arrays: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.asarray(labels)
    np.savez(path, embeddings=vectors(len(labels)) if rows is None else rows, labels=labels, **arrays)
    return path


def embeddings(root: Path, faces: Any, voices: Any) -> Path:
    npz(root / "faces/facenet.npz", faces)
    npz(root / "voices/ecapa.npz", voices)
    return root


def opened(root: Path, **options: Any) -> CalibrationSet:
    return CalibrationSet.from_path(root, SetOptions(**options))


def refused(root: Path, match: str, **options: Any) -> str:
    with pytest.raises(BadCalibration, match=match) as caught:
        opened(root, **options)
    assert caught.value.exit_code == 3
    return str(caught.value)


def listed(calibration: CalibrationSet) -> set[tuple[str, str, str]]:
    return {(s.modality, s.identity, s.name) for s in calibration.samples}


# Media


def test_media_set_is_opened(tmp_path: Path) -> None:
    calibration = opened(write_set(tmp_path, n_identities=3))
    assert calibration.layout == "faces/ID + voices/ID"
    assert calibration.identities == ("p00", "p01", "p02")
    assert (len(calibration.samples), calibration.embeddings, calibration.notes) == (12, (), ())
    assert all(s.path.is_file() for s in calibration.samples)


def test_people_of_one_modality_are_left_out_and_noted(tmp_path: Path) -> None:
    calibration = opened(media(tmp_path, "ann bob cy", "bob cy dan eve"))
    assert calibration.identities == ("bob", "cy")
    assert {s.identity for s in calibration.samples} == {"bob", "cy"}
    assert calibration.notes == (
        "1 of 3 identities have only faces and are left out.",
        "2 of 4 identities have only voices and are left out.",
    )


def test_files_of_other_kinds_are_noted(tmp_path: Path) -> None:
    touch(media(tmp_path, "ann", "ann"), "faces/ann/a.txt", "faces/ann/b.txt", "voices/ann/c.json")
    assert opened(tmp_path).notes == ("Files of other kinds are ignored: 1 .json, 2 .txt.",)


def test_manifest_may_be_given_as_a_file_or_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("identity,modality,path,sex\nann,face,1.png,f\nann,voice,1.wav,f\n")
    by_file, by_folder = opened(tmp_path / "manifest.csv"), opened(tmp_path)
    assert by_file.samples == by_folder.samples
    assert by_file.samples[0].attributes == {"sex": "f"}


def test_manifest_goes_before_embedding_files(tmp_path: Path) -> None:
    embeddings(tmp_path, ["ann"], ["ann"])
    (tmp_path / "manifest.csv").write_text("identity,modality,path\nbob,face,1.png\nbob,voice,1.wav\n")
    assert opened(tmp_path).identities == ("bob",)


# Subsamples


def test_subsample_of_people_depends_on_the_seed_alone(tmp_path: Path) -> None:
    people = " ".join(f"p{i:02d}" for i in range(30))
    root = media(tmp_path, people, people)
    first = opened(root, identities=10, seed=1)
    assert first.identities == opened(root, identities=10, seed=1).identities
    assert first.identities != opened(root, identities=10, seed=2).identities
    assert len(first.identities) == 10
    assert {s.identity for s in first.samples} == set(first.identities)


def test_same_people_are_drawn_from_media_and_from_embeddings(tmp_path: Path) -> None:
    people = [f"p{i:02d}" for i in range(30)]
    from_media = opened(media(tmp_path / "media", " ".join(people), " ".join(people)), identities=7)
    from_files = opened(embeddings(tmp_path / "files", people[::-1], people), identities=7)
    assert from_media.identities == from_files.identities


def test_samples_per_identity_is_the_most_of_each_person_and_modality(tmp_path: Path) -> None:
    root = media(tmp_path, "ann bob", "ann bob", n_samples=9)
    limited = opened(root, samples_per_identity=4, seed=0)
    counts: dict[tuple[str, str], int] = {}
    for s in limited.samples:
        counts[s.modality, s.identity] = counts.get((s.modality, s.identity), 0) + 1
    assert counts == {(m, p): 4 for m in ("face", "voice") for p in ("ann", "bob")}
    assert listed(limited) != listed(opened(root, samples_per_identity=4, seed=1))
    assert len(opened(root, samples_per_identity=99).samples) == 36


def test_samples_do_not_depend_on_who_else_is_there(tmp_path: Path) -> None:
    alone = opened(media(tmp_path / "a", "ann", "ann", n_samples=9), samples_per_identity=3)
    among = opened(media(tmp_path / "b", "abe ann zed", "ann zed abe", n_samples=9), samples_per_identity=3)
    assert listed(alone) == {key for key in listed(among) if key[1] == "ann"}


def test_more_people_than_there_are_is_refused(tmp_path: Path) -> None:
    refused(
        media(tmp_path, "ann bob", "ann bob cy"), "2 identities have both faces and voices; --identities is 3",
        identities=3,
    )  # fmt: skip


@pytest.mark.parametrize("option", ["identities", "samples_per_identity"])
def test_a_subsample_of_nothing_is_a_usage_error(tmp_path: Path, option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} is 0; it must be at least 1") as caught:
        opened(media(tmp_path, "ann", "ann"), **{option: 0})
    assert caught.value.exit_code == 2


# Sets that cannot be used


def test_missing_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none", r"none does not exist\. Give the folder")


def test_paths_that_the_system_refuses_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / ("x" * 300), "cannot be read|does not exist")
    refused(tmp_path / "a\0b", "cannot be read|does not exist")


def test_folders_that_may_not_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    media(tmp_path, "ann", "ann")
    monkeypatch.setattr("os.scandir", refuse)
    refused(tmp_path, "cannot be read: Permission denied. Check the path and permissions")


def test_a_file_that_is_no_manifest(tmp_path: Path) -> None:
    refused(touch(tmp_path, "a.zip") / "a.zip", r"a\.zip is a \.zip file; a folder or a manifest CSV is needed")


def test_unknown_layout_says_what_is_there_and_what_is_known(tmp_path: Path) -> None:
    said = refused(touch(tmp_path, "readme.md", "pictures/1.png"), "has an unknown layout")
    assert "it contains pictures/, readme.md" in said
    for known in ("manifest", "faces/ID", "ROOT/ID/", "VoxCeleb1", "MAV-Celeb", ".npz"):
        assert known in said


def test_empty_folder(tmp_path: Path) -> None:
    refused(tmp_path, "it contains nothing")


@pytest.mark.parametrize(("faces", "voices", "missing"), [("ann", "", "voice"), ("", "ann", "face")])
def test_one_modality_missing(tmp_path: Path, faces: str, voices: str, missing: str) -> None:
    refused(media(tmp_path, faces, voices), f"no {missing}s/ID folders")


def test_a_modality_without_readable_files_says_what_lies_there(tmp_path: Path) -> None:
    touch(media(tmp_path, "ann bob", ""), "voices/ann/1.txt", "voices/bob/1.txt")
    refused(tmp_path, "has no usable voice samples; .* 2 .txt")


def test_manifest_with_one_modality(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("identity,modality,path\nann,face,1.png\n")
    refused(tmp_path / "m.csv", "has no usable voice samples")


def test_no_common_identities_shows_both_sides(tmp_path: Path) -> None:
    said = refused(
        media(tmp_path, "ann bob cy dan eve fay", "x1 x2"),
        r"faces are of ann, bob, cy, dan, eve, \.\.\. \(6 in all\), voices of x1, x2",
    )
    assert "differ only" not in said


@pytest.mark.parametrize(("face", "voice"), [("Ann", "ann"), ("7", "007"), ("p1", "p01"), ("a01b2", "a1b02"),
                                             ("J.", "j")])  # fmt: skip
def test_identities_that_nearly_match_are_hinted_at(tmp_path: Path, face: str, voice: str) -> None:
    refused(media(tmp_path, f"{face} bob", f"{voice} cy"), "1 of them differ only in letter case, leading zeros")
    media(tmp_path, "dan", "dan")
    assert "differ only in letter case" in opened(tmp_path).notes[0]


@pytest.mark.parametrize(("face", "voice"), [("p10", "p1"), ("p0", "p"), ("100", "1")])
def test_other_identities_do_not_nearly_match(tmp_path: Path, face: str, voice: str) -> None:
    assert "differ only" not in refused(media(tmp_path, face, voice), "has no identity with both")


# Embeddings


def test_embedding_files_are_opened(tmp_path: Path) -> None:
    embeddings(tmp_path, ["ann", "ann", "bob"], ["bob", "ann", "cy"])
    safetensors.numpy.save_file({"embeddings": vectors(2, 9)}, tmp_path / "voices/wavlm.safetensors")
    (tmp_path / "voices/wavlm.csv").write_text("identity,sample\nann,1\ndan,1\n")
    np.save(tmp_path / "faces/clip.npy", vectors(2, 3))
    (tmp_path / "faces/clip.csv").write_text("identity\nbob\nann\n")
    calibration = opened(tmp_path)
    assert (calibration.layout, calibration.samples) == ("embeddings", ())
    assert [(e.modality, e.name, e.vectors.shape) for e in calibration.embeddings] == [
        ("face", "clip", (2, 3)), ("face", "facenet", (3, 5)), ("voice", "ecapa", (2, 5)), ("voice", "wavlm", (1, 9)),
    ]  # fmt: skip
    assert calibration.identities == ("ann", "bob")
    assert calibration.notes == ("2 of 4 identities have only voices and are left out.",)
    assert calibration.details == ("Only voices: cy, dan.",)


def test_whole_number_labels_join_with_text_labels(tmp_path: Path) -> None:
    assert opened(embeddings(tmp_path, [3, 1, 2], ["1", "2", "x"])).identities == ("1", "2")


def test_repeated_rows_count_once(tmp_path: Path) -> None:
    rows = vectors(3)
    npz(tmp_path / "faces/facenet.npz", ["ann", "ann", "bob", "ann"], rows[[0, 1, 2, 0]])
    npz(tmp_path / "voices/ecapa.npz", ["ann", "bob"])
    assert len(opened(tmp_path).embeddings[0].vectors) == 3


def test_subsample_of_rows_is_the_same_for_every_encoder_of_a_modality(tmp_path: Path) -> None:
    labels, names = np.repeat(["ann", "bob", "cy"], 12), np.array([f"s{i:02d}" for i in range(36)])
    order = np.random.default_rng(1).permutation(36)
    npz(tmp_path / "faces/one.npz", labels, samples=names)
    npz(tmp_path / "faces/two.npz", labels[order], vectors(36, 8, seed=9), samples=names[order])
    npz(tmp_path / "voices/ecapa.npz", labels, samples=names)
    calibration = opened(tmp_path, identities=2, samples_per_identity=5, seed=3)
    one, two, voice = ({*zip(e.labels, e.samples, strict=True)} for e in calibration.embeddings)
    assert one == two
    assert one != voice
    assert len(one) == len(voice) == 10
    assert {label for label, _ in one} == set(calibration.identities)


def test_an_encoder_without_common_people_has_no_rows(tmp_path: Path) -> None:
    embeddings(tmp_path, ["ann", "bob"], ["ann", "bob"])
    npz(tmp_path / "faces/other.npz", ["zed"])
    calibration = opened(tmp_path, samples_per_identity=1)
    assert [len(e.vectors) for e in calibration.embeddings] == [2, 0, 2]


def test_few_unusable_rows_are_skipped_and_many_refused(tmp_path: Path) -> None:
    labels, rows = np.array([f"p{i % 20}" for i in range(100)]), vectors(100)
    npz(tmp_path / "voices/ecapa.npz", labels)
    rows[:5] = np.nan
    npz(tmp_path / "faces/facenet.npz", labels, rows)
    calibration = opened(tmp_path)
    assert [(s.encoder, s.sample, s.reason) for s in calibration.skipped][:1] == [
        ("facenet", "p0/0", "non-finite values")
    ]
    assert len(calibration.skipped) == 5
    rows[5] = 0
    npz(tmp_path / "faces/facenet.npz", labels, rows)
    said = refused(tmp_path, r"6 of 100 face samples cannot be used \(p0/0: non-finite values;.*at most 5% may be")
    assert "--max-skipped" in said
    assert len(opened(tmp_path, max_skipped=0.06).skipped) == 6


def test_no_usable_rows_is_refused_even_when_all_may_be_skipped(tmp_path: Path) -> None:
    npz(tmp_path / "faces/facenet.npz", ["ann"], np.zeros((1, 4)))
    npz(tmp_path / "voices/ecapa.npz", ["ann"])
    refused(tmp_path, "has no usable face samples", max_skipped=1.0)


@pytest.mark.parametrize(("present", "absent"), [("face", "voice"), ("voice", "face")])
def test_embeddings_of_one_modality(tmp_path: Path, present: str, absent: str) -> None:
    npz(tmp_path / f"{present}s/a.npz", ["ann"])
    match = rf"1 embedding file\(s\) in {present}s/ and none in {absent}s/.*NAME.npz"
    refused(tmp_path, match)
    (tmp_path / f"{absent}s").mkdir()
    refused(tmp_path, match)


def test_two_embedding_files_of_one_name(tmp_path: Path) -> None:
    embeddings(tmp_path, ["ann"], ["ann"])
    safetensors.numpy.save_file(
        {"embeddings": vectors(1), "labels": np.array([1])}, tmp_path / "faces/facenet.safetensors"
    )
    refused(tmp_path, r"has two face encoders \(files\) named facenet\. Rename one")


def test_embeddings_without_common_identities(tmp_path: Path) -> None:
    refused(embeddings(tmp_path, [1, 2], ["01", "02"]), "faces are of 1, 2, voices of 01, 02.*2 of them differ only")


def test_a_bad_embedding_file_is_named(tmp_path: Path) -> None:
    embeddings(tmp_path, ["ann"], ["ann"])
    (tmp_path / "voices/broken.npz").write_bytes(b"PK")
    refused(tmp_path, "broken.npz is damaged or not a .npz file")


# Unusable samples


def test_fraction_of_unusable_samples_is_limited() -> None:
    skipped = [Skipped("voice", f"ann/{i}", "silent") for i in range(3)]
    check_skipped(skipped, 60, 0.05)
    with pytest.raises(
        BadCalibration, match=r"3 of 59 voice samples .*\(ann/0: silent; ann/1: silent; ann/2: silent\)"
    ):
        check_skipped(skipped, 59, 0.05)
    with pytest.raises(BadCalibration, match=r"3 of 59 .* at most 0\.5% may be skipped"):
        check_skipped(skipped, 59, 0.005)
    with pytest.raises(BadCalibration, match=r"silent; \.\.\.\)"):
        check_skipped([*skipped, *skipped], 6, 0.05)


# Arrays in memory


class Categorical:
    """Converts to an array as a pandas categorical Series does."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self.values, dtype=dtype or object)


WHO = ["ann", "ann", "bob", "cy"]


def of_arrays(
    who: Any = WHO, rows: Any = None, columns: Any = None, name: Any = "facenet", **options: Any
) -> CalibrationSet:
    rows = vectors(4) if rows is None else rows
    face = (rows, who) if columns is None else (rows, who, columns)
    voices = {"ecapa": (vectors(5, 3), ["cy", "bob", "ann", "1", "2"])}
    return CalibrationSet.from_arrays({name: face}, voices, SetOptions(**options))


def test_arrays_equal_the_same_embedding_files(tmp_path: Path) -> None:
    npz(tmp_path / "faces/facenet.npz", WHO, vectors(4), sex=["f", "f", "m", "m"])
    npz(tmp_path / "voices/ecapa.npz", ["cy", "bob", "ann", "1", "2"], vectors(5, 3))
    from_files, from_arrays = opened(tmp_path), of_arrays(columns={"sex": ["f", "f", "m", "m"]})
    assert (from_arrays.root, from_arrays.layout) == (None, "arrays")
    assert from_arrays.identities == from_files.identities
    assert from_arrays.notes == from_files.notes
    for ours, theirs in zip(from_arrays.embeddings, from_files.embeddings, strict=True):
        assert (ours.name, ours.modality) == (theirs.name, theirs.modality)
        np.testing.assert_array_equal(ours.vectors, theirs.vectors)
        for a, b in ((ours.labels, theirs.labels), (ours.samples, theirs.samples)):
            assert a.tolist() == b.tolist()
        assert {k: v.tolist() for k, v in ours.attributes.items()} == {
            k: v.tolist() for k, v in theirs.attributes.items()
        }


@pytest.mark.parametrize(
    "who",
    [
        [1, 1, 2, 3], np.array([1, 1, 2, 3]), np.array([1.0, 1.0, 2.0, 3.0]), np.array(list("1123")),
        [b"1", b"1", "2", 3],
        Categorical(["1", "1", "2", "3"]), Categorical([1, 1, 2, 3]), (np.int8(1), True + 0, np.float32(2), "3"),
    ],
)  # fmt: skip
def test_identities_of_every_type_become_the_same_text(who: Any) -> None:
    (face, _) = of_arrays(who).embeddings
    assert face.labels.tolist() == ["1", "1", "2"]


@pytest.mark.parametrize("missing", [None, np.nan, np.float32("nan"), type("NAType", (), {})()])
def test_missing_identities_are_refused_and_missing_attributes_are_empty(missing: Any) -> None:
    who: list[Any] = ["ann", "ann", "bob", missing]
    with pytest.raises(BadCalibration, match=r"faces\['facenet'\]: the identities: row 3 is missing"):
        of_arrays(who)
    (face, _) = of_arrays(columns={"sex": who}).embeddings
    assert face.attributes["sex"].tolist() == ["ann", "ann", "bob", ""]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"who": np.array([1.0, 1.0, 2.0, np.nan])}, r"row 3 is missing \(nan\)"),
        ({"who": [1.5, 1, 2, 3]}, r"row 0 is of type float \(1\.5\); text or whole numbers are needed"),
        ({"who": [["ann"], "ann", "bob", "cy"]}, "row 0 is of type list"),
        ({"who": WHO[:3]}, r"the identities: shape \(3,\) for 4 rows of embeddings"),
        ({"who": "ann"}, r"shape \(\) for 4 rows"),
        ({"who": ["x" * 2000, *WHO[1:]]}, "has a cell of 2000 characters"),
        ({"rows": vectors(4)[0]}, r"the embeddings have shape \(5,\)"),
        ({"rows": [[1.0, 2.0], [3.0]]}, "cannot be read as an array"),
        ({"rows": np.array([["a"]] * 4)}, "numbers of shape"),
        ({"columns": {"samples": ["1", "2", None, "4"]}}, "'samples': row 2 is missing"),
        ({"columns": {"sex": ["f"]}}, r"'sex': shape \(1,\)"),
        ({"columns": {"quality": [0.5, 1, 2, 3]}}, "'quality': row 0 is of type float"),
        ({"rows": np.zeros((4, 2)), "max_skipped": 0.5}, "4 of 4 face samples cannot be used"),
        ({"identities": 4}, "3 identities have both faces and voices; --identities is 4"),
        ({"who": list("defg")}, "The calibration set has no identity with both"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(given: dict[str, Any], match: str) -> None:
    with pytest.raises(BadCalibration, match=match):
        of_arrays(**given)


@pytest.mark.parametrize("face", [vectors(4), (vectors(4),), (vectors(4), WHO, ["f"] * 4), "ab"])
def test_arrays_must_come_in_tuples(face: Any) -> None:
    with pytest.raises(UsageError, match=r"faces\['a'\] must be a tuple"):
        CalibrationSet.from_arrays({"a": face}, {"b": (vectors(4), WHO)})


@pytest.mark.parametrize("name", ["", "a/b", 3])
def test_names_of_encoders_are_text_without_slashes(name: Any) -> None:
    with pytest.raises(UsageError, match="must be text without slashes"):
        of_arrays(name=name)


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(BadCalibration, match="no usable voice samples"):
        CalibrationSet.from_arrays({"a": (vectors(4), WHO)}, {})


def test_hash_of_arrays_changes_with_every_part_of_them() -> None:
    columns = {"samples": list("abcd"), "sex": list("ffmm")}
    changed = [
        of_arrays(columns=columns), of_arrays(columns=columns, rows=vectors(4) + 1),
        of_arrays(columns=columns, rows=vectors(4).astype(float)), of_arrays(columns=columns, who=WHO[::-1]),
        of_arrays(columns={**columns, "samples": list("abce")}), of_arrays(columns={**columns, "sex": list("fffm")}),
    ]  # fmt: skip
    hashes = [one.embeddings[0].provenance["sha256"] for one in changed]
    assert len({*hashes}) == len(changed)
    assert of_arrays(columns=columns).embeddings[0].provenance == {"sha256": hashes[0]}


def test_arrays_are_copied() -> None:
    rows = vectors(4)
    (face, _) = of_arrays(rows=rows).embeddings
    rows[:] = 0
    assert face.vectors.any()


# Restricting


def test_a_set_is_restricted_once() -> None:
    options = SetOptions(identities=2, samples_per_identity=1, seed=3)
    whole, few = of_arrays(), of_arrays(identities=2, samples_per_identity=1, seed=3)
    assert whole.restricted(options).identities == few.identities
    for same in (options, SetOptions(seed=3), SetOptions(identities=2, seed=3, min_identities=5)):
        again = few.restricted(same)
        assert again.identities == few.identities
        assert (again.options.identities, again.options.samples_per_identity) == (2, 1)
        assert again.options.min_identities == same.min_identities
    for other in (SetOptions(), SetOptions(identities=1, seed=3), SetOptions(samples_per_identity=2, seed=3)):
        with pytest.raises(UsageError, match="already restricted with identities=2, samples_per_identity=1, seed=3"):
            few.restricted(other)


# One person written in several ways


@pytest.mark.parametrize(
    ("face", "voice"), [("p1", "p1 "), ("p1", "\u00a0p1"), ("\ufeffp1", "p1"), ("e\u0301ve", "\u00e9ve")]
)
def test_names_that_differ_in_blanks_or_the_form_of_accents_are_joined_and_noted(face: str, voice: str) -> None:
    rows = vectors(4)
    calibration = CalibrationSet.from_arrays(
        {"a": (rows[[0, 0, 1]], [face, voice, "bob"])}, {"b": (rows[:2], [voice, "bob"])}, SetOptions()
    )
    assert len(calibration.identities) == 2
    assert len(calibration.embeddings[0].vectors) == 2  # the same row under both names is one row
    assert any("1 identities are spelled in several ways" in note for note in calibration.notes)
    assert any("Joined: " in detail for detail in calibration.details)


def test_names_in_a_file_beside_the_set_are_brought_into_the_same_form(tmp_path: Path) -> None:
    who = ["e\u0301ve", " bob"]
    calibration = CalibrationSet.from_arrays({"a": (vectors(2), who)}, {"b": (vectors(2), who)})
    loose = npz(tmp_path / "loose.npz", who)
    assert embeddings_of(calibration, str(loose)).embeddings[0].labels.tolist() == ["\u00e9ve", "bob"]


def test_two_folders_of_one_person_are_joined_with_all_their_samples(tmp_path: Path) -> None:
    touch(tmp_path, "faces/\u00e9ve/1.png", "faces/e\u0301ve/1.png", "voices/\u00e9ve/1.wav")
    calibration = opened(tmp_path)
    assert calibration.identities == ("\u00e9ve",)
    assert len({(s.modality, s.name) for s in calibration.samples}) == 3
    assert sum(s.path.is_file() for s in calibration.samples) == 3


def test_names_that_differ_in_case_are_kept_apart_and_noted() -> None:
    who = ["p1", "P1", "bob", "ann"]
    calibration = CalibrationSet.from_arrays({"a": (vectors(4), who)}, {"b": (vectors(4, 3), who)})
    assert len(calibration.identities) == 4
    assert "The names of 2 identities differ only in letter case" in calibration.notes[0]
    assert calibration.details[0].startswith("P1 and p1 differ only in letter case")


@pytest.mark.parametrize(
    ("face", "voice", "difference"),
    [
        ("1.0", "1", r"a trailing \.0"), ("1", "b'1'", "b'' around"), ("id0001", "1", "letters before a number"),
        ("7", "p07", "letters before a number"), ('b"ann"', "ann", "b'' around"),
    ],
)  # fmt: skip
def test_hints_name_the_difference(tmp_path: Path, face: str, voice: str, difference: str) -> None:
    for one, other in ((face, voice), (voice, face)):
        with pytest.raises(BadCalibration, match=f"1 of them differ only in {difference}"):
            CalibrationSet.from_arrays({"a": (vectors(1), [one])}, {"b": (vectors(1), [other])})


def test_different_letters_before_a_number_are_no_hint() -> None:
    with pytest.raises(BadCalibration) as caught:
        CalibrationSet.from_arrays({"a": (vectors(1), ["f1"])}, {"b": (vectors(1), ["m1"])})
    assert "differ only" not in str(caught.value)


# Files beside embeddings


def test_files_of_another_kind_beside_embeddings_are_named(tmp_path: Path) -> None:
    embeddings(tmp_path, ["ann"], ["ann"])
    np.save(tmp_path / "faces/clip.npy", vectors(1))
    (tmp_path / "faces/clip.csv").write_text("identity\nann\n")
    touch(tmp_path, "faces/@eaDir/x.jpg", "voices/.DS_Store", "voices/Thumbs.db")
    assert opened(tmp_path).details == ()
    touch(tmp_path, "voices/wavlm.pt", "faces/other.csv")
    (detail,) = opened(tmp_path).details
    assert detail.startswith("Other files and folders are not used: faces/other.csv, voices/wavlm.pt; save arrays")


def test_folders_beside_embeddings_are_named_unless_they_hold_media_of_both(tmp_path: Path) -> None:
    embeddings(tmp_path, ["ann"], ["ann"])
    touch(tmp_path, "faces/old/a.txt", "faces/old/ann.png", "voices/readme/b.txt")
    found = opened(tmp_path)
    assert found.layout == "embeddings"
    assert found.details[0].startswith("Other files and folders are not used: faces/old, voices/readme; save arrays")
    touch(tmp_path, "faces/ann/0.png", "voices/ann/0.wav")
    assert opened(tmp_path).layout != "embeddings"


def test_embeddings_of_other_kinds_alone_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "faces/clip.pkl", "voices/wavlm.ark")
    refused(tmp_path, "has no embedding files; .* faces/clip.pkl, voices/wavlm.ark; save arrays")
