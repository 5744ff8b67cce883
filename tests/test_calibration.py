"""From a path to a calibration set: layouts named, people joined, subsamples drawn, bad sets refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from media_samples import write_set

from encsel.core import Skipped
from encsel.data.calibration_set import Calibration, check_skipped, open_calibration
from encsel.errors import BadCalibration, EncselError, UsageError


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def media(root: Path, faces: str, voices: str, n_samples: int = 1) -> Path:
    """Empty files of these people; who only lists a set does not open them."""
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


def refused(root: Path, match: str, **options: Any) -> str:
    with pytest.raises(BadCalibration, match=match) as caught:
        open_calibration(root, **options)
    assert caught.value.exit_code == 3
    return str(caught.value)


def listed(calibration: Calibration) -> set[tuple[str, str, str]]:
    return {(s.modality, s.identity, s.name) for s in calibration.samples}


# Media


def test_media_set_is_opened(tmp_path: Path) -> None:
    calibration = open_calibration(write_set(tmp_path, n_identities=3))
    assert calibration.layout == "faces/ID + voices/ID"
    assert calibration.identities == ("p00", "p01", "p02")
    assert (len(calibration.samples), calibration.embeddings, calibration.notes) == (12, (), ())
    assert all(s.path.is_file() for s in calibration.samples)


def test_people_of_one_modality_are_left_out_and_noted(tmp_path: Path) -> None:
    calibration = open_calibration(media(tmp_path, "ann bob cy", "bob cy dan eve"))
    assert calibration.identities == ("bob", "cy")
    assert {s.identity for s in calibration.samples} == {"bob", "cy"}
    assert calibration.notes == (
        "1 of 3 identities have only faces and are left out.",
        "2 of 4 identities have only voices and are left out.",
    )


def test_files_of_other_kinds_are_noted(tmp_path: Path) -> None:
    touch(media(tmp_path, "ann", "ann"), "faces/ann/a.txt", "faces/ann/b.txt", "voices/ann/c.json")
    assert open_calibration(tmp_path).notes == (
        "Files of other kinds among the samples are not used: 1 .json, 2 .txt.",
    )


def test_manifest_may_be_given_as_a_file_or_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("identity,modality,path,sex\nann,face,1.png,f\nann,voice,1.wav,f\n")
    by_file, by_folder = open_calibration(tmp_path / "manifest.csv"), open_calibration(tmp_path)
    assert by_file.samples == by_folder.samples
    assert by_file.samples[0].attributes == {"sex": "f"}


def test_manifest_goes_before_embedding_files(tmp_path: Path) -> None:
    embeddings(tmp_path, ["ann"], ["ann"])
    (tmp_path / "manifest.csv").write_text("identity,modality,path\nbob,face,1.png\nbob,voice,1.wav\n")
    assert open_calibration(tmp_path).identities == ("bob",)


# Subsamples


def test_subsample_of_people_depends_on_the_seed_alone(tmp_path: Path) -> None:
    people = " ".join(f"p{i:02d}" for i in range(30))
    root = media(tmp_path, people, people)
    first = open_calibration(root, identities=10, seed=1)
    assert first.identities == open_calibration(root, identities=10, seed=1).identities
    assert first.identities != open_calibration(root, identities=10, seed=2).identities
    assert len(first.identities) == 10
    assert {s.identity for s in first.samples} == set(first.identities)


def test_same_people_are_drawn_from_media_and_from_embeddings(tmp_path: Path) -> None:
    people = [f"p{i:02d}" for i in range(30)]
    from_media = open_calibration(media(tmp_path / "media", " ".join(people), " ".join(people)), identities=7)
    from_files = open_calibration(embeddings(tmp_path / "files", people[::-1], people), identities=7)
    assert from_media.identities == from_files.identities


def test_samples_per_identity_is_the_most_of_each_person_and_modality(tmp_path: Path) -> None:
    root = media(tmp_path, "ann bob", "ann bob", n_samples=9)
    limited = open_calibration(root, samples_per_identity=4, seed=0)
    counts: dict[tuple[str, str], int] = {}
    for s in limited.samples:
        counts[s.modality, s.identity] = counts.get((s.modality, s.identity), 0) + 1
    assert counts == {(m, p): 4 for m in ("face", "voice") for p in ("ann", "bob")}
    assert listed(limited) != listed(open_calibration(root, samples_per_identity=4, seed=1))
    assert len(open_calibration(root, samples_per_identity=99).samples) == 36


def test_samples_do_not_depend_on_who_else_is_there(tmp_path: Path) -> None:
    alone = open_calibration(media(tmp_path / "a", "ann", "ann", n_samples=9), samples_per_identity=3)
    among = open_calibration(media(tmp_path / "b", "abe ann zed", "ann zed abe", n_samples=9), samples_per_identity=3)
    assert listed(alone) == {key for key in listed(among) if key[1] == "ann"}


def test_more_people_than_there_are_is_refused(tmp_path: Path) -> None:
    refused(
        media(tmp_path, "ann bob", "ann bob cy"), "2 identities have both faces and voices; --identities asks for 3",
        identities=3,
    )  # fmt: skip


@pytest.mark.parametrize("option", ["identities", "samples_per_identity"])
def test_a_subsample_of_nothing_is_a_usage_error(tmp_path: Path, option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} is 0; at least 1 is needed") as caught:
        open_calibration(media(tmp_path, "ann", "ann"), **{option: 0})
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
    refused(tmp_path, "cannot be read: Permission denied. Check the path and who may read it")


def test_a_file_that_is_no_manifest(tmp_path: Path) -> None:
    refused(touch(tmp_path, "a.zip") / "a.zip", r"a\.zip is a \.zip file; a folder or a manifest CSV is needed")


def test_unknown_layout_says_what_is_there_and_what_is_known(tmp_path: Path) -> None:
    said = refused(touch(tmp_path, "readme.md", "pictures/1.png"), "has no layout that encsel knows")
    assert "it holds pictures/, readme.md" in said
    for known in ("manifest", "faces/ID", "ROOT/ID/", "VoxCeleb1", "MAV-Celeb", ".npz"):
        assert known in said


def test_empty_folder(tmp_path: Path) -> None:
    refused(tmp_path, "it holds nothing")


@pytest.mark.parametrize(("faces", "voices", "missing"), [("ann", "", "voice"), ("", "ann", "face")])
def test_one_modality_missing(tmp_path: Path, faces: str, voices: str, missing: str) -> None:
    refused(media(tmp_path, faces, voices), f"no {missing}s/ID folders")


def test_a_modality_without_readable_files_says_what_lies_there(tmp_path: Path) -> None:
    touch(media(tmp_path, "ann bob", ""), "voices/ann/1.txt", "voices/bob/1.txt")
    refused(tmp_path, "holds no voice samples to read; .* 2 .txt")


def test_manifest_with_one_modality(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("identity,modality,path\nann,face,1.png\n")
    refused(tmp_path / "m.csv", "holds no voice samples")


def test_no_common_identities_shows_both_sides(tmp_path: Path) -> None:
    said = refused(
        media(tmp_path, "ann bob cy dan eve fay", "x1 x2"),
        r"faces are of ann, bob, cy, dan, eve, \.\.\. \(6 in all\), voices of x1, x2",
    )
    assert "differ only" not in said


@pytest.mark.parametrize(("face", "voice"), [("Ann", "ann"), ("7", "007"), ("p1", "p01"), ("a01b2", "a1b02"),
                                             ("e\u0301ve", "\u00e9ve")])  # fmt: skip
def test_identities_that_nearly_match_are_hinted_at(tmp_path: Path, face: str, voice: str) -> None:
    refused(media(tmp_path, f"{face} bob", f"{voice} cy"), "1 of them differ only in letter case, leading zeros")
    media(tmp_path, "dan", "dan")
    assert "differ only in letter case" in open_calibration(tmp_path).notes[0]


@pytest.mark.parametrize(("face", "voice"), [("p10", "p1"), ("p0", "p"), ("100", "1")])
def test_other_identities_do_not_nearly_match(tmp_path: Path, face: str, voice: str) -> None:
    assert "differ only" not in refused(media(tmp_path, face, voice), "No identity")


# Embeddings


def test_embedding_files_are_opened(tmp_path: Path) -> None:
    embeddings(tmp_path, ["ann", "ann", "bob"], ["bob", "ann", "cy"])
    safetensors.numpy.save_file({"embeddings": vectors(2, 9)}, tmp_path / "voices/wavlm.safetensors")
    (tmp_path / "voices/wavlm.csv").write_text("identity,sample\nann,1\ndan,1\n")
    np.save(tmp_path / "faces/clip.npy", vectors(2, 3))
    (tmp_path / "faces/clip.csv").write_text("identity\nbob\nann\n")
    calibration = open_calibration(tmp_path)
    assert (calibration.layout, calibration.samples) == ("embeddings", ())
    assert [(e.modality, e.name, e.vectors.shape) for e in calibration.embeddings] == [
        ("face", "clip", (2, 3)), ("face", "facenet", (3, 5)), ("voice", "ecapa", (2, 5)), ("voice", "wavlm", (1, 9)),
    ]  # fmt: skip
    assert calibration.identities == ("ann", "bob")
    assert calibration.notes == ("2 of 4 identities have only voices and are left out.",)
    assert calibration.details == ("Only voices: cy, dan.",)


def test_whole_number_labels_join_with_text_labels(tmp_path: Path) -> None:
    assert open_calibration(embeddings(tmp_path, [3, 1, 2], ["1", "2", "x"])).identities == ("1", "2")


def test_repeated_rows_count_once(tmp_path: Path) -> None:
    rows = vectors(3)
    npz(tmp_path / "faces/facenet.npz", ["ann", "ann", "bob", "ann"], rows[[0, 1, 2, 0]])
    npz(tmp_path / "voices/ecapa.npz", ["ann", "bob"])
    assert len(open_calibration(tmp_path).embeddings[0].vectors) == 3


def test_subsample_of_rows_is_the_same_for_every_encoder_of_a_modality(tmp_path: Path) -> None:
    labels, names = np.repeat(["ann", "bob", "cy"], 12), np.array([f"s{i:02d}" for i in range(36)])
    order = np.random.default_rng(1).permutation(36)
    npz(tmp_path / "faces/one.npz", labels, samples=names)
    npz(tmp_path / "faces/two.npz", labels[order], vectors(36, 8, seed=9), samples=names[order])
    npz(tmp_path / "voices/ecapa.npz", labels, samples=names)
    calibration = open_calibration(tmp_path, identities=2, samples_per_identity=5, seed=3)
    one, two, voice = ({*zip(e.labels, e.samples, strict=True)} for e in calibration.embeddings)
    assert one == two
    assert one != voice
    assert len(one) == len(voice) == 10
    assert {label for label, _ in one} == set(calibration.identities)


def test_an_encoder_without_common_people_has_no_rows(tmp_path: Path) -> None:
    embeddings(tmp_path, ["ann", "bob"], ["ann", "bob"])
    npz(tmp_path / "faces/other.npz", ["zed"])
    calibration = open_calibration(tmp_path, samples_per_identity=1)
    assert [len(e.vectors) for e in calibration.embeddings] == [2, 0, 2]


def test_few_unusable_rows_are_skipped_and_many_refused(tmp_path: Path) -> None:
    labels, rows = np.array([f"p{i % 20}" for i in range(100)]), vectors(100)
    npz(tmp_path / "voices/ecapa.npz", labels)
    rows[:5] = np.nan
    npz(tmp_path / "faces/facenet.npz", labels, rows)
    calibration = open_calibration(tmp_path)
    assert [(s.encoder, s.sample, s.reason) for s in calibration.skipped][:1] == [
        ("facenet", "p0/0", "non-finite values")
    ]
    assert len(calibration.skipped) == 5
    rows[5] = 0
    npz(tmp_path / "faces/facenet.npz", labels, rows)
    said = refused(tmp_path, r"6 of 100 face samples cannot be used \(p0/0: non-finite values;.*at most 5% may be")
    assert "--max-skipped" in said
    assert len(open_calibration(tmp_path, max_skipped=0.06).skipped) == 6


def test_no_usable_rows_is_refused_even_when_all_may_be_skipped(tmp_path: Path) -> None:
    npz(tmp_path / "faces/facenet.npz", ["ann"], np.zeros((1, 4)))
    npz(tmp_path / "voices/ecapa.npz", ["ann"])
    refused(tmp_path, "holds no face samples to read", max_skipped=1.0)


@pytest.mark.parametrize(("present", "absent"), [("face", "voice"), ("voice", "face")])
def test_embeddings_of_one_modality(tmp_path: Path, present: str, absent: str) -> None:
    npz(tmp_path / f"{present}s/a.npz", ["ann"])
    match = rf"1 embedding file\(s\) in {present}s/ and none in {absent}s/.*NAME.npz"
    refused(tmp_path, match)
    (tmp_path / f"{absent}s").mkdir()
    refused(tmp_path, match)


def test_two_embedding_files_of_one_name(tmp_path: Path) -> None:
    embeddings(tmp_path, ["ann"], ["ann"])
    safetensors.numpy.save_file({"embeddings": vectors(1)}, tmp_path / "faces/facenet.safetensors")
    refused(tmp_path, "has two files named facenet; .* Rename one")


def test_embeddings_without_common_identities(tmp_path: Path) -> None:
    refused(embeddings(tmp_path, [1, 2], ["01", "02"]), "faces are of 1, 2, voices of 01, 02.*2 of them differ only")


def test_a_bad_embedding_file_is_named(tmp_path: Path) -> None:
    embeddings(tmp_path, ["ann"], ["ann"])
    (tmp_path / "voices/broken.npz").write_bytes(b"PK")
    refused(tmp_path, "broken.npz is damaged or no .npz file")


# Shares of unusable samples


def test_share_of_unusable_samples_is_judged_for_each_modality() -> None:
    skipped = [Skipped("voice", f"ann/{i}", "silent") for i in range(3)]
    check_skipped(skipped, {"face": 0, "voice": 60}, 0.05)
    with pytest.raises(
        BadCalibration, match=r"3 of 59 voice samples .*\(ann/0: silent; ann/1: silent; ann/2: silent\)"
    ):
        check_skipped(skipped, {"face": 1000, "voice": 59}, 0.05)
    with pytest.raises(BadCalibration, match=r"3 of 59 .* at most 0\.5% may be skipped"):
        check_skipped(skipped, {"face": 0, "voice": 59}, 0.005)
    with pytest.raises(BadCalibration, match=r"silent; \.\.\.\)"):
        check_skipped([*skipped, *skipped], {"face": 0, "voice": 6}, 0.05)


def test_every_refusal_belongs_to_the_family() -> None:
    assert issubclass(BadCalibration, EncselError)
