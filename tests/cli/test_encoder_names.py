"""What the command line says of encoders: the list, one of them, and names that are wrong."""

from __future__ import annotations

import json

import pytest
from media_samples import write_set
from onnx_models import write_channel_means

from encsel.loading.registry import encoder_family


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("media"), n_identities=6, n_samples=2)


def test_list_fits_80_columns_and_begins_with_what_is_here(call):
    code, out, _ = call("encoders", "list")
    lines = out.splitlines()
    assert code == 0
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:3] == ["here", "modality", "name"]
    assert [line.split()[0] for line in lines[1:5]] == ["yes"] * 4


def test_list_has_everything_in_json(call):
    facts = json.loads(call("encoders", "list", "--format", "json")[1])
    assert {f["name"] for f in facts} >= {"clip", "hf", "py", "hog", "ecapa"}
    assert next(f for f in facts if f["name"] == "clip")["licence"].startswith("MIT (openai/CLIP); its card")


def test_show_says_of_a_foreign_checkpoint_only_what_its_files_state(call, tmp_path):
    path = write_channel_means(tmp_path / "face.onnx")
    code, out, _ = call("encoders", "show", f"arcface:{path}")
    assert code == 0
    assert "dim: 3" in out
    assert "licence: see the source of face.onnx" in out
    for invented in ("buffalo", "insightface's models", "WebFace", "44 M", "289 MB"):
        assert invented not in out


def test_show_tells_how_a_checkpoint_is_pooled(call, tmp_path):
    encoder_family("hf", "face").write_tiny(tmp_path)
    out = call("encoders", "show", tmp_path)[1]
    assert "family: hf" in out
    assert '"pooling": "pooler_output of the model"' in out


def test_show_and_fetch_ask_for_the_modality_where_a_family_has_both(call, tmp_path):
    for command in ("show", "fetch"):
        code, _, err = call("encoders", command, f"hf:{tmp_path}")
        assert (code, "Say which, with --modality" in err) == (2, True)
    encoder_family("hf", "face").write_tiny(tmp_path)
    assert "modality: face" in call("encoders", "show", f"hf:{tmp_path}", "--modality", "face")[1]


@pytest.mark.parametrize("command", ["rank", "validate", "embed"])
def test_unknown_encoder_comes_before_the_number_of_people(call, media, tmp_path, command):
    more = ("-o", tmp_path / "out") if command == "embed" else ()
    code, _, err = call(command, media, "--face", "hogg", "--voice", "ltas", *more)
    assert (code, "Did you mean 'hog'" in err) == (2, True)
    assert "identities have both" not in err


@pytest.mark.parametrize("option", ["--explain", "--expect-best"])
def test_pair_that_cannot_be_comes_before_any_work(call, media, option):
    code, _, err = call("rank", media, "--face", "hog", "--voice", "ltas", option, "hog/mfcc")
    assert code == 2
    assert f"{option} hog/mfcc: no voice encoder 'mfcc'. Known: ltas." in err
    code, _, err = call("rank", media, "--face", "hog", "--voice", "ltas", option, "hog")
    assert (code, "FACE/VOICE" in err) == (2, True)


def test_family_is_found_in_capitals(call, media):
    options = ("--min-identities", "5", "--no-cache", "--format", "csv", "-q")
    code, out, err = call("rank", media, "--face", "HOG", "--voice", "Ltas", *options)
    assert (code, ",hog,ltas," in out) == (0, True), err


def test_folder_with_the_name_of_an_encoder_is_noted(call, media, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hog").mkdir()
    options = ("--min-identities", "5", "--no-cache", "--format", "csv")
    code, _, err = call("rank", media, "--face", "hog", "--voice", "ltas", *options)
    assert (code, "hog is taken as the face encoder; for the folder here, name it ./hog" in err) == (0, True)
