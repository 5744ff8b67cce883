"""JSON Schema of the documents that encsel writes for CI and programs. Keys never change meaning within a version."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from encsel.core import MODALITIES
from encsel.gates.compare import Comparison
from encsel.gates.judge import GateVerdict, Status
from encsel.prediction.plan import Plan
from encsel.ranking.explain import Explanation
from encsel.ranking.result import SCHEMA as RANK
from encsel.regression.analysis import Analysis
from encsel.validation.result import SCHEMA as VALIDATE
from encsel.validation.result import EncoderValidated, PairValidated

DIALECT = "https://json-schema.org/draft/2020-12/schema"
COMPARE = "encsel.compare/1"
PLAN = "encsel.plan/1"

Schema = dict[str, Any]

NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TEXT: Schema = {"type": "string"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
CHANCE_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 0.5}


def schemas() -> dict[str, Schema]:
    """By name of the document, such as `encsel.rank/1`."""
    return {RANK: _rank(), VALIDATE: _validate(), COMPARE: _compare(), PLAN: _plan()}


def schema_of(kind: Any) -> Schema:
    """The schema of a type made of dataclasses, tuples, mappings, literals, unions and plain values."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        first_line = (kind.__doc__ or "").strip().split("\n")[0]
        return _object({f.name: schema_of(hints[f.name]) for f in dataclasses.fields(kind)}, description=first_line)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [schema_of(one) for one in inner]}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is tuple:
        if inner[1:] == (...,):
            return _array(schema_of(inner[0]))
        fixed = [schema_of(one) for one in inner]
        return {"type": "array", "prefixItems": fixed, "minItems": len(fixed), "maxItems": len(fixed)}
    if isinstance(origin, type) and issubclass(origin, Mapping | dict):
        return {"type": "object", "additionalProperties": schema_of(inner[1])}
    plain = {float: "number", int: "integer", str: "string", bool: "boolean", types.NoneType: "null"}
    return {"type": plain[kind]} if kind in plain else {}


def _object(properties: Mapping[str, Schema], *, optional: tuple[str, ...] = (), description: str = "") -> Schema:
    found: Schema = {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }
    return {**found, "description": description} if description else found


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _document(name: str, properties: Mapping[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    return {"$schema": DIALECT, "title": name, **_object({"schema": {"const": name}, **properties}, optional=optional)}


INTERVAL = _or_null({"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2})
VERDICT = _object({"status": schema_of(Status), "gates": _array(schema_of(GateVerdict))})
FAILURES = _array(_object({"modality": {"enum": list(MODALITIES)}, "encoder": TEXT, "reason": TEXT}))
SIGNATURE = _object(
    {
        "encsel": TEXT,
        "data": {"type": "object"},
        "encoders": {"type": "object"},
        "regressions": {"type": "object", "additionalProperties": TEXT},
        "metrics": {"type": "object", "additionalProperties": COUNT},
        "options": {"type": "object"},
        "libraries": {"type": "object", "additionalProperties": _or_null(TEXT)},
        "id": TEXT,
    },
    description="Everything that could change the result; `id` is the hash of all the rest.",
)
CALIBRATION = _object(
    {
        "n_identities": COUNT,
        "n_face_samples": COUNT,
        "n_voice_samples": COUNT,
        "skipped": _object(
            {
                "count": COUNT,
                "samples": _array(
                    _object(
                        {
                            "modality": {"enum": list(MODALITIES)},
                            "sample": {
                                **_or_null(TEXT),
                                "description": "Hash of its name, keyed on the machine; its name with --show-names; "
                                "null without a cache.",
                            },
                            "encoder": _or_null(TEXT),
                            "reason": TEXT,
                        }
                    )
                ),
            }
        ),
    }
)


def _rank() -> Schema:
    measured: dict[str, Schema] = {"scorer": TEXT, "eer": SHARE, "auc": SHARE, "interval": INTERVAL, "coverage": SHARE}
    encoder: dict[str, Schema] = {
        "name": TEXT, "modality": {"enum": list(MODALITIES)}, "dim": COUNT, "n_samples": COUNT,
        "samples_per_identity": NUMBER, "intrinsic_dimension": _or_null(NUMBER),
        "intrinsic_dimensions": _or_null({"type": "object", "additionalProperties": NUMBER}),
        "unimodal_eer": _or_null(SHARE), "intra_distance": NUMBER, "inter_distance": NUMBER, "skipped_share": SHARE,
        "health": _array(TEXT), "flags": _array(TEXT), "reason": _or_null(TEXT),
    }  # fmt: skip
    prediction: dict[str, Schema] = {
        "eer": _or_null(CHANCE_SHARE), "scorer": TEXT, "interval": INTERVAL, "flags": _array(TEXT),
        "reason": _or_null(TEXT),
    }  # fmt: skip
    null: dict[str, Schema] = {
        "predicted_eer": _or_null(CHANCE_SHARE), "sd": _or_null(NUMBER), "p": SHARE, "p_familywise": SHARE,
        "n_permutations": COUNT, "within": _or_null(TEXT),
    }  # fmt: skip
    cka: dict[str, Schema] = {
        "biased": NUMBER, "debiased": NUMBER, "matched": NUMBER, "matched_interval": INTERVAL, "matched_to": COUNT,
        "null_p": SHARE, "null_p_familywise": SHARE, "null_mean": NUMBER, "null_quantile_95": NUMBER,
        "null_permutations": COUNT,
    }  # fmt: skip
    pair: dict[str, Schema] = {
        "rank": COUNT, "rank_group": _or_null(COUNT), "face": TEXT, "voice": TEXT,
        "predicted_eer": _or_null(CHANCE_SHARE), "interval": INTERVAL, "coverage": SHARE, "p_best": _or_null(SHARE),
        "reason": _or_null(TEXT),
        "predictions": {"type": "object", "additionalProperties": _object(prediction)},
        "cross_validated": _or_null(_object({**measured, "n_repeats": COUNT, "others": _array(_object(measured))})),
        "null": _or_null(_object(null)), "cka": _object(cka), "id_mismatch": _or_null(NUMBER),
        "joint_space": _or_null(_object({"space": TEXT, "cosine_eer": SHARE})), "flags": _array(TEXT),
    }  # fmt: skip
    return _document(
        RANK,
        {
            "signature": SIGNATURE, "signature_text": TEXT, "ordered_by": TEXT, "scorer": TEXT, "layout": TEXT,
            "calibration": CALIBRATION,
            "regressions": {"type": "object", "additionalProperties": _object({"sha256": TEXT})},
            "encoders": _array(_object(encoder)), "pairs": _array(_object(pair)), "failures": FAILURES,
            "notes": _array(TEXT), "verdict": VERDICT, "explanation": schema_of(Explanation),
        },
        optional=("explanation",),
    )  # fmt: skip


def _validate() -> Schema:
    pair = schema_of(PairValidated)
    more: dict[str, Schema] = {
        "rows_per_identity": COUNT,
        "columns": {"type": "object", "additionalProperties": _or_null(NUMBER)},
    }
    pair["properties"] |= more
    pair["required"] += list(more)
    prediction: dict[str, Schema] = {
        "ordered_by": TEXT, "scorer": TEXT, "coverage": SHARE, "n_train_identities": _or_null(COUNT),
        "n_permutations": COUNT,
    }  # fmt: skip
    return _document(
        VALIDATE,
        {
            "signature": SIGNATURE, "signature_text": TEXT, "protocol": {"enum": ["crossval", "reference"]},
            "scorer": TEXT, "layout": TEXT, "calibration": CALIBRATION,
            "group_columns": {"type": "object", "additionalProperties": {"type": "object"}},
            "prediction": _or_null(_object(prediction)), "encoders": _array(schema_of(EncoderValidated)),
            "pairs": _array(pair), "analysis": schema_of(Analysis), "failures": FAILURES, "notes": _array(TEXT),
            "verdict": VERDICT,
        },
    )  # fmt: skip


def _plan() -> Schema:
    size = _object({"n_identities": COUNT, "samples_per_identity": NUMBER})
    return _document(PLAN, {**schema_of(Plan)["properties"], "set": _or_null(size), "reason": _or_null(TEXT)})


def _compare() -> Schema:
    comparison = schema_of(Comparison)
    return _document(COMPARE, comparison["properties"])
