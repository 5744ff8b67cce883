"""What divides samples and people: recordings, and columns such as sex or language."""

from __future__ import annotations

import numpy as np
import pytest
from toy import people

from encsel.core import Embeddings, Modality
from encsel.data.groups import MAX_VALUES, MIN_GROUP_SIZE, columns_of, person_groups, recordings, sample_groups


def embeddings(
    samples: list[str], *, labels: list[str] | None = None, modality: Modality = "face", **columns: list[str]
) -> Embeddings:
    """Of one person unless labels say otherwise; vectors that mean nothing."""
    own = labels or ["id0000"] * len(samples)
    return Embeddings(
        "a", modality, np.ones((len(samples), 2), np.float32), np.array(own, dtype=np.str_),
        np.array(samples, dtype=np.str_), {name: np.array(values, dtype=np.str_) for name, values in columns.items()},
    )  # fmt: skip


def of_people(values: dict[str, list[str]], *, column: str = "sex", modality: Modality = "face") -> Embeddings:
    """A sample per person and value of the column."""
    labels = [person for person, own in values.items() for _ in own]
    samples = [f"s{i}" for own in values.values() for i in range(len(own))]
    return embeddings(
        samples, labels=labels, modality=modality, **{column: [v for own in values.values() for v in own]}
    )


def sexes(n_f: int, n_m: int) -> dict[str, list[str]]:
    """Two samples of each person."""
    return {p: ["f", "f"] if i < n_f else ["m", "m"] for i, p in enumerate(people(n_f + n_m))}


# --- recordings


@pytest.mark.parametrize("column", ["session", "recording", "video"])
def test_recordings_are_those_of_a_session_column(column):
    found = recordings(embeddings(["x/1", "x/2"], **{column: ["one", "two"]}))
    assert found.tolist() == ["one", "two"]


def test_session_column_is_taken_within_its_language():
    one = embeddings(["1", "2", "3"], session=["a", "a", "b"], language=["English", "Urdu", "Urdu"])
    assert recordings(one).tolist() == ["English/a", "Urdu/a", "Urdu/b"]


def test_session_column_goes_before_a_video_column():
    assert recordings(embeddings(["1", "2"], video=["v", "v"], session=["a", "b"])).tolist() == ["a", "b"]


def test_session_column_with_a_gap_is_not_used():
    assert recordings(embeddings(["x/1", "y/1"], session=["a", ""])).tolist() == ["x", "y"]
    assert recordings(embeddings(["x/1", "y/1"], session=["a", ""], video=["v", "w"])).tolist() == ["v", "w"]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (["u/1", "u/2", "w/1"], ["u", "u", "w"]),
        (["English/u/1", "Urdu/u/1"], ["English/u", "Urdu/u"]),
        (["id0000/English/u/1", "id0000/Urdu/u/1"], ["id0000/English/u", "id0000/Urdu/u"]),
    ],
)
def test_recordings_are_sample_names_without_their_last_part(samples, expected):
    assert recordings(embeddings(samples)).tolist() == expected


@pytest.mark.parametrize("samples", [["1", "2"], ["u/1", "2"], []])
def test_recordings_are_unknown_where_a_name_has_no_slash(samples):
    assert recordings(embeddings(samples)) is None


# --- columns


@pytest.mark.parametrize("prefix", ["", "id0000/"])
def test_names_of_language_video_and_clip_make_a_language_column(prefix):
    one = embeddings([f"{prefix}English/u/1", f"{prefix}Urdu/w/1"])
    assert columns_of(one)["language"].tolist() == ["English", "Urdu"]


@pytest.mark.parametrize("samples", [["u/1", "w/1"], ["English/u/1", "w/1"], ["1", "2"], []])
def test_names_of_another_form_make_no_language_column(samples):
    assert columns_of(embeddings(samples)) == {}


@pytest.mark.parametrize(("n", "made"), [(MAX_VALUES, True), (MAX_VALUES + 1, False)])
def test_first_parts_of_too_many_kinds_are_no_languages(n, made):
    assert ("language" in columns_of(embeddings([f"l{i}/u/1" for i in range(n)]))) is made


def test_language_column_goes_before_the_names():
    one = embeddings(["English/u/1", "Urdu/w/1"], language=["en", "ur"])
    assert columns_of(one)["language"].tolist() == ["en", "ur"]


def test_columns_are_stripped_and_sessions_are_not_among_them():
    found = columns_of(embeddings(["1", "2"], sex=[" f", "f "], session=["a", "b"], video=["v", "w"]))
    assert {name: values.tolist() for name, values in found.items()} == {"sex": ["f", "f"]}


# --- groups of people


def test_column_with_one_value_a_person_groups_people():
    values = sexes(MIN_GROUP_SIZE, MIN_GROUP_SIZE + 2)
    (found,) = person_groups([of_people(values)], sorted(values))
    assert (found.column, found.values) == ("sex", ("f", "m"))
    assert found.index.tolist() == [0] * MIN_GROUP_SIZE + [1] * (MIN_GROUP_SIZE + 2)


def test_person_with_two_values_makes_a_column_group_no_people():
    values = {**sexes(12, 12), "id0000": ["f", "m"]}
    assert person_groups([of_people(values)], sorted(values)) == []


def test_person_whose_value_differs_between_encoders_makes_a_column_group_no_people():
    values = sexes(12, 12)
    other = {**values, "id0000": ["m"]}
    assert person_groups([of_people(values), of_people(other, modality="voice")], sorted(values)) == []


def test_values_of_people_left_out_do_not_matter():
    values = {**sexes(12, 12), "other": ["f", "m"]}
    (found,) = person_groups([of_people(values)], people(24))
    assert len(found.index) == 24


@pytest.mark.parametrize(("n_f", "n_m"), [(MIN_GROUP_SIZE, MIN_GROUP_SIZE - 1), (30, 0)])
def test_one_group_of_enough_people_is_no_grouping(n_f, n_m):
    values = sexes(n_f, n_m)
    assert person_groups([of_people(values)], sorted(values)) == []


def test_people_of_a_small_group_or_without_a_value_are_in_no_group():
    values = {**sexes(MIN_GROUP_SIZE, MIN_GROUP_SIZE), "x": ["other"], "y": [""]}
    (found,) = person_groups([of_people(values)], sorted(values))
    assert found.values == ("f", "m")
    assert dict(zip(sorted(values), found.index.tolist(), strict=True)) == {
        p: -1 if p in "xy" else "fm".index(values[p][0]) for p in values
    }


def test_empty_cell_beside_a_value_is_no_second_value():
    values = {**sexes(MIN_GROUP_SIZE, MIN_GROUP_SIZE), "id0000": ["f", ""]}
    (found,) = person_groups([of_people(values)], sorted(values))
    assert found.index[0] == 0


def test_columns_come_in_the_order_of_their_names():
    labels = people(20)
    halves, parity = [str(i // 10) for i in range(20)], [str(i % 2) for i in range(20)]
    one = embeddings(["s"] * 20, labels=labels, sex=halves, accent=parity)
    assert [g.column for g in person_groups([one], labels)] == ["accent", "sex"]


# --- groups of samples


def languages(n_both: int, n_english: int = 0) -> dict[str, list[str]]:
    return {p: ["English", "Urdu"] if i < n_both else ["English"] for i, p in enumerate(people(n_both + n_english))}


def both_sides(face: dict[str, list[str]], voice: dict[str, list[str]]) -> list[Embeddings]:
    return [of_people(face, column="language"), of_people(voice, column="language", modality="voice")]


def test_column_whose_values_differ_within_people_groups_samples():
    values = languages(12)
    (found,) = sample_groups(both_sides(values, values), sorted(values))
    assert (found.column, found.values) == ("language", ("English", "Urdu"))
    assert person_groups(both_sides(values, values), sorted(values)) == []


def test_column_with_one_value_a_person_groups_no_samples():
    values = sexes(12, 12)
    assert sample_groups([of_people(values)], sorted(values)) == []


@pytest.mark.parametrize(("n", "expected"), [(MIN_GROUP_SIZE, ("English", "Urdu")), (MIN_GROUP_SIZE - 1, ("English",))])
def test_value_needs_ten_people(n, expected):
    values = languages(n, n_english=5)
    (found,) = sample_groups(both_sides(values, values), sorted(values))
    assert found.values == expected


def test_value_needs_the_same_ten_people_in_every_encoder():
    # Twelve people speak Urdu in either encoder, eight of them in both.
    names = people(16)
    face = {p: ["English", "Urdu"] if i < 12 else ["English"] for i, p in enumerate(names)}
    voice = {p: ["English", "Urdu"] if i >= 4 else ["English"] for i, p in enumerate(names)}
    (found,) = sample_groups(both_sides(face, voice), names)
    assert found.values == ("English",)


def test_column_without_a_value_of_enough_people_groups_no_samples():
    values = languages(MIN_GROUP_SIZE - 1)
    assert sample_groups(both_sides(values, values), sorted(values)) == []


def test_column_of_many_values_names_samples_and_groups_none():
    values = {p: [f"v{i}" for i in range(MAX_VALUES + 1)] for p in people(12)}
    assert sample_groups(both_sides(values, values), sorted(values)) == []


def test_column_that_an_encoder_lacks_groups_no_samples():
    values = languages(12)
    one = of_people(values, column="language")
    assert sample_groups([one, of_people(values, column="accent", modality="voice")], sorted(values)) == []
