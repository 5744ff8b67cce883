"""Every layout on disk: which is recognised, which samples it lists, what is wrong with it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encsel.core import Sample
from encsel.data.layouts import MANIFEST_NAME, Listing, recognise
from encsel.errors import BadCalibration


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def manifest(path: Path, *lines: str, end: str = "\n") -> Path:
    path.write_bytes((end.join(("identity,modality,path", *lines)) + end).encode())
    return path


def listed(root: Path, *, allow_outside: bool = False) -> Listing:
    listing = recognise(root, allow_outside=allow_outside)
    assert listing is not None
    keys = [(s.modality, s.identity, s.name) for s in listing.samples]
    assert keys == sorted(set(keys)), "samples are sorted and have names of their own"
    return listing


def people(listing: Listing, modality: str) -> list[str]:
    return sorted({s.identity for s in listing.samples if s.modality == modality})


def names(samples: Iterable[Sample]) -> list[str]:
    return [f"{s.modality} {s.identity} {s.name}" for s in samples]


def refused(root: Path, match: str) -> None:
    with pytest.raises(BadCalibration, match=match) as caught:
        recognise(root)
    assert caught.value.exit_code == 3
    assert str(root) in str(caught.value)


# Folders of faces and of voices


def test_faces_and_voices_by_identity(tmp_path: Path) -> None:
    touch(tmp_path, "faces/ann/1.png", "faces/bob/deep/down/2.JPG", "voices/ann/a.wav", "voices/bob/video/b.FLAC")
    listing = listed(tmp_path)
    assert listing.layout == "faces/ID + voices/ID"
    assert names(listing.samples) == ["face ann 1.png", "face bob deep/down/2.JPG", "voice ann a.wav",
                                      "voice bob video/b.FLAC"]  # fmt: skip
    assert listing.samples[1].path == tmp_path / "faces/bob/deep/down/2.JPG"


def test_identities_keep_spaces_commas_and_letters_of_any_script(tmp_path: Path) -> None:
    odd = ["Zoë, d'Arc", "李 小龙", "a b", "v1", "00"]
    touch(tmp_path, *(f"{folder}/{name}/1.{suffix}" for name in odd for folder, suffix in
                      (("faces", "png"), ("voices", "wav"))))  # fmt: skip
    assert people(listed(tmp_path), "face") == people(listed(tmp_path), "voice") == sorted(odd)


def test_names_that_are_not_utf8_are_listed(tmp_path: Path) -> None:
    try:
        touch(tmp_path, "faces/b\udcff/1.png", "voices/b\udcff/\udcfe.wav")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert people(listed(tmp_path), "voice") == ["b\udcff"]


def test_clutter_is_not_listed(tmp_path: Path) -> None:
    touch(tmp_path, "faces/a/1.png", "voices/a/1.wav", "faces/a/._1.png", "faces/a/.DS_Store", "faces/a/Thumbs.db",
          "faces/.cache/1.png", "voices/a/.hidden/1.wav", "voices/a/__MACOSX/1.wav")  # fmt: skip
    listing = listed(tmp_path)
    assert names(listing.samples) == ["face a 1.png", "voice a 1.wav"]
    assert listing.ignored == {}


def test_files_of_other_kinds_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "faces/a/1.png", "voices/a/1.wav", "faces/a/1.TXT", "voices/a/2.txt", "voices/a/LICENSE",
          "faces/a/2.wav")  # fmt: skip
    listing = listed(tmp_path)
    assert names(listing.samples) == ["face a 1.png", "voice a 1.wav"]
    assert listing.ignored == {".txt": 2, ".wav": 1, "no suffix": 1}


def test_what_stands_behind_a_dot_and_is_no_suffix_is_not_told(tmp_path: Path) -> None:
    touch(tmp_path, "faces/a/0.png", "faces/a/scan.anna karenina", "voices/a/0.wav", "voices/a/x.a\nb")
    assert listed(tmp_path).ignored == {"others": 2}


def test_kinds_that_need_ffmpeg_are_listed_so_that_they_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "faces/a/1.png", "voices/a/1.m4a")
    assert names(listed(tmp_path).samples) == ["face a 1.png", "voice a 1.m4a"]


def test_a_link_that_leads_back_up_is_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "faces/a/1.png", "voices/a/video/1.wav")
    (tmp_path / "faces/a/loop").symlink_to(tmp_path / "faces/a")
    (tmp_path / "voices/a/video/up").symlink_to(tmp_path / "voices/a")
    assert len(listed(tmp_path).samples) == 2


def test_links_to_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "store", "ann/1.png", "deep/2.png")
    touch(tmp_path / "set", "voices/ann/1.wav", "faces/bob/1.png")
    (tmp_path / "set/faces/ann").symlink_to(tmp_path / "store/ann")
    (tmp_path / "set/faces/bob/more").symlink_to(tmp_path / "store/deep")
    assert names(listed(tmp_path / "set").samples)[:3] == ["face ann 1.png", "face bob 1.png", "face bob more/2.png"]


def test_a_link_to_nowhere_is_listed_so_that_it_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "faces/a/1.png", "voices/a/1.wav")
    (tmp_path / "faces/a/2.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "faces/a/3.png").symlink_to("3.png")
    assert len(listed(tmp_path).samples) == 4


def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "faces/a/locked/1.png", "voices/a/1.wav")
    scandir = os.scandir

    def refuse(path: str | os.PathLike[str]) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="locked"):
        recognise(tmp_path)


@pytest.mark.parametrize(("present", "absent"), [("face", "voice"), ("voice", "face")])
def test_one_modality_missing_says_which(tmp_path: Path, present: str, absent: str) -> None:
    touch(tmp_path, f"{present}s/a/1.png", f"{present}s/b/1.wav")
    refused(tmp_path, rf"has {present}s/ with 2 people but no {absent}s/ID folders; .* Add .*{absent}s/ID/")


# A folder for each person


def test_identities_with_faces_and_voices_inside(tmp_path: Path) -> None:
    touch(tmp_path, "ann/faces/1.png", "ann/voices/1.wav", "bob/Images/x/1.png", "bob/face_crops/1.png",
          "bob/audio/1.wav", "cy/img/1.png", "cy/wav/1.wav", "cy/notes/1.txt")  # fmt: skip
    listing = listed(tmp_path)
    assert listing.layout == "ID/faces + ID/voices"
    assert names(listing.samples) == [
        "face ann faces/1.png", "face bob Images/x/1.png", "face bob face_crops/1.png",
        "voice ann voices/1.wav", "voice bob audio/1.wav", "voice cy wav/1.wav",
    ]  # fmt: skip


def test_person_folders_without_voices_say_how_to_name_them(tmp_path: Path) -> None:
    touch(tmp_path, "ann/faces/1.png", "bob/faces/1.png", "bob/speech/1.wav")
    refused(tmp_path, r"ID folders with faces but none with voices; .* voice\* or audio\* or wav\*")


def test_the_folder_above_a_set_is_recognised_as_a_slip(tmp_path: Path) -> None:
    touch(tmp_path, "myset/faces/ann/1.png", "myset/voices/ann/1.wav")
    refused(tmp_path, "of one person, myset; .* use .*myset")


@pytest.mark.parametrize("files", [(), ("a/b/1.png",), ("1.png", "1.wav"), ("faces/1.png", "voices/1.wav")])
def test_other_folders_are_no_layout(tmp_path: Path, files: tuple[str, ...]) -> None:
    assert recognise(touch(tmp_path, *files)) is None


# VoxCeleb1

META = """VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet
id10001\tA.J._Buckley\tm\tIreland\tdev
id10002\tA.R._Rahman\tm\tIndia\ttest
id10003\tAamir_Khan\tm\tIndia\tdev
"""


def test_voxceleb_with_faces_by_id(tmp_path: Path) -> None:
    touch(tmp_path, "wav/id10001/vidA/00001.wav", "wav/id10002/vidB/00001.wav", "faces/id10001/1.6/vidA/0001.jpg",
          "faces/id10002/0.jpg", "wav/README/1.wav")  # fmt: skip
    listing = listed(tmp_path)
    assert listing.layout == "VoxCeleb1, faces by id"
    assert people(listing, "face") == people(listing, "voice") == ["id10001", "id10002"]
    assert [s.attributes for s in listing.samples] == [{"session": "vidA"}, {}, {"session": "vidA"},
                                                       {"session": "vidB"}]  # fmt: skip


@pytest.mark.parametrize("folder", ["faces/", "unzippedFaces/", "dev/unzippedFaces/", ""])
@pytest.mark.parametrize("text", [META, META.replace("\t", ","), "\ufeff" + META.replace("\n", "\r\n")])
def test_voxceleb_with_faces_by_name_joins_through_the_meta_file(tmp_path: Path, folder: str, text: str) -> None:
    touch(tmp_path, "wav/id10001/vidA/00001.wav", "wav/id10003/vidB/00001.wav",
          f"{folder}A.J._Buckley/1.6/vidA/0001.jpg", f"{folder}Aamir_Khan/1.6/vidB/0001.jpg")  # fmt: skip
    (tmp_path / "vox1_meta.csv").write_bytes(text.encode())
    listing = listed(tmp_path)
    assert listing.layout == "VoxCeleb1, faces by name"
    assert people(listing, "face") == people(listing, "voice") == ["id10001", "id10003"]
    assert listing.samples[0].attributes == {"sex": "m", "nationality": "Ireland", "session": "vidA"}


@pytest.mark.parametrize("folder", ["faces", "unzippedFaces"])
def test_voxceleb_with_faces_by_name_needs_the_meta_file(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, "wav/id10001/vidA/00001.wav", f"{folder}/A.J._Buckley/1.6/vidA/0001.jpg")
    refused(tmp_path, "looks like VoxCeleb1 with 1 people in wav/.*vox1_meta.csv, which maps names to ids, is missing")


def test_voxceleb_names_that_the_meta_file_lacks_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "wav/id10001/vidA/00001.wav", "faces/Nobody/0001.jpg")
    (tmp_path / "vox1_meta.csv").write_text(META)
    refused(tmp_path, "no face folder is named by their ids or by a name in vox1_meta.csv")


@pytest.mark.parametrize("text", ["", "id,name\n1,2\n", 'a\n"' + "x" * 200_000 + '"\n'])
def test_another_meta_file_is_refused(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "wav/id10001/vidA/00001.wav", "faces/A.J._Buckley/0001.jpg")
    (tmp_path / "vox1_meta.csv").write_text(text)
    refused(tmp_path, "Replace it with the official file")


def test_voxceleb_dev_and_test_are_one_set(tmp_path: Path) -> None:
    touch(tmp_path, "dev/wav/id10001/vidA/00001.wav", "test/wav/id10002/vidA/00001.wav",
          "dev/wav/id10003/vidA/00001.wav", "test/wav/id10003/vidA/00001.wav",
          *(f"faces/id1000{i}/vidA/0001.jpg" for i in (1, 2, 3)))  # fmt: skip
    listing = listed(tmp_path)
    assert people(listing, "voice") == ["id10001", "id10002", "id10003"]
    assert sum(s.modality == "voice" for s in listing.samples) == 4


def test_voxceleb_names_do_not_depend_on_where_the_set_lies(tmp_path: Path) -> None:
    files = ("wav/id10001/vidA/00001.wav", "id10001/vidA/0001.jpg", "images/id10001/vidA/0001.jpg")
    here, there = (listed(touch(tmp_path / place, *files)) for place in ("one", "wav"))
    assert names(here.samples) == names(there.samples)
    assert len(here.samples) == 3


# MAV-Celeb


def test_mav_celeb_with_one_version(tmp_path: Path) -> None:
    touch(tmp_path, "v1/faces/id0001/English/vidA/1.jpg", "v1/faces/id0001/Urdu/vidB/1.jpg",
          "v1/voices/id0001/English/vidA/1.wav")  # fmt: skip
    listing = listed(tmp_path)
    assert listing.layout == "MAV-Celeb v1"
    assert names(listing.samples)[0] == "face id0001 English/vidA/1.jpg"
    assert listing.samples[1].attributes == {"language": "Urdu", "session": "vidB"}


def test_mav_celeb_with_two_versions_keeps_their_people_apart(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{v}/{m}/id0001/{language}/vidA/1.{suffix}" for v, language in (("v1", "Urdu"), ("v2", "Hindi"))
                      for m, suffix in (("faces", "jpg"), ("voices", "wav"))))  # fmt: skip
    listing = listed(tmp_path)
    assert listing.layout == "MAV-Celeb v1 v2"
    assert people(listing, "face") == people(listing, "voice") == ["v1/id0001", "v2/id0001"]


def test_one_version_of_mav_celeb_is_a_set_of_its_own(tmp_path: Path) -> None:
    touch(tmp_path, "faces/id0001/English/vidA/1.jpg", "voices/id0001/Urdu/vidA/1.wav")
    listing = listed(tmp_path)
    assert listing.layout == "MAV-Celeb"
    assert listing.samples[1].attributes == {"language": "Urdu", "session": "vidA"}


def test_people_named_like_versions_are_people(tmp_path: Path) -> None:
    touch(tmp_path, *(f"v{i}/{m}/take/1.{suffix}" for i in (1, 2)
                      for m, suffix in (("faces", "jpg"), ("voices", "wav"))))  # fmt: skip
    listing = listed(tmp_path)
    assert listing.layout == "ID/faces + ID/voices"
    assert people(listing, "face") == ["v1", "v2"]


def test_other_folders_below_people_are_no_languages(tmp_path: Path) -> None:
    touch(tmp_path, "faces/a/English/1.jpg", "faces/a/profile/1.jpg", "voices/a/English/1.wav")
    assert listed(tmp_path).layout == "faces/ID + voices/ID"


# Manifest


@pytest.mark.parametrize("name", [MANIFEST_NAME, "people.csv"])
def test_manifest_is_read_as_a_file(tmp_path: Path, name: str) -> None:
    path = manifest(tmp_path / name, "ann,face,x/1.png", "ann,voice,y/1.wav")
    listing = listed(path)
    assert listing.layout == "manifest CSV"
    assert names(listing.samples) == ["face ann x/1.png", "voice ann y/1.wav"]
    assert [s.path for s in listing.samples] == [tmp_path / "x/1.png", tmp_path / "y/1.wav"]


def test_manifest_in_the_folder_goes_before_other_layouts(tmp_path: Path) -> None:
    touch(tmp_path, "faces/bob/1.png", "voices/bob/1.wav")
    manifest(tmp_path / MANIFEST_NAME, "ann,face,1.png", "ann,voice,1.wav")
    assert people(listed(tmp_path), "face") == ["ann"]


def test_manifest_from_windows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes("\ufeffidentity, modality ,path\r\nann,Face,1.png\r\n\r\nann,AUDIO,1.wav\r\n".encode())
    assert names(listed(path).samples) == ["face ann 1.png", "voice ann 1.wav"]


def test_manifest_paths_may_be_absolute_or_in_the_home_folder_when_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    lines = ("a,face,/far/x.png", "b,face,~/x.png", "c,face,~x.png", "d,voice,../y/1.wav")
    path = manifest(tmp_path / "m.csv", *lines)
    wanted = [Path("/far/x.png"), tmp_path / "home/x.png", tmp_path / "~x.png", tmp_path / "../y/1.wav"]
    assert [s.path for s in listed(path, allow_outside=True).samples] == wanted


@pytest.mark.parametrize(
    "where",
    ["/etc/passwd", "~/x.png", "../x.png", "..", ".", "a/../../x.png", "./a/.././../set2/x.png", "//x", "../set"],
)
def test_a_path_out_of_the_manifests_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    touch(tmp_path, "set2/x.png", "set/a/x.png")
    path = manifest(tmp_path / "set/m.csv", "ann,face,a/x.png", f"ann,voice,{where}")
    refused(path, rf"line 3: the path '{re.escape(where)}' is outside the manifest's folder.*--allow-outside")
    monkeypatch.chdir(tmp_path / "set")
    refused(Path("m.csv"), "line 3: .* is outside")
    monkeypatch.chdir(tmp_path / "set/a")
    refused(Path("../m.csv"), "line 3: .* is outside")


@pytest.mark.parametrize("allow_outside", [False, True])
def test_a_path_in_the_home_folder_is_refused_without_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allow_outside: bool
) -> None:
    def unknown(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    path = manifest(tmp_path / "m.csv", "ann,face,~/x.png")
    with pytest.raises(
        BadCalibration, match=r"line 2: the path '~/x\.png' cannot be expanded: .* Write the path in full"
    ):
        recognise(path, allow_outside=allow_outside)


def test_paths_that_stay_in_the_manifests_folder_are_no_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    lines = (f"a,face,{tmp_path}/x.png", "b,face,~/x.png", "c,face,y/../x.png", "e,face,..x.png")
    path = manifest(tmp_path / "m.csv", *lines)
    wanted = [tmp_path / "x.png", tmp_path / "home/x.png", tmp_path / "x.png", tmp_path / "..x.png"]
    assert [s.path for s in listed(path).samples] == wanted
    monkeypatch.chdir(tmp_path)
    assert [s.path for s in listed(Path("m.csv")).samples][2:] == [Path("x.png"), Path("..x.png")]


def test_what_is_judged_is_what_is_opened_behind_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "store/ann/1.png", "store/secret.png", "set/secret.png")
    (tmp_path / "set/ann").symlink_to(tmp_path / "store/ann")
    path = manifest(tmp_path / "set/m.csv", "ann,face,ann/1.png", "ann,face,ann/../secret.png")
    assert [s.path.resolve() for s in listed(path).samples] == [
        (tmp_path / "set/secret.png").resolve(), (tmp_path / "store/ann/1.png").resolve()
    ]  # fmt: skip


def test_manifest_cells_may_be_quoted(tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.csv", '"Zoë, ""Z""",face,"a,\nb.png"')
    (sample,) = listed(path).samples
    assert (sample.identity, sample.name) == ('Zoë, "Z"', "a,\nb.png")


def test_extra_columns_of_a_manifest_are_kept(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        ",sex,identity,sample,modality,path,native language\n0, f ,ann,s1,face,1.png,\n1,,bob,s2,face,2.png,Urdu\n"
    )
    ann, bob = listed(tmp_path / "m.csv").samples
    assert (ann.name, ann.attributes) == ("s1", {"sex": "f"})
    assert (bob.name, bob.attributes) == ("s2", {"native language": "Urdu"})


def test_a_line_given_twice_is_one_sample(tmp_path: Path) -> None:
    assert len(listed(manifest(tmp_path / "m.csv", "ann,face,1.png", "ann,face,./1.png")).samples) == 1


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("identity,modality,path,sample\nann,face,1.png,s\nann,face,2.png,s\n")
    refused(tmp_path / "m.csv", "line 3: ann has two face samples named 's'. Give them distinct names")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "lacks the column identity, modality, path; its columns are none"),
        (b"identity,path\nann,1.png\n", "lacks the column modality; its columns are identity, path"),
        (b"id;modality;path\n", "lacks the column .* its columns are id;modality;path"),
        (b"identity,modality,path\n", "has a header but no rows"),
        (b"identity,modality,path,sex,sex\nann,face,1.png,f,m\n", "has the column 'sex' twice"),
        (b"identity,modality,path\nann,fase,1.png\n", "line 2: modality 'fase'. Did you mean 'face'"),
        (b"identity,modality,path\nann,face,1.png\nbob,,2.png\n", "line 3: modality ''"),
        (b"identity,modality,path\nann,face\n", "line 2 does not have as many cells as the header"),
        (b"identity,modality,path\nann,face,1.png,f\n", "line 2 does not have as many cells as the header"),
        (b"identity,modality,path\n ,face,1.png\n", "line 2 has an empty identity or path"),
        (b"identity,modality,path\nann,face, \n", "line 2 has an empty identity or path"),
        (b'identity,modality,path\n"a\nb",face,1.png\n\nann,what,1.png\n', "line 5: modality 'what'"),
        (b'identity,modality,path\n"ann,face,1.png\n', "is not a CSV file"),
        (b"identity,modality,path\nJos\xe9,face,1.png\n", "is not UTF-8 text. Save the manifest CSV as UTF-8"),
        ("identity,modality,path\n".encode("utf-16"), "is not UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n", "is not UTF-8 text"),
    ],
)
def test_damaged_manifests_are_refused(tmp_path: Path, content: bytes, match: str) -> None:
    (tmp_path / "m.csv").write_bytes(content)
    refused(tmp_path / "m.csv", match)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text('ab,"\n\r\0 é', max_size=60).map(lambda t: f"identity,modality,path\n{t}".encode()),
        st.text(",\"\n~/.'é0", max_size=30).map(lambda t: f"identity,modality,path\nann,face,{t}".encode()),
    )
)
def test_no_bytes_break_the_manifest_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    with contextlib.suppress(BadCalibration):
        assert all(s.identity and s.name for s in listed(path).samples)


# As sets are found


CLUTTER = ("@eaDir", "$RECYCLE.BIN", "$Recycle.Bin", "lost+found", "System Volume Information", "@__thumb", "#recycle",
           ".thumbnails", "__MACOSX", "Network Trash Folder")  # fmt: skip


@pytest.mark.parametrize("name", CLUTTER)
def test_folders_of_systems_are_neither_people_nor_samples(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "faces/a/1.png", "voices/a/1.wav", f"faces/{name}/1.png", f"voices/{name}/1.wav",
          f"faces/a/{name}/1.png/thumb.jpg", f"{name}/faces/1.png")  # fmt: skip
    assert names(listed(tmp_path).samples) == ["face a 1.png", "voice a 1.wav"]


@pytest.mark.parametrize(
    ("face", "session"),
    [
        ("1.6/vidA/1/0.jpg", "vidA"), ("1.6/vidA/0.jpg", "vidA"), ("vidA/0.jpg", "vidA"), ("vidA/2/0.jpg", "vidA"),
        ("crops/vidA/0.jpg", "vidA"), ("1.6/other/3/0.jpg", "other"),
    ],
)  # fmt: skip
def test_session_of_a_voxceleb_face_is_its_video(tmp_path: Path, face: str, session: str) -> None:
    touch(tmp_path, "wav/id10001/vidA/00001.wav", f"faces/id10001/{face}")
    (one, voice) = listed(tmp_path).samples
    assert (one.attributes["session"], voice.attributes["session"]) == (session, "vidA")


def test_session_of_a_person_folder_is_below_the_folder_of_the_modality(tmp_path: Path) -> None:
    touch(tmp_path, "ann/faces/vidA/1.png", "ann/voices/vidA/1.wav", "bob/faces/1.png", "bob/voices/1.wav")
    assert [s.attributes for s in listed(tmp_path).samples] == [{"session": "vidA"}, {}] * 2


def test_voxceleb_names_fit_in_any_form_of_accents_and_others_are_hinted_at(tmp_path: Path) -> None:
    touch(tmp_path, "wav/id10001/v/1.wav", "wav/id10002/v/1.wav", "faces/Zoe\u0308/v/1.jpg", "faces/downey_jr/v/1.jpg",
          "faces/Nobody/v/1.jpg")  # fmt: skip
    (tmp_path / "vox1_meta.csv").write_text(
        "VoxCeleb1 ID,VGGFace1 ID,Gender\nid10001,Zo\u00eb,f\nid10002,Downey_Jr.,m\n", encoding="utf-8"
    )
    listing = listed(tmp_path)
    assert people(listing, "face") == ["id10001"]
    (note,) = listing.notes
    assert note.startswith("2 face folders match neither a name in vox1_meta.csv")
    assert "1 of them differ only in letter case" in note


@pytest.mark.parametrize("kind", ["aac", "dev/aac", "mp4"])
@pytest.mark.parametrize("faces", ["frames", "dev/faces", "faces"])
def test_voxceleb2_as_downloaded_is_known(tmp_path: Path, kind: str, faces: str) -> None:
    touch(tmp_path, f"{kind}/id00012/v/1.m4a", f"{faces}/id00012/v/1.jpg")
    refused(tmp_path, f"looks like VoxCeleb2 .*{kind}/ID/VIDEO.*ffmpeg -i .*ROOT/voices/ID.*manifest")


def test_voxceleb2_beside_a_converted_set_is_left_alone(tmp_path: Path) -> None:
    touch(tmp_path, "aac/id00012/v/1.m4a", "faces/id00012/v/1.jpg", "voices/id00012/v/1.wav")
    assert listed(tmp_path).layout == "faces/ID + voices/ID"


def test_backslashes_of_windows_are_read_where_the_path_with_slashes_exists(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.png", "a\\b.png")
    path = manifest(tmp_path / "m.csv", "ann,face,x\\1.png", "bob,face,a\\b.png")
    assert [(s.name, s.path.is_file()) for s in listed(path).samples] == [("x/1.png", True), ("a\\b.png", True)]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("x\\none.png", "has backslashes, as Windows writes them.*Use /"), ("C:\\d\\x.png", "an absolute Windows path"),
        ("D:/d/x.png", "an absolute Windows path"), ("\\\\nas\\x.png", "an absolute Windows path"),
        ("file:///d/x.png", "is a URL"), ("file:/d/x.png", "is a URL"), ("s3://d/x.png", "is a URL"),
        ("..\\..\\" + "x" * 300, "has backslashes"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("allow_outside", [False, True])
def test_paths_in_the_notation_of_another_system_are_refused_at_once(
    tmp_path: Path, where: str, words: str, allow_outside: bool
) -> None:
    path = manifest(tmp_path / "m.csv", f"ann,face,{where}", "bob,what,1.png")
    with pytest.raises(BadCalibration, match=f"line 2: .*{words}"):
        recognise(path, allow_outside=allow_outside)
