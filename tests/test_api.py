"""What a user of the Python package sees."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import json
import pkgutil
import runpy
import stat
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import encsel
from encsel import metrics
from encsel.errors import BadCalibration, UsageError
from encsel.storage.result import render

SCRIPT = """\
from typing import assert_type

import numpy as np

from encsel import CalibrationSet, Plan, Ranking, load_card, matching, metrics, plan, rank

rng, people = np.random.default_rng(0), [f"person {i}" for i in range(40)]
traits = rng.normal(size=(40, 5))
faces, voices = (traits @ rng.normal(size=(5, dim)) + 0.2 * rng.normal(size=(40, dim)) for dim in (16, 12))
data = CalibrationSet.from_arrays(faces={"a": (faces, people)}, voices={"b": (voices, people)})
ranking = assert_type(rank(data, cache=None), Ranking)
best, document = assert_type(ranking.best.predicted_eer, float | None), ranking.to_dict()
scores = matching.Scorer().fit(faces[:30], voices[:30]).score(faces[30:], voices[30:])
eer = assert_type(matching.eer(np.diag(scores), scores[~np.eye(10, dtype=bool)]), float)
cka = assert_type(metrics.cka(faces, voices), float)
name, needed = load_card("upadhyay2026").name, assert_type(plan(width=0.25), Plan).enough["20"]
"""
DOCUMENTED = (
    "encsel", "encsel.metrics", "encsel.ranking.rank", "encsel.validation.validate", "encsel.regression.fit",
    "encsel.prediction.shipped", "encsel.prediction.plan", "encsel.data.calibration_set",
)  # fmt: skip


def test_dir_shows_the_public_names_and_each_is_there():
    assert dir(encsel) == [
        "CalibratedCard", "CalibrationSet", "Comparison", "FunctionEncoder", "GeometricCard", "Matcher", "Plan",
        "Ranking", "Validation", "__version__", "compare", "fit", "load_card", "matching", "metrics", "plan", "rank",
        "validate",
    ]  # fmt: skip
    assert all(getattr(encsel, name) is not None for name in dir(encsel))
    with pytest.raises(AttributeError, match="no attribute 'ranks'"):
        _ = encsel.ranks
    with pytest.raises(AttributeError, match="no metric 'ckaa'"):
        _ = metrics.ckaa
    assert {"cka", "two_nn", "compactness_gap"} <= set(dir(metrics))


def test_a_short_script_goes_from_arrays_to_a_ranking(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    names = runpy.run_path(str(tmp_path / "script.py"))
    assert 0 < names["best"] < 0.5
    assert names["document"]["pairs"][0]["predicted_eer"] == names["best"]
    assert 0 <= names["eer"] < 0.5
    assert 0.5 < names["cka"] < 1
    assert (names["name"], names["needed"] > 30) == ("upadhyay2026", True)


@pytest.mark.slow
def test_a_short_script_passes_the_strictest_type_check(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_doctests_of_the_public_functions():
    matching = importlib.import_module("encsel.matching")
    names = [*DOCUMENTED, *(module.name for module in pkgutil.iter_modules(matching.__path__, "encsel.matching."))]
    results = {name: doctest.testmod(importlib.import_module(name)) for name in names}
    assert {name: r.failed for name, r in results.items() if r.failed} == {}
    assert sum(r.attempted for r in results.values()) > 30


def test_repr_is_the_table_and_short(ranking):
    text = repr(ranking)
    assert text == render(ranking, "table", width=120, wide=False)
    assert text.startswith(ranking.decision.text[:100])
    assert "\n4 face-voice pairs, 60 people, ordered by predicted EER" in text
    assert len(text) < 3000


def test_repr_of_other_results_is_their_table(ranking, validation):
    assert repr(validation) == render(validation, "table", width=120, wide=False)
    assert "half-width" in repr(encsel.plan()).lower()
    assert "face0" in repr(encsel.compare(ranking, ranking))


def test_a_notebook_shows_tables(ranking, validation):
    for result in (ranking, validation):
        html = result._repr_html_()
        assert html.count("<table") == html.count("</table>") > 0


def test_results_are_equal_when_their_signatures_are(ranking, validation):
    again = dataclasses.replace(ranking, notes=("another note",))
    other = dataclasses.replace(ranking, signature={**ranking.signature, "id": "0"})
    assert again == ranking != other
    assert len({ranking, again, other}) == 2
    assert ranking != validation
    assert ranking.signature_id == ranking.signature["id"]
    assert encsel.plan() == encsel.plan() != encsel.plan(eer=0.2)


def test_to_dict_is_the_json_document(ranking):
    assert json.loads(ranking.to_json()) == ranking.to_dict()
    assert ranking.to_dict()["pairs"][0]["cka"]["matched_interval"] == list(ranking.best.cka.matched_interval)


def test_only_to_frame_needs_pandas(ranking, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if not installed
    with pytest.raises(UsageError, match=r"to_frame\(\) needs pandas.*pip install pandas"):
        ranking.to_frame()
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    rows = ranking.to_frame()
    assert [(r["face"], r["voice"], r["predicted_eer"]) for r in rows] == [
        (p.face, p.voice, p.predicted_eer) for p in ranking.pairs
    ]


@pytest.mark.parametrize(
    ("suffix", "form"), [(".json", "json"), (".csv", "csv"), (".md", "markdown"), (".txt", "table"), (".JSON", "json")]
)
def test_save_takes_the_format_from_the_suffix(ranking, tmp_path, suffix, form):
    path = tmp_path / f"ranking{suffix}"
    ranking.save(path)
    assert path.read_text(encoding="utf-8") == render(ranking, form, width=160)
    ranking.save(str(path), private=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_save_refuses_another_suffix_and_a_place_that_cannot_be_written(ranking, tmp_path):
    with pytest.raises(UsageError, match=r"suffix '.xlsx' is not one of .json, .csv, .md, .txt"):
        ranking.save(tmp_path / "ranking.xlsx")
    with pytest.raises(UsageError, match="cannot be written"):
        ranking.save(tmp_path / "missing" / "ranking.json")
    assert list(tmp_path.iterdir()) == []


def test_explain_adds_up_to_the_prediction(ranking, population):
    explanation = ranking.explain("face0", "voice1")
    pair = ranking.pair("face0", "voice1")
    assert (explanation.predicted_eer, explanation.interval) == (pair.predicted_eer, pair.interval)
    assert explanation.base + sum(part.adds for part in explanation.parts) == pytest.approx(explanation.distance)
    validation = encsel.validate(population, cache=None, only=["prediction"])
    assert validation.explain("face0", "voice1").distance == pytest.approx(explanation.distance)
    with pytest.raises(UsageError, match="No pair 'face0/voice7' to explain"):
        ranking.explain("face0", "voice7")


def test_an_explanation_says_how_intervals_held_in_tests_at_the_nearest_size(ranking):
    held = ranking.explain("face0", "voice0").held
    rows = [row for row in ranking.card.held_out if row.n_identities == held.n_identities]
    assert held.lowest == min(row.coverage for row in rows) < held.coverage
    assert abs(np.log(held.n_identities / ranking.n_identities)) < 0.3
    other = dataclasses.replace(ranking, card=ranking.card.at(300, 20))
    assert other.explain("face0", "voice0").held is None


def test_cka_of_single_columns_is_their_squared_correlation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    assert metrics.cka(x[:, None], y[:, None]) == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert metrics.cka is metrics.cka_biased


def test_cka_is_the_ratio_of_squared_covariances():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 5)), rng.normal(size=(40, 3))
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    expected = np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert metrics.cka(x.tolist(), y.astype(np.float32)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("arrays", "error", "says"),
    [
        ((np.ones((5, 2)),), UsageError, "takes 2 arrays; 1 were given"),
        ((np.eye(5), np.eye(6)), UsageError, r"as many rows on both sides; got \[5, 6\]"),
        ((np.arange(5.0), np.eye(5)), UsageError, r"shape \(rows, dim\); got float64 \(5,\)"),
        ((np.full((5, 2), np.nan), np.eye(5)), UsageError, "finite numbers"),
        ((np.array([["a"]] * 5), np.eye(5)), UsageError, "finite numbers"),
        ((np.eye(3), np.eye(3)), BadCalibration, "at least 4"),
        ((np.ones((5, 2)), np.eye(5)), BadCalibration, "needs variation"),
    ],
)
def test_a_metric_refuses_other_arrays_than_it_needs(arrays, error, says):
    with pytest.raises(error, match=says):
        metrics.cka(*arrays)
