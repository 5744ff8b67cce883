from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from encsel.cli.calibrate import levels_table
from encsel.errors import UsageError
from encsel.matching.crossval import MEASURED
from encsel.matching.sensitivity import distance_of_eer, eer_of_distance
from encsel.prediction.card import load_calibrated
from encsel.prediction.evidence import FEATURES
from encsel.prediction.order import SURE
from encsel.progress import Silent
from encsel.simulation.fit import between_sets, clustered_error, fit_card, fit_levels
from encsel.simulation.order import MIN_CASES
from encsel.simulation.populations import KINDS, Population, TruthSizes
from encsel.simulation.table import table_of
from encsel.simulation.trials import (
    TESTED_PEOPLE,
    TESTED_SAMPLES,
    Trials,
    resumed,
    simulate,
    training_job,
    training_sizes,
)
from encsel.storage.documents import cards_folder

SHARED = Path(__file__).parents[2] / "shared"
FITTED = tuple(KINDS)[:6]
RIVALS = {"training mean", "best constant", "cross-validated EER", "matched CKA, ln fit"}


@pytest.fixture(scope="module")
def check_cards():
    """The developer's script beside the cards."""
    spec = importlib.util.spec_from_file_location("check_cards", cards_folder() / "check_cards.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_cards"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["check_cards"]


def made_up(kind: str, seed: int, *, noise: float = 0.1) -> Trials:
    """Trials whose features are the true d' of each pair, seen through noise that falls with people."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    sizes = [(n, m) for n, m in itertools.product(TESTED_PEOPLE, TESTED_SAMPLES) for _ in range(1 + (n <= 70))]
    true = rng.normal(1.0, 0.3, (3, 3))
    values = np.empty((len(sizes), 3, 3, len(FEATURES)))
    errors = np.empty((len(sizes), len(MEASURED), 3, 3))
    for i, (n, _) in enumerate(sizes):
        sd = noise * np.sqrt(100 / n)
        values[i] = true[..., None] + sd * rng.normal(size=(3, 3, len(FEATURES)))
        errors[i] = sd
    eers = eer_of_distance(np.repeat(values[:, None, :, :, 0], len(MEASURED), axis=1))
    truth = np.tile(eer_of_distance(true), (len(MEASURED), 1, 1, 1, 1))
    return Trials(kind, seed, np.array(sizes), values, errors, eers, truth, np.array([20]), np.array([999]))


@pytest.fixture(scope="module", params=[1, pytest.param(4, marks=pytest.mark.slow)])
def table(request):
    """Pairs of so many populations of each kind."""
    return table_of([made_up(kind, seed) for seed in range(request.param) for kind in FITTED], "reference")


@pytest.fixture(scope="module")
def card(table):
    return fit_card(table, name="made-up", scorer="reference")


def test_a_table_has_a_row_a_pair_and_its_sets_in_one_piece(table):
    assert len(table) == len(np.unique(table.population)) * 24 * 9
    assert set(table.kind) == set(FITTED)
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


def test_the_error_of_a_coverage_counts_populations_and_not_their_pairs():
    inside = np.repeat([True, True, False, True], 25)
    # Four populations, all or nothing each: the standard error of the mean of 1, 1, 0, 1.
    assert clustered_error(inside, np.repeat(np.arange(4), 25)) == pytest.approx(np.std([1, 1, 0, 1], ddof=1) / 2)
    assert clustered_error(inside, np.zeros(100)) == 0
    alternating = np.tile([True, False], 50)
    assert clustered_error(alternating, np.repeat(np.arange(4), 25)) < 0.03


def test_predictions_from_other_people_differ_by_the_noise_of_the_sets(card, table):
    for row in card.held_out:
        if row.kind == "all" and row.n_identities <= 70:
            assert 0 < row.between_sets < row.rmse * 1.05
    rows = table.rows(np.isin(table.group, table.group[:1]))
    assert between_sets(rows.truth, rows) == 0  # one set
    two = table.rows((table.population == 0) & (table.n == 30) & (table.m == 4))
    assert between_sets(np.repeat([0.2, 0.3], 9), two) == pytest.approx(0.1 / np.sqrt(2))


def test_declared_orders_are_right_and_p_best_is_reliable(card):
    assert card.gaps
    assert all(b.right >= SURE for b in card.gaps if b.n >= MIN_CASES)
    # Few populations, and sets of one population share one truth.
    assert all(abs(p - was) < 0.15 for p, was, n in card.p_best if n >= 100)


def test_replicates_stay_within_the_stated_number_of_standard_errors_in_every_kind(card):
    # Two values, each with the stated error: 1.645 times the root of 2; the largest over kinds and sizes is taken.
    assert 1 <= card.replicate / (1.645 * np.sqrt(2)) < 1.3


def test_a_kind_that_lies_is_seen_in_its_own_rows(table):
    table = table.rows((table.population < len(FITTED)) & np.isin(table.kind, ["traits", "strong", "channel"]))
    truth = table.truth.copy()
    truth[table.kind == "channel"] = 0.1
    lying = fit_card(dataclasses.replace(table, truth=truth), name="made-up", scorer="reference")
    rows = {row.kind: row for row in lying.held_out if row.n_identities == 70}
    assert rows["channel"].coverage < 0.5
    assert rows["channel"].bias > 0.1
    assert rows["traits"].rmse < rows["channel"].rmse


def test_errors_of_a_finished_card_are_given_by_number_of_people(check_cards, card):
    rows = check_cards.errors_by_people(card, table_of([made_up("strong", 99)], "reference"))
    assert [row.n_identities for row in rows] == list(TESTED_PEOPLE)
    assert all(set(row.bias_at) == {"4", "8", "20"} for row in rows)
    assert all(row.rmse < row.rivals["training mean"] for row in rows)


def test_every_level_is_fitted_to_its_own_truth():
    worlds = []
    for kind in FITTED[:3]:
        one = made_up(kind, 1)
        far = eer_of_distance(0.5 * distance_of_eer(one.truth))
        truth = np.concatenate([np.concatenate([one.truth, far], axis=2)] * 2, axis=1)
        worlds.append(dataclasses.replace(one, truth=truth, probes=np.array([20, 1]), n_train=np.array([999, 100])))
    card, levels = fit_levels(worlds, name="made-up", scorer="reference")
    assert list(levels) == [(999, 20), (100, 20), (999, 1), (100, 1)]
    assert [(level.n_train_identities, level.probe_samples) for level in card.levels] == list(levels)[1:]
    for (n_train, probe), level in levels.items():
        assert card.at(n_train, probe).coefficients == level.coefficients
        assert level.target["n_train_identities"] == n_train
    assert np.sum(card.at(100, 20).coefficients) == pytest.approx(np.sum(card.coefficients) / 2, rel=0.1)
    assert "| 100 | 1 | 70 |" in levels_table(levels)


def test_simpler_predictions_stand_beside_the_errors(card):
    assert all(set(row.rivals) == RIVALS for row in card.held_out)


def test_shipped_cards_keep_the_errors_they_were_made_with():
    for name in ("encsel-calibrated", "encsel-likelihood"):
        rows = [row for row in load_calibrated(name).held_out if row.n_identities in TESTED_PEOPLE]
        assert {row.kind for row in rows} == {*KINDS, "all"}
        assert all(set(row.rivals) == RIVALS for row in rows)
        # Cells of fewer pairs would say little about a kind.
        assert all(row.n_pairs >= 150 for row in rows)


def test_trials_are_read_back_from_their_files(tmp_path):
    calls = []

    def make(kind, seed):
        calls.append(kind)
        return made_up(kind, seed)

    jobs = [(f"{kind}-{seed}", functools.partial(make, kind, seed)) for kind, seed in (("traits", 0), ("channel", 1))]
    first, second = (list(resumed(jobs, tmp_path / "w", n_jobs=1, progress=Silent())) for _ in range(2))
    assert calls == ["traits", "channel"]
    for a, b in zip(first, second, strict=True):
        assert (a.kind, a.seed) == (b.kind, b.seed)
        assert (a.values == b.values).all()
    (damaged,) = (tmp_path / "w").glob("channel-1*")
    damaged.write_bytes(damaged.read_bytes()[:100])
    list(resumed(jobs, tmp_path / "w", n_jobs=1, progress=Silent()))
    assert calls == ["traits", "channel", "channel"]


def test_simulated_trials_have_the_documented_shapes():
    sizes = TruthSizes(n_train=(40, 60), n_test=20, n_samples=2, probes=(2, 1), n_splits=1)
    world = Population("traits", 0, n_faces=1, n_voices=2)
    one = simulate("traits", 0, world.draw, [(30, 4), (35, 2)], sizes)
    assert one.sizes.tolist() == [[30, 4], [35, 2]]
    assert one.values.shape == (2, 1, 2, len(FEATURES))
    assert one.errors.shape == one.eers.shape == (2, len(MEASURED), 1, 2)
    assert one.truth.shape == (len(MEASURED), 2, 2, 1, 2)
    table = table_of([one], "likelihood", n_train=60, probe=1)
    assert table.voice.tolist() == [0, 1, 0, 1]
    assert table.feature("root_cka").tolist() == one.values[..., list(FEATURES).index("root_cka")].ravel().tolist()
    assert table.truth.tolist() == 2 * one.truth[1, 1, 1, 0].tolist()


def test_files_of_other_truths_are_other_files():
    assert training_job("traits", 0, TruthSizes())[0] != training_job("traits", 0, TruthSizes(n_splits=2))[0]


def test_training_sizes_are_seeded_and_hold_every_tested_number_of_people():
    for kind in KINDS:
        sizes = training_sizes(kind, 4)
        assert sizes == training_sizes(kind, 4)
        assert set(TESTED_PEOPLE) <= {n for n, _ in sizes}
        assert any(n > 400 for n, _ in sizes)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """A file with the class World."""
    path = tmp_path_factory.mktemp("frozen") / "frozen.py"
    path.write_text(
        "import numpy as np\n"
        "class World:\n"
        "    nf, nv = 1, 2\n"
        "    def __init__(self, seed): self.shift = seed\n"
        "    def latents(self, n, rng): return rng.normal(size=(n, 8))\n"
        "    def emb(self, k, latents, m, rng):\n"
        "        return latents[:, None] + (k + 1) * 0.5 * rng.normal(size=(len(latents), m, 8))\n"
    )
    return path


def test_a_frozen_population_gives_unit_centroids_of_its_own_encoders(check_cards, frozen):
    people = check_cards.population(frozen, 100)(12, 3, np.random.default_rng(0))
    assert [len(people[m]) for m in ("face", "voice")] == [1, 2]
    assert all(x.centroids.shape == (12, 8) for x in people["voice"])
    assert all(np.linalg.norm(x.centroids, axis=1) == pytest.approx(1) for x in people["voice"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 / 0", "division by zero"), ("x = 1", "World"), ("import nowhere_at_all", "nowhere_at_all")],
)
def test_a_file_without_a_frozen_population_is_refused_with_its_reason(check_cards, tmp_path, text, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        check_cards.load_world(path)


def test_a_frozen_population_that_changed_is_simulated_again(check_cards, frozen, tmp_path):
    changed = tmp_path / "frozen.py"
    changed.write_text(frozen.read_text() + "# other\n")
    assert (
        check_cards.frozen_job(frozen, 100, 1, TruthSizes())[0]
        != check_cards.frozen_job(changed, 100, 1, TruthSizes())[0]
    )


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not beside this checkout")
@pytest.mark.parametrize(
    ("n_splits", "least"),
    [(1, 1), pytest.param(100, 85, marks=pytest.mark.slow)],
)
def test_half_of_the_real_people_predict_the_other_half_at_equal_n(check_cards, n_splits, least):
    data = SHARED / "data" / "mavceleb_v1_embeddings"
    for pair in check_cards.halves([load_calibrated("encsel-calibrated")], data, n_splits=n_splits, progress=Silent()):
        assert pair.n_identities == 35
        assert pair.n_inside >= least, pair
