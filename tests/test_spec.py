"""The text that names an encoder, parsed and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encsel.core import Spec
from encsel.errors import UsageError
from encsel.loading.spec import is_hub_id, is_path, namesake, parse


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("hog", Spec("hog")),
        ("clip:openai/clip-vit-base-patch16", Spec("clip", "openai/clip-vit-base-patch16")),
        ("wavlm@layer=6", Spec("wavlm", None, {"layer": "6"})),
        (
            "wavlm:some/dir@layer=all,revision=abc",
            Spec("wavlm", "some/dir", {"layer": "all", "revision": "abc"}),
        ),
        ("arcface:w600k.onnx", Spec("arcface", "w600k.onnx")),
        ("clip:my@home/model", Spec("clip", "my@home/model")),
        ("clip:C:/models/x", Spec("clip", "C:/models/x")),
        ("onnx:C:\\models\\x.onnx@size=112", Spec("onnx", "C:\\models\\x.onnx", {"size": "112"})),
        ("py:package.module:function", Spec("py", "package.module:function")),
        ("facebook/dinov2-base@layer=3", Spec("", "facebook/dinov2-base", {"layer": "3"})),
        ("./models/mine", Spec("", "./models/mine")),
        ("/models/a:b", Spec("", "/models/a:b")),
        ("w600k_r50.onnx", Spec("", "w600k_r50.onnx")),
        ("C:\\models\\mine", Spec("", "C:\\models\\mine")),
    ],
)
def test_spec_parses(text, spec):
    assert parse(text) == spec


@given(
    st.builds(
        Spec,
        st.from_regex(r"[a-z][a-z0-9_]{1,8}", fullmatch=True),
        st.none() | st.from_regex(r"[A-Za-z0-9_./@-]{1,20}", fullmatch=True).filter(lambda c: c.strip()),
        st.dictionaries(
            st.sampled_from(["revision", "pooling"]), st.from_regex(r"[A-Za-z0-9_.-]{1,8}", fullmatch=True)
        ),
    )
)
def test_spec_round_trips(spec):
    assert parse(str(spec)) == spec


@given(st.text(max_size=40))
def test_any_text_parses_or_is_a_usage_error_and_round_trips(text):
    try:
        spec = parse(text)
    except UsageError:
        return
    assert parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no encoder"),
        (":x", "names no family"),
        ("c:x", "names no family"),
        ("clip:", "no checkpoint"),
        ("clip@La=3", "where a key is needed"),
        ("clip@layer=", "no value"),
        ("clip@layer=1,layer=2", "twice"),
        ("clip@layer=-1", "'last' or 'all'"),
        ("clip@dtype=int8", "float32"),
        ("clip@name=a/b", "file name"),
    ],
)
def test_a_bad_spec_says_what_is_wrong(text, words):
    with pytest.raises(UsageError, match=words) as caught:
        parse(text)
    assert caught.value.exit_code == 2


def test_name_has_no_folders_of_this_machine():
    assert parse("wavlm:/models/people/big@layer=3").name == "wavlm:big@layer=3"
    assert parse("wavlm:/models/big@name=mine").name == "mine"
    assert parse("hog").name == "hog"


def test_name_of_a_checkpoint_alone_has_no_family():
    assert parse("facebook/dinov2-base").name == "dinov2-base"
    assert parse("./models/big@layer=3").name == "big@layer=3"
    assert parse("/models/spk.onnx").name == "spk.onnx"


@pytest.mark.parametrize(
    "text", ["./a", "../a/b", "/a", "~/a", "~", ".", "a/b/c", "spk.onnx", "ck/spk.onnx", "C:\\a", "a\\b"]
)
def test_path_is_told_from_a_repository_by_its_form(text):
    assert is_path(text)
    assert not is_hub_id(text)


@pytest.mark.parametrize("text", ["facebook/dinov2-base", "a/b", "timm/vit_small.augreg_in21k"])
def test_org_and_name_are_a_repository_of_the_hub(text):
    assert is_hub_id(text)
    assert not is_path(text)


def test_folder_with_the_name_of_a_repository_or_family_is_noted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert namesake(parse("acme/face"), "face") is None
    (tmp_path / "acme" / "face").mkdir(parents=True)
    (tmp_path / "hog").mkdir()
    assert "for the folder here, name it ./acme/face" in namesake(parse("acme/face"), "face")
    assert "for the folder here, name it clip:./acme/face" in namesake(parse("clip:acme/face"), "face")
    assert "for the folder here, name it ./hog" in namesake(parse("hog"), "face")
    assert namesake(parse("./acme/face"), "face") is None
