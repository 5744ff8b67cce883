"""Results of `encsel validate` read as pair tables."""

from __future__ import annotations

import csv
import hashlib
import json

import numpy as np
import pytest

from encsel.errors import UsageError
from encsel.regression import fit as regression
from encsel.regression.pair_tables import read_pairs

FACES, VOICES = ("f0", "f1", "f2"), ("v0", "v1", "v2")
SCORERS = ("reference", "likelihood")


def pair(face, voice, eer, **columns) -> dict:
    """One pair of a result; `eer` by scorer, or None where nothing was measured."""
    measured = None
    if eer is not None:
        levels = {
            "identity": {name: {"eer": value, "auc": 0.7} for name, value in eer.items()},
            "sample": {name: {"eer": 0.49, "auc": 0.5} for name in eer},
        }
        measured = {"n_train": 80, "n_test": 20, "n_repeats": 1, "levels": levels, "within": []}
    return {"face": face, "voice": voice, "rows_per_identity": 8, "measured": measured, "columns": columns}


def result(pairs, schema="encsel.validate/1") -> dict:
    return {
        "schema": schema,
        "signature": {"encsel": "0.2.0"},  # of a version without checksums
        "scorer": "likelihood",
        "calibration": {"n_identities": 100, "n_face_samples": 800, "n_voice_samples": 800},
        "encoders": [],
        "pairs": pairs,
        "verdict": {"status": "none", "gates": []},
    }


def nine(seed=0) -> list[dict]:
    """Every pair of three and three, with both EERs and two numbers."""
    rng = np.random.default_rng(seed)
    made = []
    for face in FACES:
        for voice in VOICES:
            cka, id_mismatch, first, second = rng.uniform(0.1, 0.4, 4).tolist()
            made.append(
                pair(face, voice, dict(zip(SCORERS, (first, second), strict=True)), cka=cka, id_mismatch=id_mismatch)
            )
    return made


def written(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def as_table(path, pairs, scorer):
    """The same pairs as a CSV table."""
    head = ["face_encoder", "voice_encoder", "n_identities", "n_train_identities", "n_test_identities"]
    head += ["rows_per_identity", "eer", *pairs[0]["columns"]]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for p in pairs:
            eer = p["measured"]["levels"]["identity"][scorer]["eer"]
            writer.writerow([p["face"], p["voice"], 100, 80, 20, 8, repr(eer), *map(repr, p["columns"].values())])
    return path


@pytest.mark.parametrize("scorer", SCORERS)
def test_eer_of_the_chosen_scorer_is_read(tmp_path, scorer):
    pairs = nine()
    table = read_pairs([written(tmp_path / "v.json", result(pairs))], scorer=scorer)
    assert table.eer.tolist() == [p["measured"]["levels"]["identity"][scorer]["eer"] for p in pairs]


def test_reference_scorer_is_read_by_default(tmp_path):
    path = written(tmp_path / "v.json", result(nine()))
    assert read_pairs([path]).eer.tolist() == read_pairs([path], scorer="reference").eer.tolist()


def test_columns_encoders_and_sizes_are_read_exactly(tmp_path):
    pairs = nine()
    table = read_pairs([written(tmp_path / "v.json", result(pairs))])
    assert table.column("cka").tolist() == [p["columns"]["cka"] for p in pairs]
    assert table.face_encoder.tolist() == [p["face"] for p in pairs]
    assert table.voice_encoder.tolist() == [p["voice"] for p in pairs]
    sizes = {"n_identities": 100, "n_train_identities": 80, "n_test_identities": 20, "rows_per_identity": 8}
    assert {name: set(table.column(name).tolist()) for name in sizes} == {name: {n} for name, n in sizes.items()}
    assert table.unusable == {}


def test_file_gives_the_data_set_its_name_and_its_hash(tmp_path):
    path = written(tmp_path / "mine.json", result(nine()))
    table = read_pairs([path])
    assert set(table.data_set.tolist()) == {"mine"}
    assert [(f.name, f.sha256) for f in table.files] == [("mine.json", hashlib.sha256(path.read_bytes()).hexdigest())]


def test_suffix_may_be_in_capitals(tmp_path):
    assert len(read_pairs([written(tmp_path / "V.JSON", result(nine()))])) == 9


def test_column_that_is_null_anywhere_is_unusable_and_says_where(tmp_path):
    pairs = nine()
    pairs[4]["columns"]["cka"] = None
    table = read_pairs([written(tmp_path / "v.json", result(pairs))])
    assert list(table.unusable) == ["cka"]
    assert "id_mismatch" in table.columns
    with pytest.raises(UsageError, match=r"cka in v.json pair 5 is ''; it must be a finite number"):
        table.column("cka")


def test_column_that_a_pair_lacks_is_unusable(tmp_path):
    # A probe of groups is a column of the pairs whose two encoders both have one.
    pairs = nine()
    pairs[0]["columns"]["group_probe_sex"] = 0.7
    found = read_pairs([written(tmp_path / "v.json", result(pairs))])
    assert list(found.unusable) == ["group_probe_sex"]


def test_pairs_without_an_eer_are_left_out(tmp_path):
    pairs = nine()
    pairs[0]["measured"] = pairs[7]["measured"] = None
    pairs[0]["columns"]["cka"] = None
    table = read_pairs([written(tmp_path / "v.json", result(pairs))])
    kept = [p for i, p in enumerate(pairs) if i not in (0, 7)]
    assert list(zip(table.face_encoder, table.voice_encoder, strict=True)) == [(p["face"], p["voice"]) for p in kept]
    assert table.column("cka").tolist() == [p["columns"]["cka"] for p in kept]


def test_result_without_any_eer_says_what_to_do(tmp_path):
    path = written(tmp_path / "v.json", result([pair("f", "v", None, cka=0.1)]))
    with pytest.raises(UsageError, match=r"v.json has no pair with an EER. Run `encsel validate` without skipping"):
        read_pairs([path])


def test_both_versions_of_the_schema_read_the_same(tmp_path):
    one, two = (
        read_pairs([written(tmp_path / "v.json", result(nine(), f"encsel.validate/{version}"))]) for version in (1, 2)
    )
    assert one.eer.tolist() == two.eer.tolist()
    assert {name: x.tolist() for name, x in one.columns.items()} == {n: x.tolist() for n, x in two.columns.items()}


@pytest.mark.parametrize("schema", ["encsel.validate/3", "encsel.rank/1", None, 1])
def test_another_schema_is_a_usage_error_that_names_both(tmp_path, schema):
    path = written(tmp_path / "v.json", result(nine(), schema))
    says = rf"v.json has the schema {schema!r}; give a result of .* \(encsel.validate/1 or encsel.validate/2\)"
    with pytest.raises(UsageError, match=says):
        read_pairs([path])


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"not json", b"[]", b"3", b"null", b"{}", b"\xff\xfe\xff", b"[" * 100_000,
        b'{"schema": "encsel.validate/1"}',
        b'{"schema": "encsel.validate/2"}',
        b'{"schema": "encsel.validate/1", "pairs": 3}',
        b'{"schema": "encsel.validate/1", "pairs": [3]}',
        b'{"schema": "encsel.validate/1", "pairs": [{"face": "f"}]}',
        b'{"schema": "encsel.validate/1", "pairs": [{"measured": 3}]}',
    ],
)  # fmt: skip
def test_broken_json_is_a_usage_error_that_names_the_file(tmp_path, content):
    path = tmp_path / "v.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"v.json is not a result of `encsel validate`"):
        read_pairs([path])


def test_missing_result_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"Cannot read the result .*v.json: No such file"):
        read_pairs([tmp_path / "v.json"])


def test_unknown_scorer_names_the_nearest(tmp_path):
    path = written(tmp_path / "v.json", result(nine()))
    with pytest.raises(UsageError, match=r"no EERs of the scorer 'likelyhood'. Did you mean 'likelihood'\?"):
        read_pairs([path], scorer="likelyhood")


@pytest.mark.parametrize("eer", [None, 40, "much"])
def test_eer_that_is_not_a_fraction_is_a_usage_error_that_names_the_pair(tmp_path, eer):
    pairs = nine()
    pairs[2]["measured"]["levels"]["identity"]["reference"]["eer"] = eer
    with pytest.raises(UsageError, match=r"eer in v.json pair 3"):
        read_pairs([written(tmp_path / "v.json", result(pairs))])


def test_pair_twice_in_a_result_is_a_usage_error(tmp_path):
    pairs = nine()
    with pytest.raises(UsageError, match=r"v.json pair 10 repeats the pair f0 x v0 of data set v"):
        read_pairs([written(tmp_path / "v.json", result([*pairs, pairs[0]]))])


def test_results_and_tables_pool(tmp_path):
    one = written(tmp_path / "one.json", result(nine(0)))
    two = as_table(tmp_path / "two.csv", nine(1), "reference")
    table = read_pairs([one, two])
    assert len(table) == 18
    assert set(table.data_set.tolist()) == {"one", "two"}
    assert {"cka", "id_mismatch"} <= set(table.columns)


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("features", [["cka"], ["ln_cka"], ["cka", "id_mismatch"]])
def test_fit_on_a_result_equals_that_on_the_same_table(tmp_path, scorer, features):
    pairs = nine()
    read = (
        read_pairs([written(tmp_path / "p.json", result(pairs))], scorer=scorer),
        read_pairs([as_table(tmp_path / "p.csv", pairs, scorer)]),
    )
    one, two = (
        regression.fit_table(table, features, name="x", metric_versions={"cka_biased": 1}, scorer=scorer)
        for table in read
    )
    assert one.intercept == two.intercept
    assert one.features == two.features
    assert (one.target, one.errors, one.residual_sd) == (two.target, two.errors, two.residual_sd)


def test_result_that_was_edited_is_refused(validation, tmp_path):
    document = validation.to_dict()
    assert len(read_pairs([written(tmp_path / "whole.json", document)])) == len(validation.pairs)
    document["pairs"][0]["eer"] = 0
    with pytest.raises(UsageError, match=r"was damaged or edited: its checksum .*Give the JSON as encsel wrote it"):
        read_pairs([written(tmp_path / "edited.json", document)])
