from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from encsel.matching.crossval import MEASURED
from encsel.prediction.card import SURE
from encsel.prediction.evidence import FEATURES, eer_of_distance
from encsel.progress import Silent
from encsel.simulation import recipe, trials
from encsel.simulation.populations import KINDS
from encsel.simulation.trials import TESTED, TESTED_SAMPLES, Trials

SHARED = Path(__file__).parents[2] / "shared"


def made_up(kind: str, seed: int, *, noise: float = 0.1) -> Trials:
    """Trials whose features are the true d' of each pair, seen through noise that falls with people."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    sizes = [(n, m) for n, m in itertools.product(TESTED, TESTED_SAMPLES) for _ in range(1 + (n <= 70))]
    true = rng.normal(1.0, 0.3, (3, 3))
    values = np.empty((len(sizes), 3, 3, len(FEATURES)))
    own = np.empty((len(sizes), len(MEASURED), 3, 3))
    for i, (n, _) in enumerate(sizes):
        sd = noise * np.sqrt(100 / n)
        values[i] = true[..., None] + sd * rng.normal(size=(3, 3, len(FEATURES)))
        own[i] = sd
    eers = eer_of_distance(np.repeat(values[:, None, :, :, 0], len(MEASURED), axis=1))
    truth = np.repeat(eer_of_distance(true)[None], len(MEASURED), axis=0)
    return Trials(kind, seed, np.array(sizes), values, own, eers, np.full((len(sizes), 3, 3, 12), 0.2), truth)


@pytest.fixture(scope="module")
def table():
    return recipe.table_of([made_up(kind, seed) for seed in range(3) for kind in KINDS], "reference")


@pytest.fixture(scope="module")
def card(table):
    return recipe.fit_card(table, name="made-up", scorer="reference")


def test_a_table_has_a_row_a_pair_and_its_sets_in_one_piece(table):
    assert len(table) == 3 * len(KINDS) * 24 * 9
    assert all(len(np.unique(table.group[s])) == 1 and s.stop - s.start == 9 for s in table.sets)


def test_a_fit_finds_the_truth_that_the_features_hold(card):
    everyone = {row.n_identities: row for row in card.held_out if row.kind == "all"}
    assert everyone[200].rmse < everyone[30].rmse < 0.5 * everyone[30].rivals["best constant"]
    assert everyone[200].spearman > 0.95
    assert abs(everyone[70].bias) < 0.003


def test_intervals_of_a_fit_cover_what_they_say_on_kinds_kept_out(card):
    for row in card.held_out:
        if row.kind == "all":
            assert row.coverage == pytest.approx(0.9, abs=0.03)


def test_declared_orders_are_right_and_p_best_is_reliable(card):
    assert card.gaps
    assert all(b.right >= SURE for b in card.gaps if b.n >= recipe.MIN_CASES)
    # 18 populations only: their sets share one truth.
    assert all(abs(p - was) < 0.15 for p, was, n in card.p_best if n >= 100)


def test_replicates_stay_within_the_stated_number_of_standard_errors_in_every_kind(card):
    # Two values, each with the stated error: 1.645 times the root of 2; the largest over kinds and sizes is taken.
    assert 1 <= card.replicate / (1.645 * np.sqrt(2)) < 1.3


def test_a_kind_that_lies_is_seen_in_its_own_rows(table):
    truth = table.truth.copy()
    truth[table.kind == "channel"] = 0.1
    lying = recipe.fit_card(
        recipe.Table(**{**{k: getattr(table, k) for k in table.__dataclass_fields__}, "truth": truth}),
        name="made-up",
        scorer="reference",
    )
    rows = {row.kind: row for row in lying.held_out if row.n_identities == 70}
    assert rows["channel"].coverage < 0.5
    assert rows["channel"].bias > 0.1
    assert rows["traits"].rmse < rows["channel"].rmse


def test_errors_on_a_finished_card_are_told_by_number_of_people(card):
    other = recipe.table_of([made_up("strong", 99)], "reference")
    rows = recipe.held_out_yardstick(card, other)
    assert [row.n_identities for row in rows] == list(TESTED)
    assert all(set(row.bias_at) == {"4", "8", "20"} for row in rows)


def test_the_first_recipe_is_compared_where_it_has_coefficients(card):
    row = next(row for row in card.held_out if row.n_identities == 70)
    assert {"training mean", "best constant", "cross-validated EER", "matched CKA, ln fit", "first recipe"} == set(
        row.rivals
    )


def test_trials_are_taken_up_again_from_their_files(tmp_path, monkeypatch):
    calls = []

    def simulate(path, make, *args, **options):
        calls.append(args)
        one = made_up(args[0], args[1])
        with path.open("wb") as file:
            np.savez(file, **{name: np.asarray(getattr(one, name)) for name in Trials.__dataclass_fields__})

    monkeypatch.setattr(trials, "_simulate", simulate)
    jobs = [("traits", 0), ("channel", 1)]
    run = lambda: list(trials.trials(jobs, work=tmp_path / "w", n_jobs=1, progress=Silent()))  # noqa: E731
    first, second = run(), run()
    assert len(calls) == 2
    for a, b in zip(first, second, strict=True):
        assert (a.kind, a.seed) == (b.kind, b.seed)
        assert (a.values == b.values).all()


def test_training_sizes_are_seeded_and_hold_every_tested_number_of_people():
    for kind in KINDS:
        sizes = trials.training_sizes(kind, 4)
        assert sizes == trials.training_sizes(kind, 4)
        assert set(TESTED) <= {n for n, _ in sizes}
        assert any(n > 400 for n, _ in sizes)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not beside this checkout")
def test_half_of_the_real_people_predict_the_other_half_at_equal_n():
    from encsel.prediction.card import load_calibrated

    data = SHARED / "data" / "mavceleb_v1_embeddings"
    for pair in recipe.halves(load_calibrated("encsel-calibrated"), data, n_splits=20, progress=Silent()):
        assert pair.n_identities == 35
        # 85 of 100 is what is asked of all splits; 20 of them have a standard error of 0.08.
        assert pair.n_inside >= 15, pair


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not beside this checkout")
def test_half_of_the_real_people_predict_the_other_half_in_85_of_100_splits():
    from encsel.prediction.card import load_calibrated

    data = SHARED / "data" / "mavceleb_v1_embeddings"
    for pair in recipe.halves(load_calibrated("encsel-calibrated"), data, n_splits=100, progress=Silent()):
        assert pair.n_inside >= 85, pair
