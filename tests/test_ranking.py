from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import toy
from toy import few_shuffles, people, write_population

import encsel
from encsel.core import Runtime, SetOptions
from encsel.embedding import prepare
from encsel.embedding.health import SAME_VECTORS
from encsel.errors import BadCalibration, EncselError, UsageError
from encsel.progress import Silent
from encsel.ranking.flags import AT_CHANCE, EXTRAPOLATES, FEW_PEOPLE, PEOPLE_UNLIKE, ROWS_UNLIKE
from encsel.ranking.settings import RankSettings
from encsel.regression.card import GeometricCard, load_geometric_card

LN = "upadhyay2026-ln"
ONE_PAIR = {"faces": "face0", "voices": "voice0", "cache": None}


@pytest.fixture(scope="module")
def by_ln(population):
    """The population, whose matched CKA lies within the published cards' range, ordered by one of them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        few_shuffles(monkeypatch)
        return encsel.rank(population, regression=LN, faces="face0", cache=None)


@pytest.fixture(scope="module")
def beyond(tmp_path_factory):
    """Pairs of which some lie beyond the published cards' range."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        few_shuffles(monkeypatch)
        data = write_population(tmp_path_factory.mktemp("beyond"), 40, faces=3, voices=1, shared=2.0)
        return encsel.rank(data, regression=LN, cache=None)


def edited_card(tmp_path, name: str, **changes) -> str:
    card: GeometricCard = dataclasses.replace(load_geometric_card(name), name="edited", **changes)
    card.save(tmp_path / "edited.json")
    return str(tmp_path / "edited.json")


def test_pairs_are_ordered_by_predicted_eer_when_every_pair_has_one(ranking):
    eers = [p.predicted_eer for p in ranking.pairs]
    assert len(eers) == 4
    assert ranking.ordered_by == "encsel-likelihood"
    assert eers == sorted(eers)
    assert [p.rank for p in ranking.pairs] == [1, 2, 3, 4]


def test_more_shared_structure_ranks_first(ranking):
    assert (ranking.best.face, ranking.best.voice) == ("face0", "voice0")


def test_a_published_card_orders_when_asked(by_ln):
    assert by_ln.ordered_by == LN
    eers = [p.predicted_eer for p in by_ln.pairs]
    assert eers == sorted(eers)
    assert all(p.places is None and p.p_best is None for p in by_ln.pairs)


def test_the_cka_that_enters_a_published_card_is_the_matched_one(by_ln):
    card = load_geometric_card(LN)
    for pair in by_ln.pairs:
        assert pair.predicted_eer == card.apply({"cka": pair.cka.matched}).eer
        assert pair.cka.biased > pair.cka.matched + 0.02


def test_interval_contains_the_prediction_and_stays_within_chance(ranking):
    for pair in ranking.pairs:
        low, high = pair.interval
        assert 0 <= low <= pair.predicted_eer <= high <= 0.5


def test_the_studys_prediction_always_stands_beside(ranking, population):
    names = {"encsel-likelihood", "encsel-calibrated", "upadhyay2026", "upadhyay2026-ln"}
    assert all(set(p.predictions) == names for p in ranking.pairs)
    first = encsel.rank(population, regression="upadhyay2026", **ONE_PAIR)
    assert all(set(p.predictions) == names for p in first.pairs)
    assert next(iter(first.regressions)) == "upadhyay2026"


def test_outside_the_cards_range_there_is_no_prediction_but_a_flagged_extrapolation(beyond):
    best = beyond.best
    assert best.predicted_eer is None
    assert best.interval is None
    assert "above the card's training range" in best.reason
    prediction = best.predictions[LN]
    assert prediction.eer is not None
    assert EXTRAPOLATES in prediction.flags
    assert prediction.interval is None


def test_one_pair_without_a_prediction_orders_all_by_matched_cka(beyond):
    assert {p.predicted_eer is None for p in beyond.pairs} == {True, False}
    matched = [p.cka.matched for p in beyond.pairs]
    assert beyond.ordered_by == "cka_matched"
    assert matched == sorted(matched, reverse=True)
    assert any("ordered by" in note for note in beyond.notes)


def test_json_of_missing_values_is_strict(beyond):
    json.loads(beyond.to_json(), parse_constant=lambda constant: pytest.fail(f"{constant} in JSON"))


def test_id_mismatch_is_measured_at_the_cards_samples_per_person(tmp_path):
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(20), (40, 1)), axis=1)
    x, y = toy.population(40, rows=20)
    for side, samples in (("face", x), ("voice", y)):
        for name, rows in (("few", 8), ("many", 20)):
            (tmp_path / name / f"{side}s").mkdir(parents=True)
            np.savez(
                tmp_path / name / f"{side}s" / "e.npz",
                embeddings=np.stack([samples[i, order[i, :rows]] for i in range(40)]).reshape(40 * rows, -1),
                labels=np.repeat(people(40), rows),
            )
    few, many = (encsel.rank(tmp_path / name, regression=LN, cache=None) for name in ("few", "many"))
    assert few.encoders[0].intrinsic_dimension == pytest.approx(many.encoders[0].intrinsic_dimension, rel=0.05)
    assert ROWS_UNLIKE in many.best.flags
    assert ROWS_UNLIKE not in few.best.flags


def test_another_number_of_people_than_the_cards_is_said_where_id_mismatch_enters(ranking):
    assert PEOPLE_UNLIKE in ranking.best.predictions["upadhyay2026"].flags
    assert PEOPLE_UNLIKE not in ranking.best.predictions["upadhyay2026-ln"].flags


def test_shuffled_people_are_flagged_as_chance(tmp_path):
    data = write_population(tmp_path, 60, shared=0.0, faces=1, voices=1, seed=3)
    (pair,) = encsel.rank(data, cache=None).pairs
    assert pair.cka.null_p > 0.05
    assert pair.null.p > 0.05
    assert pair.null.p_familywise == pytest.approx(pair.null.p)
    assert AT_CHANCE in pair.flags


def test_shared_structure_is_not_flagged_as_chance(ranking):
    null, cka = ranking.best.null, ranking.best.cka
    assert (null.p, cka.null_p) == (1 / (1 + null.n_permutations), 1 / (1 + cka.null_permutations))
    assert AT_CHANCE not in ranking.best.flags


def test_under_30_people_is_an_error_unless_lowered_and_then_predicts_nothing(tmp_path):
    write_population(tmp_path, 16, voices=1)
    with pytest.raises(BadCalibration, match=r"16 identities .* at least 30 are needed") as caught:
        encsel.rank(tmp_path, cache=None)
    assert caught.value.exit_code == 3
    ranking = encsel.rank(tmp_path, min_identities=10, cache=None)
    assert all(p.predicted_eer is None and "16 people" in p.reason for p in ranking.pairs)
    assert all(FEW_PEOPLE in p.flags for p in ranking.pairs)
    assert ranking.ordered_by == "cka_matched"


def test_one_person_is_an_error_that_says_so_however_low_the_minimum(tmp_path):
    write_population(tmp_path, 1)
    with pytest.raises(BadCalibration, match="CKA needs at least 4"):
        encsel.rank(tmp_path, min_identities=1, cache=None)


def test_all_pairs_are_compared_on_the_people_every_encoder_has(tmp_path):
    write_population(tmp_path, 20, voices=1)
    path = tmp_path / "faces" / "face1.npz"
    with np.load(path) as archive:
        kept = ~np.isin(archive["labels"], people(20)[:12])
        arrays = {name: archive[name][kept] for name in archive.files}
    np.savez(path, **arrays)
    ranking = encsel.rank(tmp_path, min_identities=8, cache=None)
    assert ranking.n_identities == 8
    assert [e.n_samples for e in ranking.encoders] == [32] * 3


def test_people_are_joined_by_identity_and_never_by_row(tmp_path, ranking, population):
    rng = np.random.default_rng(1)
    for path in population.rglob("*.npz"):
        with np.load(path) as archive:
            order = rng.permutation(len(archive["labels"]))
            (tmp_path / path.parent.name).mkdir(exist_ok=True)
            np.savez(tmp_path / path.parent.name / path.name, **{k: archive[k][order] for k in archive.files})
    for shuffled in encsel.rank(tmp_path, voices="voice0", cache=None).pairs:
        pair = ranking.pair(shuffled.face, shuffled.voice)
        assert shuffled.cka.matched == pytest.approx(pair.cka.matched, rel=1e-9)
        assert shuffled.predicted_eer == pytest.approx(pair.predicted_eer, rel=1e-9)


def test_same_input_gives_the_same_json_byte_for_byte(ranking, population):
    assert encsel.rank(population, cache=None).to_json() == ranking.to_json()


def test_another_level_is_another_prediction_and_the_table_says_which(population, ranking):
    single = encsel.rank(population, train_people=300, probe_samples=1, faces="face0", voices="voice0", cache=None)
    (pair,) = single.pairs
    assert pair.predicted_eer > ranking.pair("face0", "voice0").predicted_eer
    assert (single.n_train_identities, single.n_probe_samples) == (300, 1)
    assert "300 people with 20 samples each, one photo against one clip" in " ".join(str(single).split())
    with pytest.raises(UsageError, match="need a calibrated card"):
        encsel.rank(population, train_people=300, regression="upadhyay2026", cache=None)


def test_signature_changes_with_data_encoders_seed_people_and_card(tmp_path, population, ranking):
    def signature_id(data, *, regression="encsel-likelihood", faces=(), voices=(), level=(999, 20), **options):
        prepared = prepare.prepare(
            data, faces, voices, options=SetOptions(**options), runtime=Runtime(cache=None), expect_best=None,
            progress=Silent(),
        )  # fmt: skip
        return RankSettings.checked(regression, 0.9, level=level).signature(prepared)["id"]

    assert signature_id(population) == ranking.signature_id
    one_pair = {"faces": "face0", "voices": "voice0"}
    ids = {
        signature_id(population),
        signature_id(population, **one_pair),
        signature_id(write_population(tmp_path, 60, seed=1), **one_pair),
        signature_id(population, seed=1, **one_pair),
        signature_id(population, regression="upadhyay2026", **one_pair),
        signature_id(population, identities=50, **one_pair),
        signature_id(population, level=(300, 20), **one_pair),
        signature_id(population, level=(999, 1), **one_pair),
    }
    assert len(ids) == 8


def test_encoders_can_be_chosen_by_name_or_by_file_and_a_wrong_name_shows_the_nearest(population, tmp_path):
    loose = tmp_path / "loose.npz"
    loose.write_bytes((population / "faces" / "face0.npz").read_bytes())
    ranking = encsel.rank(population, faces=["face1", str(loose)], voices=["voice0"], cache=None)
    assert {(p.face, p.voice) for p in ranking.pairs} == {("face1", "voice0"), ("loose", "voice0")}
    with pytest.raises(UsageError, match="Did you mean 'face1'"):
        encsel.rank(population, faces=["facel"], cache=None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "gw_distance", "transform": "identity"}, "gw_distance"),
        ({"n_identities": None, "reason": "pooled"}, "different numbers of people"),
        ({"metric_version": 99}, "99"),
    ],
)
def test_a_card_that_rank_cannot_apply_is_refused(tmp_path, population, changes, says):
    feature = dataclasses.replace(load_geometric_card(LN).features[0], **changes)
    form = "linear" if feature.transform == "identity" else "log"
    with pytest.raises(UsageError, match=says):
        encsel.rank(population, regression=edited_card(tmp_path, LN, features=(feature,), form=form))


def test_an_unknown_card_shows_the_nearest(population):
    with pytest.raises(UsageError, match="upadhyay2026"):
        encsel.rank(population, regression="upadhyay2025")


def test_matched_cka_of_a_card_is_at_that_cards_number_of_people(tmp_path, population, ranking):
    feature = dataclasses.replace(load_geometric_card(LN).features[0], n_identities=100)
    (pair,) = encsel.rank(population, regression=edited_card(tmp_path, LN, features=(feature,)), **ONE_PAIR).pairs
    assert pair.cka.matched_to == 100
    assert pair.cka.matched > ranking.pair("face0", "voice0").cka.matched


def test_too_few_samples_for_intrinsic_dimension_leaves_the_ln_card_working(tmp_path):
    for side, samples in zip(("face", "voice"), toy.population(20, rows=1), strict=True):
        (tmp_path / f"{side}s").mkdir()
        np.savez(tmp_path / f"{side}s" / "e.npz", embeddings=samples[:, 0], labels=people(20))
    (pair,) = encsel.rank(tmp_path, min_identities=10, cache=None).pairs
    assert pair.id_mismatch is None
    assert pair.predictions["upadhyay2026"].eer is None
    assert "intrinsic dimension" in pair.predictions["upadhyay2026"].reason
    assert pair.predictions["upadhyay2026-ln"].eer is not None or pair.predictions["upadhyay2026-ln"].reason


def broken_encoder(root, kind):
    """A set of 40 people with one more face encoder, which is not usable."""
    write_population(root, 40, faces=1, voices=1)
    labels = np.repeat(people(40), 4)
    vectors = {"constant": np.ones((160, 5)), "zeros": np.zeros((160, 5)), "nan": np.full((160, 5), np.nan)}[kind]
    np.savez(root / "faces" / "broken.npz", embeddings=vectors, labels=labels)
    return root


@pytest.mark.parametrize("kind", ["constant", "zeros", "nan"])
def test_an_encoder_of_which_nothing_can_be_measured_fails_by_name_and_the_others_go_on(tmp_path, kind):
    root = broken_encoder(tmp_path, kind)
    ranking = encsel.rank(root, cache=None)
    assert [(f.modality, f.encoder) for f in ranking.failures] == [("face", "broken")]
    assert [(p.face, p.voice) for p in ranking.pairs] == [("face0", "voice0")]
    assert ranking.exit_code == 4
    if kind == "constant":
        validation = encsel.validate(root, only=["matching"], cache=None)
        assert (validation.exit_code, [f.encoder for f in validation.failures]) == (4, ["broken"])
    # Named on the command line, and alone.
    named = encsel.rank(root, faces=["face0", str(root / "faces" / "broken.npz")], cache=None)
    assert [f.encoder for f in named.failures] == ["broken"]
    with pytest.raises(EncselError, match=r"No face .* can be .*broken: ") as caught:
        encsel.rank(root, faces="broken", cache=None)
    assert caught.value.exit_code == (4 if kind == "constant" else 3)


def test_a_set_that_is_not_what_it_seems_passes_no_gate(tmp_path):
    write_population(tmp_path, 40, faces=1, voices=0)
    (tmp_path / "voices/copy.npz").write_bytes((tmp_path / "faces/face0.npz").read_bytes())
    for result in (
        encsel.rank(tmp_path, cache=None, max_eer=0.5),
        encsel.validate(tmp_path, cache=None, max_eer=0.5, only=["matching"]),
    ):
        assert SAME_VECTORS in result.pairs[0].flags
        assert (result.verdict.status, result.exit_code) == ("inconclusive", 6)
        assert f"face0 x copy: {SAME_VECTORS}; no gate passes." in result.notes
