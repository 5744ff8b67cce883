"""What divides samples and people: recordings from columns and names, groups of people, groups of samples."""

from __future__ import annotations

import numpy as np
import pytest
from toy import people

from encsel.core import Embeddings
from encsel.groups import MIN_PEOPLE, columns_of, person_groups, recordings, sample_groups


def made(samples, modality="face", **columns) -> Embeddings:
    """One encoder of (person, sample name) in this order."""
    n = len(samples)
    vectors = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    labels, names = (np.array([s[i] for s in samples], dtype=np.str_) for i in (0, 1))
    return Embeddings("toy", modality, vectors, labels, names, {k: np.array(v) for k, v in columns.items()})


def two_each(value_of, modality="face", column="sex", n=24) -> Embeddings:
    """Two samples of each of n people; `value_of(i, j)` is the column's value of sample j of person i."""
    samples = [(person, f"s{j}") for person in people(n) for j in range(2)]
    return made(samples, modality, **{column: [value_of(i, j) for i in range(n) for j in range(2)]})


def spoken(speakers, language="language") -> Embeddings:
    """A sample of each person in each language that `speakers` counts, the first so many people having it."""
    pairs = [(person, value) for value, n in speakers.items() for person in people(n)]
    return made([(p, f"{v}-0") for p, v in pairs], "voice", **{language: [v for _, v in pairs]})


# Recordings


@pytest.mark.parametrize("column", ["session", "recording", "video"])
def test_recordings_come_from_a_session_column_before_sample_names(column):
    one = made([("a", "x/0"), ("a", "y/0")], **{column: ["s1", "s2"]})
    assert recordings(one).tolist() == ["s1", "s2"]


def test_sessions_of_two_languages_are_different_recordings():
    one = made([("a", "0"), ("a", "1")], session=["s1", "s1"], language=["en", "ur"])
    assert recordings(one).tolist() == ["en/s1", "ur/s1"]


def test_session_column_with_a_gap_gives_way_to_sample_names():
    one = made([("a", "v1/0"), ("a", "v2/0")], session=["s1", ""])
    assert recordings(one).tolist() == ["v1", "v2"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("v1/0.wav", "v1/1.wav", "v2/0.wav"), ["v1", "v1", "v2"]),
        (("en/v1/0.wav", "ur/v1/0.wav", "ur/v2/0.wav"), ["en/v1", "ur/v1", "ur/v2"]),
    ],
)
def test_recording_of_a_sample_is_its_name_without_the_last_part(names, found):
    assert recordings(made([("a", name) for name in names])).tolist() == found


def test_recordings_are_unknown_where_a_name_has_no_folder():
    assert recordings(made([("a", "v1/0.wav"), ("a", "1.wav")])) is None
    assert recordings(made([("a", "0.wav"), ("a", "1.wav")])) is None


def test_recordings_of_no_samples_are_unknown():
    assert recordings(made([])) is None


# Columns


@pytest.mark.parametrize("before", ["", "a/"])
def test_language_is_the_first_of_three_parts_of_a_name_after_the_person(before):
    one = made([("a", f"{before}en/v1/0"), ("a", f"{before}ur/v2/0")])
    assert columns_of(one)["language"].tolist() == ["en", "ur"]


def test_names_of_two_parts_tell_no_language():
    assert columns_of(made([("a", "v1/0"), ("a", "v2/0")])) == {}


def test_language_column_goes_before_names():
    one = made([("a", "en/v1/0")], language=["urdu"])
    assert columns_of(one)["language"].tolist() == ["urdu"]


def test_first_part_with_many_values_is_no_language():
    assert "language" not in columns_of(made([("a", f"{i}/v/0") for i in range(21)]))


def test_session_columns_group_nothing_and_blanks_around_values_do_not_count():
    one = made([("a", "0"), ("b", "0")], session=["s", "t"], sex=[" f", "m "])
    found = columns_of(one)
    assert list(found) == ["sex"]
    assert found["sex"].tolist() == ["f", "m"]


# Groups of people


def test_column_with_one_value_a_person_makes_person_groups():
    found = person_groups([two_each(lambda i, j: "fm"[i % 2])], people(24))
    assert [(g.column, g.values) for g in found] == [("sex", ("f", "m"))]
    assert found[0].index.tolist() == [0, 1] * 12


def test_person_groups_follow_the_order_of_the_people_asked_for():
    order = people(24)[::-1]
    (found,) = person_groups([two_each(lambda i, j: "fm"[i % 2])], order)
    assert found.index.tolist() == [1, 0] * 12


def test_one_person_with_two_values_makes_a_column_no_person_group():
    assert person_groups([two_each(lambda i, j: "fm"[(i + (i == 0 and j)) % 2])], people(24)) == []


def test_encoders_that_disagree_on_a_person_make_no_person_group():
    face = two_each(lambda i, j: "fm"[i % 2])
    voice = two_each(lambda i, j: "fm"[(i + (i == 0)) % 2], "voice")
    assert person_groups([face, voice], people(24)) == []


@pytest.mark.parametrize(("second", "n_groups"), [(MIN_PEOPLE - 1, 0), (MIN_PEOPLE, 1)])
def test_person_groups_need_two_groups_of_ten(second, n_groups):
    n = 12 + second
    one = two_each(lambda i, j: "f" if i < 12 else "m", n=n)
    assert len(person_groups([one], people(n))) == n_groups


def test_people_of_a_small_group_or_without_a_value_are_in_no_group():
    values = ["f"] * 10 + ["m"] * 10 + ["x"] * 3 + [""]
    (found,) = person_groups([two_each(lambda i, j: values[i])], people(24))
    assert found.values == ("f", "m")
    assert found.index.tolist() == [0] * 10 + [1] * 10 + [-1] * 4


def test_person_groups_count_only_the_people_asked_for():
    one = two_each(lambda i, j: "fm"[i % 2])
    assert person_groups([one], people(18)) == []


# Groups of samples


def test_column_that_varies_within_people_makes_sample_groups():
    found = sample_groups([two_each(lambda i, j: ("en", "ur")[j], column="language")], people(24))
    assert [(g.column, g.values) for g in found] == [("language", ("en", "ur"))]


def test_column_with_one_value_a_person_makes_no_sample_group():
    assert sample_groups([two_each(lambda i, j: "fm"[i % 2])], people(24)) == []


def test_sample_groups_keep_only_values_with_ten_people():
    (found,) = sample_groups([spoken({"en": 12, "ur": 10, "de": 9})], people(12))
    assert found.values == ("en", "ur")


def test_sample_groups_need_ten_people_in_every_encoder():
    one, other = spoken({"en": 12, "ur": 12}), spoken({"en": 12, "ur": 9})
    assert sample_groups([one], people(12))[0].values == ("en", "ur")
    assert sample_groups([one, other], people(12))[0].values == ("en",)


def test_value_that_too_few_people_have_anywhere_makes_no_sample_groups():
    assert sample_groups([spoken({"en": 9, "ur": 9})], people(9)) == []


def test_languages_in_sample_names_make_sample_groups():
    samples = [(person, f"{language}/v/0") for person in people(12) for language in ("en", "ur")]
    (found,) = sample_groups([made(samples), made(samples, "voice")], people(12))
    assert (found.column, found.values) == ("language", ("en", "ur"))
