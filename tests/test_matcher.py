"""The fitted matcher that users take home."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from toy import population

import encsel
from encsel import Matcher
from encsel.errors import BadCalibration, UsageError
from encsel.matching.folds import fitted, folds_of
from encsel.matching.matcher import FACTS, TENSORS, MatcherFacts, MatcherSide
from encsel.matching.projections import project_centroids
from encsel.rows import unit_rows

N = 60


def sides(n: int = N, dims=(24, 16), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    trait = rng.normal(size=(n, 5))
    x, y = (trait @ np.random.default_rng(d).normal(size=(5, d)) + rng.normal(size=(n, d)) + 1 for d in dims)
    return x, y


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    x, y = sides()
    facts = MatcherFacts(MatcherSide("f", 24, "a" * 64), MatcherSide("v", 16, "b" * 64), N, flags=("not above chance",))
    folder = tmp_path_factory.mktemp("m") / "matcher"
    Matcher.fit(x, y, facts).save(folder)
    return folder


def test_a_fresh_process_scores_as_cross_validation_does_on_the_same_split(tmp_path):
    x, y = map(unit_rows, sides())
    folds = folds_of(N, n_repeats=1, seed=0)
    ((train, test), *_), pair = (
        folds[0],
        next(fitted(project_centroids(x, folds), project_centroids(y, folds), folds))[1],
    )
    Matcher.fit(x[train], y[train]).save(tmp_path / "m")
    np.savez(tmp_path / "rows.npz", x=x[test], y=y[test])
    code = (
        "import sys, numpy as np, encsel; rows = np.load(sys.argv[1] + '/rows.npz'); "
        "np.save(sys.argv[1] + '/s.npy', encsel.Matcher.load(sys.argv[1] + '/m').score(rows['x'], rows['y']))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "s.npy"), pair.scores("likelihood"), atol=1e-9)


def test_what_is_saved_is_for_its_owner_alone_and_says_what_it_is(saved):
    assert {p.name: p.stat().st_mode & 0o777 for p in saved.iterdir()} == {TENSORS: 0o600, FACTS: 0o600}
    loaded = Matcher.load(saved)
    assert (loaded.facts.face.name, loaded.facts.voice.dim, loaded.facts.n_people) == ("f", 16, N)
    assert loaded.facts.flags == ("not above chance",)
    x, y = sides(seed=1)
    np.testing.assert_array_equal(loaded.score(x, y), Matcher.fit(*sides()).score(x, y))


def test_scale_of_rows_does_not_matter(saved):
    x, y = sides(seed=1)
    np.testing.assert_allclose(Matcher.load(saved).score(x * 7, y), Matcher.load(saved).score(x, y * 0.1), atol=1e-9)


@pytest.mark.parametrize(
    ("faces", "voices", "says"),
    [
        (
            np.ones((3, 23)),
            np.ones((3, 16)),
            r"The faces have shape \(3, 23\); at least one row of 24 numbers is needed",
        ),
        (np.ones((3, 24)), np.ones(16), r"The voices have shape \(16,\); at least one row of 16"),
        (np.ones((0, 24)), np.ones((3, 16)), r"The faces have shape \(0, 24\)"),
        (np.full((3, 24), np.nan), np.ones((3, 16)), "The faces contain numbers that are not finite"),
    ],
)
def test_rows_that_cannot_be_scored_are_an_error(saved, faces, voices, says):
    with pytest.raises(UsageError, match=says):
        Matcher.load(saved).score(faces, voices)


def test_rows_of_another_encoder_are_told_by_their_distribution(saved):
    matcher = Matcher.load(saved)
    x, y = sides(40, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matcher.score(x, y)
        matcher.score(np.random.default_rng(0).normal(size=(19, 24)) - 3, y)  # too few to tell
    for other in (x - 3, 5 + x, np.abs(x).max() * 3 + x):
        with pytest.warns(
            UserWarning, match=r"These 40 faces are not distributed like the training faces: their mean is"
        ):
            matcher.score(other, y)


def test_declared_encoders_must_be_those_of_the_fit(saved):
    Matcher.load(saved, face_encoder="a" * 64, voice_encoder="b" * 64)
    with pytest.raises(UsageError, match=r"fitted with v, SHA-256 bbbb.*; cccc was given"):
        Matcher.load(saved, voice_encoder="cccc")


def test_a_folder_that_holds_anything_is_left_alone(saved, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (saved, tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UsageError, match="is not an empty folder"):
            Matcher.fit(*sides()).save(folder)
    (tmp_path / "empty").mkdir()
    Matcher.fit(*sides()).save(tmp_path / "empty")


def spoil_facts(folder):
    document = json.loads((folder / FACTS).read_text())
    document["eer"] = 0.01
    (folder / FACTS).write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_facts, "damaged or edited: matcher.json"),
        (
            lambda f: (f / TENSORS).write_bytes((f / TENSORS).read_bytes()[:-8] + bytes(8)),
            "damaged or edited: matcher.s",
        ),
        (lambda f: (f / TENSORS).unlink(), "does not contain a readable matcher"),
        (lambda f: (f / FACTS).write_text("[1]"), "is not a matcher with the schema"),
        (lambda f: (f / FACTS).write_text("{"), "does not contain a readable matcher"),
    ],
)
def test_a_damaged_or_foreign_folder_is_refused(tmp_path, spoil, says):
    Matcher.fit(*sides()).save(tmp_path / "m")
    spoil(tmp_path / "m")
    with pytest.raises(UsageError, match=says):
        Matcher.load(tmp_path / "m")


def test_people_of_the_fit_can_be_told_from_others_by_the_file_when_they_are_few():
    """Why a matcher is biometric data: its directions span the people it was fitted on."""
    faces, _ = population(2 * N, dims=(256, 16))
    x = unit_rows(faces.mean(axis=1))
    directions = Matcher.fit(x[:N], x[:N])._sides["face"].directions
    basis = np.linalg.qr(directions)[0]
    inside = np.linalg.norm((x - x[:N].mean(axis=0)) @ basis, axis=1) / np.linalg.norm(x - x[:N].mean(axis=0), axis=1)
    assert inside[:N].min() > inside[N:].max()


def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    text = (Path(encsel.__file__).parent / "docs" / "validate.md").read_text(encoding="utf-8")
    block = text.partition("Take a matcher home\n")[2].partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(block, found)
    ratios = found["ratios"]
    assert ratios.shape == (20, 20)
    assert np.diag(ratios).mean() > 0 > ratios.mean()


def test_a_validation_hands_over_its_pairs(validation, tmp_path, population):
    first = validation.pairs[0]
    facts = validation.matcher().facts
    assert (facts.face.name, facts.voice.name) == (first.face, first.voice)
    assert facts.eer == first.matching("likelihood").eer
    assert facts.interval == first.matching("likelihood").interval
    assert facts.face.sha256 == validation.signature["encoders"][f"face:{first.face}"]["sha256"]
    other = validation.matcher(voice="voice1").facts
    assert other.voice.name == "voice1"
    with pytest.raises(UsageError, match=r"No pair 'face0/nobody'"):
        validation.matcher("face0", "nobody")


def test_the_command_writes_the_matcher_of_the_first_pair_or_of_another(call, population, tmp_path):
    command = ("validate", population, "-q", "--only", "matching")
    code, _, err = call(*command, "--matcher", tmp_path / "m", "--matcher-pair", "face1/voice0")
    assert code == 0, err
    facts = encsel.Matcher.load(tmp_path / "m").facts
    assert (facts.face.name, facts.voice.name, facts.n_people) == ("face1", "voice0", 60)
    code, out, err = call(*command, "--matcher", tmp_path / "m")
    assert (code, out) == (2, "")
    assert "is not an empty folder" in err
    code, out, err = call(*command, "--matcher-pair", "face1/voice0")
    assert (code, out) == (2, "")
    assert "Give --matcher DIR" in err


def test_too_few_people_or_other_facts_make_no_matcher():
    faces, voices = np.random.default_rng(0).normal(size=(2, 12, 6))
    with pytest.raises(BadCalibration, match="9 people; a matcher needs at least 10"):
        Matcher.fit(faces[:9], voices[:9])
    facts = dataclasses.replace(Matcher.fit(faces, voices).facts, n_people=11)
    with pytest.raises(UsageError, match="The facts state"):
        Matcher.fit(faces, voices, facts)


def test_people_of_whom_one_alone_differs_make_a_matcher_without_numbers_that_overflow():
    faces, voices = np.random.default_rng(0).normal(size=(2, 12, 6))
    faces[1:] = faces[1]
    assert np.isfinite(Matcher.fit(faces, voices).score(faces, voices)).all()
