"""More people or rows than are shuffled, cross-validated or searched: a stated sample stands for them."""

from __future__ import annotations

import numpy as np
import pytest

from encsel import CalibrationSet, rank, validate
from encsel.matching import folds
from encsel.metrics import neighbours
from encsel.prediction import predict

N, ROWS, SAMPLED = 90, 5, 60


def population(n: int = N, n_faces: int = 2, n_voices: int = 1) -> CalibrationSet:
    rng = np.random.default_rng(0)
    people = [f"person {i:03d}" for i in range(n)] * ROWS
    traits = rng.normal(size=(n, 5))

    def encoder(dim: int) -> tuple[np.ndarray, list[str]]:
        means = traits @ rng.normal(size=(5, dim)) + rng.normal(size=(n, dim))
        return np.tile(means, (ROWS, 1)) + rng.normal(size=(n * ROWS, dim)), people

    return CalibrationSet.from_arrays(
        faces={f"f{i}": encoder(32) for i in range(n_faces)}, voices={f"v{i}": encoder(24) for i in range(n_voices)}
    )


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "MAX_PEOPLE", SAMPLED)
    monkeypatch.setattr("encsel.embedding.prepare.MAX_PEOPLE", SAMPLED)
    monkeypatch.setattr(neighbours, "MAX_EXACT", 300)
    monkeypatch.setattr(neighbours, "N_SEARCHED", 200)


@pytest.mark.usefixtures("few")
def test_a_ranking_states_the_sample_of_people_and_of_rows_and_its_error():
    data = population()
    found = rank(data, cache=None)
    assert found.n_identities == N
    assert {p.cross_validated.scorer for p in found.pairs} == {"likelihood"}
    assert all(p.evidence.cross_validated.n_people == SAMPLED for p in found.details.values())
    assert any(f"are those of a random {SAMPLED} of the {N} people" in note for note in found.notes)
    (of_face,) = (note for note in found.notes if note.startswith("face encoder f0"))
    assert "a random 200 of 450 rows, with neighbours among all of them" in of_face
    exact = next(e for e in found.encoders if e.name == "f0").intrinsic_dimensions["mle_median"]
    error = float(of_face.rsplit(" ", 1)[1].removesuffix("."))
    assert 0 < error < 0.2 * exact


def test_the_sample_gives_nearly_what_all_rows_give(few):
    sampled = rank(population(), cache=None)
    neighbours.MAX_EXACT, folds.MAX_PEOPLE = 20_000, 5000
    whole = rank(population(), cache=None)
    for one, other in zip(sampled.encoders, whole.encoders, strict=True):
        assert one.intrinsic_dimension == pytest.approx(other.intrinsic_dimension, rel=0.15)
    for p in sampled.pairs:
        assert p.cka.debiased == whole.pair(p.face, p.voice).cka.debiased
        assert p.predicted_eer == pytest.approx(whole.pair(p.face, p.voice).predicted_eer, abs=0.05)


@pytest.mark.usefixtures("few")
def test_a_validation_is_one_of_a_sample_of_people_and_says_so():
    found = validate(population(), only=["intrinsic", "curvature", "matching"], cache=None)
    assert found.n_identities == SAMPLED
    assert any(f"a random {SAMPLED} of the {N} people" in note for note in found.notes)
    dimensions = found.encoders[0]["dimensions"]
    assert (dimensions.n_rows, dimensions.n_searched) == (SAMPLED * ROWS, SAMPLED * ROWS)


def test_a_validation_searches_the_neighbours_of_a_sample_of_rows(monkeypatch):
    monkeypatch.setattr(neighbours, "MAX_EXACT", 100)
    monkeypatch.setattr(neighbours, "N_SEARCHED", 80)
    found = validate(population(40), only=["intrinsic", "curvature"], cache=None)
    dimensions = found.encoders[0]["dimensions"]
    # Curvature is measured at up to 1000 points, whose neighbours are searched as well.
    assert dimensions.n_rows == dimensions.n_searched == 40 * ROWS
    monkeypatch.setattr("encsel.metrics.curvature.N_POINTS", 50)
    found = validate(population(40), only=["intrinsic", "curvature"], cache=None)
    dimensions = found.encoders[0]["dimensions"]
    assert 80 <= dimensions.n_searched < 130
    assert 0 < dimensions.standard_error < 0.3 * dimensions.mle_median["20"]
    assert found.encoders[0]["curvature"].encoder.n_points == 50


def test_the_time_of_many_pairs_is_told_before_they_are_measured(monkeypatch):
    monkeypatch.setattr(predict, "MANY_PAIRS", 6)
    notes = []

    class Notes:
        def note(self, text, *, in_result=False):
            notes.append(text)

        def task(self, label, total):
            from encsel.progress import Silent

            return Silent().task(label, total)

    rank(population(40, 3, 2), cache=None, progress=Notes())
    assert "6 pairs of 40 people: about 1 min on this machine." in notes
