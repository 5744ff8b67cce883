"""JSON Schemas of the documents that encsel writes. Keys never change meaning within a version."""

from dataclasses import fields
from typing import Any

from encsel.gates.compare import COMPARE_SCHEMA, Comparison
from encsel.prediction.plan import PLAN_SCHEMA, Plan
from encsel.ranking.explain import Explanation
from encsel.ranking.result import RANK_SCHEMA, RankDocument
from encsel.regression.study import STUDY_SCHEMA, Study
from encsel.storage.documents import schema_of
from encsel.storage.result import CHECKSUM
from encsel.validation.result import VALIDATE_SCHEMA, EncoderValidation, PairValidation, Validation
from encsel.validation.stage import stages

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]
COUNT: Schema = {"type": "integer", "minimum": 0}
TEXT: Schema = {"type": "string"}
FRACTION: Schema = {"type": "number", "minimum": 0, "maximum": 1}
SIGNATURE: Schema = {
    "type": "object",
    "description": "Everything that could change the result; `id` is the hash of all the rest.",
    "properties": {
        "encsel": TEXT, "data": {"type": "object"}, "encoders": {"type": "object"},
        "regressions": {"type": "object", "additionalProperties": TEXT},
        "metrics": {"type": "object", "additionalProperties": COUNT}, "options": {"type": "object"},
        "libraries": {"type": "object", "additionalProperties": {"anyOf": [TEXT, {"type": "null"}]}}, "id": TEXT,
    },
    "required": ["encsel", "data", "encoders", "regressions", "metrics", "options", "libraries", "id"],
    "additionalProperties": False,
}  # fmt: skip
RATES = {"predicted_eer", "eer", "auc", "p", "p_familywise", "p_best", "coverage", "cosine_eer", "unimodal_eer"}
"""Keys whose numbers are fractions, anywhere in a document."""


def schemas() -> dict[str, Schema]:
    """Schemas by name of the document, such as `encsel.rank/2`."""
    rank = _document(RANK_SCHEMA, schema_of(RankDocument))
    # Present only with --explain.
    rank["properties"]["explanation"] = _bounded(schema_of(Explanation))
    others = {COMPARE_SCHEMA: Comparison, PLAN_SCHEMA: Plan, STUDY_SCHEMA: Study}
    described = {name: _document(name, schema_of(kind)) for name, kind in others.items()}
    return {RANK_SCHEMA: rank, VALIDATE_SCHEMA: _validate(), **described}


def _validate() -> Schema:
    hidden = [f.name for f in fields(Validation) if not f.metadata.get("document", True)]
    schema = schema_of(Validation)
    for name in hidden:
        del schema["properties"][name]
        schema["required"].remove(name)
    for about, kind in (("encoder", EncoderValidation), ("pair", PairValidation)):
        one = schema_of(kind)
        results: dict[str, Any] = {}
        for stage in stages().values():
            results |= stage.fields_of(about)
        results.pop("metrics")
        del one["properties"]["results"]
        one["properties"] |= {f: {"anyOf": [schema_of(kind), {"type": "null"}]} for f, kind in results.items()}
        one["required"] = list(one["properties"])
        schema["properties"][f"{about}s"] = {"type": "array", "items": one}
    return _document(VALIDATE_SCHEMA, schema)


def _document(name: str, schema: Schema) -> Schema:
    schema["properties"]["schema"] = {"const": name}
    if "signature" in schema["properties"]:
        schema["properties"]["signature"] = SIGNATURE
        # Results of earlier versions have none.
        schema["properties"][CHECKSUM] = TEXT
    return {"$schema": DIALECT, "title": name, **_bounded(schema)}


def _bounded(schema: Schema) -> Schema:
    """The schema with bounds on counts and rates, which types lack."""

    def bound(name: str, one: Any) -> Any:
        if not isinstance(one, dict):
            return one
        if one.get("type") == "integer":
            return {**one, "minimum": 0}
        if name in RATES and one.get("type") == "number":
            return {**one, **FRACTION}
        if "anyOf" in one:
            one = {**one, "anyOf": [bound(name, option) for option in one["anyOf"]]}
        if "properties" in one:
            one = {**one, "properties": {key: bound(key, value) for key, value in one["properties"].items()}}
        for key in ("items", "additionalProperties"):
            if key in one:
                one = {**one, key: bound(name, one[key])}
        return one

    bounded: Schema = bound("", schema)
    return bounded
