"""The text that names an encoder, parsed and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encsel.core import SPEC_OPTIONS, Spec
from encsel.errors import UsageError
from encsel.loading.spec import parse


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
    ],
)
def test_spec_parses(text, spec):
    assert parse(text) == spec


@given(
    st.builds(
        Spec,
        st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
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
        ("", "names no family"),
        (":x", "names no family"),
        ("clip:", "no checkpoint"),
        ("clip@layr=3", "Did you mean 'layer'"),
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


def test_every_option_is_in_the_text_of_the_spec():
    options = dict.fromkeys(SPEC_OPTIONS, "1") | {"dtype": "float32"}
    assert all(f"{key}=" in str(Spec("clip", None, options)) for key in SPEC_OPTIONS)
