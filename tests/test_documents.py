"""JSON is decoded strictly as dataclasses, and its schema says the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest
from jsonschema import Draft202012Validator

from encsel.storage.documents import Malformed, decoded, schema_of


@dataclass(frozen=True)
class Part:
    """One part.

    More about it.
    """

    kind: Literal["a", "b"]
    is_on: bool


@dataclass(frozen=True)
class Whole:
    """A whole."""

    number: float
    count: int | None
    table: Mapping[str, str | int | None]
    range: tuple[float, float]
    parts: tuple[Part, ...]
    reason: str | None = None


GOOD = {
    "number": 1, "count": 3, "table": {"z": 1, "a": "text", "m": None}, "range": [1, 2.5],
    "parts": [{"kind": "a", "is_on": True}], "reason": None,
}  # fmt: skip


def test_value_becomes_the_dataclass_in_the_same_order():
    whole = decoded(Whole, GOOD, "whole")
    assert whole == Whole(1.0, 3, {"z": 1, "a": "text", "m": None}, (1.0, 2.5), (Part("a", True),))
    assert list(whole.table) == ["z", "a", "m"]
    assert (type(whole.number), type(whole.table["z"])) == (float, int)
    assert decoded(tuple[Part, ...], GOOD["parts"], "parts") == whole.parts
    assert decoded(Part | None, None, "part") is None


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"number": True}, "whole.number"),
        ({"number": "1"}, "whole.number"),
        ({"number": float("nan")}, "whole.number"),
        ({"number": float("inf")}, "whole.number"),
        ({"number": 10**400}, "whole: an integer is out of range"),
        ({"number": 10**5000}, "whole"),
        ({"count": True}, "whole.count"),
        ({"count": 3.0}, "whole.count"),
        ({"count": "3"}, "whole.count"),
        ({"count": 2**53 + 1}, "whole: an integer is out of range"),
        ({"table": {"a": 1.5}}, "whole.table.a"),
        ({"table": []}, "whole.table"),
        ({"range": [1]}, "whole.range"),
        ({"range": [1, 2, 3]}, "whole.range"),
        ({"parts": [{"kind": "c", "is_on": True}]}, r"whole.parts\[0\].kind"),
        ({"parts": [{"kind": "a", "is_on": 1}]}, r"whole.parts\[0\].is_on"),
        ({"parts": [{"kind": "a"}]}, r"whole.parts\[0\].is_on"),
        ({"parts": [{"kind": "a", "is_on": True, "more": 1}]}, r"whole.parts\[0\].more"),
        ({"reason": "\ud800"}, "whole"),
        ({"more": 1}, "whole.more"),
    ],
)
def test_value_of_another_type_is_refused_with_its_place(change, place):
    with pytest.raises(Malformed, match=place):
        decoded(Whole, GOOD | change, "whole")


def test_missing_key_is_refused_though_it_has_a_default():
    with pytest.raises(Malformed, match="lacks a key"):
        decoded(Whole, {key: value for key, value in GOOD.items() if key != "reason"}, "whole")


def test_endless_nesting_is_refused():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Malformed):
        decoded(Whole, GOOD | {"table": deep}, "whole")


def test_schema_takes_what_is_decoded():
    schema = schema_of(Whole)
    Draft202012Validator.check_schema(schema)
    assert schema["description"] == "A whole."
    assert schema["properties"]["parts"]["items"]["description"] == "One part."
    validator = Draft202012Validator(schema)
    assert validator.is_valid(json.loads(json.dumps(dataclasses.asdict(decoded(Whole, GOOD, "whole")))))
    for change in ({"more": 1}, {"number": "1"}, {"range": [1]}, {"table": {"a": []}}):
        assert not validator.is_valid(GOOD | change)
    assert not validator.is_valid({key: value for key, value in GOOD.items() if key != "reason"})
