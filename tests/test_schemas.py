"""Documents keep to their published JSON Schema."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from toy import write_population

import encsel
from encsel.gates.judge import checked_gates
from encsel.ranking.rank import verdict_on
from encsel.reports.schemas import schemas
from encsel.storage.result import plain

FEW = 20


@functools.cache
def validator(name: str) -> Draft202012Validator:
    schema = schemas()[name]
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def faults(document: dict[str, Any]) -> list[str]:
    document = json.loads(json.dumps(document, allow_nan=False))
    found = validator(document["schema"]).iter_errors(document)
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in found]


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    """A few people with a sex and two recordings each."""
    root = write_population(tmp_path_factory.mktemp("few"), FEW, faces=1, voices=1)
    for path in root.rglob("*.npz"):
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
        sex = np.repeat(np.tile(["f", "m"], FEW // 2), 4)
        np.savez(path, **arrays, sex=sex, samples=np.tile(["a/1", "a/2", "b/1", "b/2"], FEW))
    return root


def test_rankings_keep_to_their_schema(ranking, few):
    assert faults(ranking.to_dict()) == []
    gates = checked_gates(max_eer=0.3, min_margin=0.1, baseline=ranking, max_regression=0.1)
    judged = replace(ranking, verdict=verdict_on(ranking, gates))
    assert len(judged.to_dict()["verdict"]["gates"]) == 3
    assert faults(judged.to_dict()) == []
    explained = ranking.to_dict() | {"explanation": plain(ranking.explain("face0", "voice0"))}
    assert faults(explained) == []
    without_predictions = encsel.rank(few, cache=None, min_identities=FEW)
    assert without_predictions.best.predicted_eer is None
    assert faults(without_predictions.to_dict()) == []


def test_validations_keep_to_their_schema(validation, few):
    assert faults(validation.to_dict()) == []
    measured = ["matching", "recordings", "groups", "reliability"]
    for options in ({"only": ["gw"]}, {"protocol": "reference", "only": measured}):
        few_people = encsel.validate(few, cache=None, min_identities=FEW, **options)
        assert (few_people.best["recordings"] is None) == ("protocol" not in options)
        assert faults(few_people.to_dict()) == []


def test_comparisons_keep_to_their_schema(ranking):
    assert faults(encsel.compare(ranking, ranking).to_dict()) == []


def test_plans_keep_to_their_schema(population, few):
    for data in (None, population, few):
        assert faults(encsel.plan(data, width=0.1, difference=0.03).to_dict()) == []


def test_a_key_too_many_or_too_few_is_a_fault():
    document = {"schema": "encsel.compare/1", "what": "x", "changes": [], "unlike": [], "changed_encoders": []}
    assert faults(document) == []
    assert faults({**document, "new": 1}) != []
    assert faults({key: value for key, value in document.items() if key != "unlike"}) != []
