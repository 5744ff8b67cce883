"""Documents keep to their published JSON Schema."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator
from test_validation import write_set

from encsel.reports.schemas import schemas


def validator(name: str) -> Draft202012Validator:
    schema = schemas()[name]
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def faults(document: dict) -> list[str]:
    found = validator(document["schema"]).iter_errors(document)
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in found]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


def test_documents_of_every_command_keep_to_their_schema(data, tmp_path, monkeypatch):
    import encsel
    from encsel.gates.judge import checked_gates
    from encsel.reports.ranking import to_dict
    from encsel.reports.validation import to_dict as validation_dict

    ranked = encsel.rank(data, cache=None, gates=checked_gates(max_eer=0.3, min_margin=0.1))
    assert faults(json.loads(json.dumps(to_dict(ranked)))) == []
    few = encsel.rank(data, cache=None, identities=12, min_identities=12)
    assert faults(json.loads(json.dumps(to_dict(few)))) == []
    for options in ({}, {"only": ["gw"]}, {"protocol": "reference", "skip": ["prediction"]}):
        found = encsel.validate(data, cache=tmp_path / "c", **options)
        assert faults(json.loads(json.dumps(validation_dict(found)))) == []


def test_explanations_and_comparisons_keep_to_their_schema(data, tmp_path):
    from dataclasses import asdict

    import encsel
    from encsel.gates.compare import compare, result_of
    from encsel.ranking.explain import explain
    from encsel.reports.ranking import to_dict

    ranked = encsel.rank(data, cache=None)
    document = json.loads(json.dumps(to_dict(ranked, explain(ranked, "face0/voice0"))))
    assert faults(document) == []
    found = {"schema": "encsel.compare/1", **asdict(compare(result_of(document), result_of(document)))}
    assert faults(json.loads(json.dumps(found))) == []


def test_plans_keep_to_their_schema():
    from dataclasses import asdict

    from encsel.prediction.card import load_calibrated
    from encsel.prediction.plan import plan

    card = load_calibrated("encsel-calibrated")
    for own in (None, (50, 8.0)):
        made = plan(card, eer=None, coverage=0.9, width=0.1, difference=0.03, own=own)
        size = None if own is None else {"n_identities": own[0], "samples_per_identity": own[1]}
        document = {"schema": "encsel.plan/1", **asdict(made), "set": size, "reason": None}
        assert faults(json.loads(json.dumps(document))) == []


def test_a_key_too_many_or_too_few_is_a_fault():
    document = {"schema": "encsel.compare/1", "what": "x", "changes": [], "unlike": [], "changed_encoders": []}
    assert faults(document) == []
    assert faults({**document, "new": 1}) != []
    assert faults({key: value for key, value in document.items() if key != "unlike"}) != []
