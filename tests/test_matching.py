"""Error rates, choices and retrieval against counting them one by one."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from encsel.errors import BadCalibration
from encsel.matching.eer import auc_placements, eer, eer_of_sorted
from encsel.matching.error_rates import FMRS, RULE_OF_30, WAYS, Matching, Tally

Block = tuple[np.ndarray, np.ndarray, np.ndarray]


def counted_eer(own: np.ndarray, other: np.ndarray) -> float:
    """In fractions, at every threshold from all accepted to none, straight between the two about the crossing."""
    points = []
    for threshold in [*sorted({*own.tolist(), *other.tolist()}), np.inf]:
        fnr = Fraction(sum(s < threshold for s in own.tolist()), len(own))
        fpr = Fraction(sum(s >= threshold for s in other.tolist()), len(other))
        points.append((fnr, fpr))
    after = next(i for i, (fnr, fpr) in enumerate(points) if fnr >= fpr)
    (fnr_a, fpr_a), (fnr_b, fpr_b) = points[max(after - 1, 0)], points[after]
    rise = (fnr_b - fpr_b) - (fnr_a - fpr_a)
    share = -(fnr_a - fpr_a) / rise if rise else 0
    return float(fnr_a + share * (fnr_b - fnr_a))


def block(
    n: int = 8, *, faces: int = 2, voices: int = 3, shared: float = 1.0, levels: int | None = None, seed: int = 0
) -> Block:
    """Scores of people 0..n with several samples on each side, some people on one side only.

    `levels`: scores are rounded to so many, and so tied.
    """
    rng = np.random.default_rng(seed)
    own_faces = np.repeat(np.arange(n + 1), faces)
    own_voices = np.repeat(np.arange(1, n + 2), voices)[:-1]
    rng.shuffle(own_faces)
    rng.shuffle(own_voices)
    scores = shared * (own_faces[:, None] == own_voices) + rng.normal(size=(len(own_faces), len(own_voices)))
    if levels:
        scores = np.round(scores * levels / 4)
    return scores, own_faces, own_voices


def tallied(*blocks: Block) -> Matching:
    tally = Tally()
    for one in blocks:
        tally.add(*one)
    return tally.result()


def pooled(*blocks: Block) -> tuple[np.ndarray, np.ndarray]:
    sames = [faces[:, None] == voices for _, faces, voices in blocks]
    own = np.concatenate([b[0][s] for b, s in zip(blocks, sames, strict=True)])
    return own, np.concatenate([b[0][~s] for b, s in zip(blocks, sames, strict=True)])


def each_way(one: Block) -> list[tuple[str, Block]]:
    scores, faces, voices = one
    return [(WAYS[0], (scores, faces, voices)), (WAYS[1], (scores.T, voices, faces))]


def queries(one: Block) -> list[tuple[list[float], list[float]]]:
    """Scores of hits and of others, of every query that has both."""
    scores, seekers, gallery = one
    found = []
    for row, who in zip(scores, seekers, strict=True):
        hits, others = row[gallery == who].tolist(), row[gallery != who].tolist()
        if hits and others:
            found.append((hits, others))
    return found


def test_eer_of_many_small_tied_sets_is_that_counted_in_fractions():
    rng = np.random.default_rng(0)
    for _ in range(1500):
        levels = rng.integers(1, 9)
        own, other = (rng.integers(0, levels, rng.integers(1, 12)).astype(float) for _ in range(2))
        expected = counted_eer(own, other)
        assert eer(own, other) == pytest.approx(expected, abs=1e-12), (own, other)
        assert eer_of_sorted(np.sort(own), np.sort(other)) == eer(own, other)


def test_eer_of_scores_without_ties_is_that_counted_in_fractions():
    rng = np.random.default_rng(1)
    for _ in range(200):
        own, other = rng.normal(rng.normal(), 1, rng.integers(1, 20)), rng.normal(0, 1, rng.integers(1, 30))
        assert eer(own, other) == pytest.approx(counted_eer(own, other), abs=1e-12)


def test_placements_are_counted_one_by_one_with_ties_half():
    rng = np.random.default_rng(2)
    own, other = rng.integers(0, 5, 12).astype(float), np.sort(rng.integers(0, 5, 17)).astype(float)
    counted = [np.mean([(o < s) + (o == s) / 2 for o in other]) for s in own]
    np.testing.assert_allclose(auc_placements(own, other), counted, rtol=1e-12)


# 40 levels: a few ties; 3: almost nothing else.
@pytest.mark.parametrize("levels", [None, 40, 3])
def test_eer_and_false_non_match_rates_are_those_of_all_blocks_pooled(levels):
    blocks = [block(seed=seed, levels=levels) for seed in range(3)]
    own, other = pooled(*blocks)
    found = tallied(*blocks)
    assert found.eer == pytest.approx(counted_eer(own, other), abs=1e-12)
    assert (found.n_genuine, found.n_impostor) == (len(own), len(other))
    thresholds = [*np.unique(np.concatenate([own, other])), np.inf]
    for fmr in FMRS:
        lowest = min(t for t in thresholds if np.mean(other >= t) <= fmr)
        assert found.fnmr_at[f"{fmr:g}"] == pytest.approx(np.mean(own < lowest), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 3])
def test_auc_is_the_mean_over_people_of_blocks_of_placements(levels):
    blocks = [block(seed=seed, levels=levels) for seed in (3, 4)]
    means: dict[int, list[float]] = {}
    for scores, faces, voices in blocks:
        others = scores[faces[:, None] != voices]
        for person in set(faces.tolist()) & set(voices.tolist()):
            own = scores[np.ix_(faces == person, voices == person)].ravel()
            means.setdefault(person, []).append(
                float(np.mean([(others < s).mean() + (others == s).mean() / 2 for s in own]))
            )
    people = [np.mean(values) for values in means.values()]
    found = tallied(*blocks)
    assert found.auc == pytest.approx(np.mean(people), rel=1e-12)
    assert found.auc_se == pytest.approx(np.std(people, ddof=1) / np.sqrt(len(people)), rel=1e-12)
    assert found.n_people == len(people)


@pytest.mark.parametrize("levels", [None, 40, 3])
def test_two_choice_accuracy_is_over_all_choices_of_a_hit_and_another_with_ties_half(levels):
    blocks = [block(seed=seed, levels=levels) for seed in (5, 6)]
    found = tallied(*blocks)
    for i, way in enumerate(WAYS):
        choices = [
            (hit > other) + (hit == other) / 2
            for one in blocks
            for hits, others in queries(each_way(one)[i][1])
            for hit in hits
            for other in others
        ]
        assert found.two_choice[way] == pytest.approx(np.mean(choices), rel=1e-12)


def test_recall_and_average_precision_are_those_of_sorted_lists():
    blocks = [block(12, seed=seed) for seed in (7, 8)]
    found = tallied(*blocks)
    for i, way in enumerate(WAYS):
        ranks, sizes = [], []
        for one in blocks:
            for hits, others in queries(each_way(one)[i][1]):
                order = sorted([(-s, True) for s in hits] + [(-s, False) for s in others])
                ranks.append([place for place, (_, is_hit) in enumerate(order, 1) if is_hit])
                sizes.append(len(order))
        retrieval = found.retrieval[way]
        for k in (1, 5, 10):
            assert retrieval.recall[str(k)] == pytest.approx(np.mean([r[0] <= k for r in ranks]), rel=1e-12)
        precisions = [np.mean([j / place for j, place in enumerate(r, 1)]) for r in ranks]
        assert retrieval.mean_average_precision == pytest.approx(np.mean(precisions), rel=1e-12)
        assert retrieval.gallery == pytest.approx(np.mean(sizes), rel=1e-12)


def test_chance_of_a_hit_is_what_scores_at_random_give():
    found = tallied(*(block(faces=1, voices=2, shared=0.0, seed=seed) for seed in range(600)))
    for way in WAYS:
        retrieval = found.retrieval[way]
        for k in ("1", "5", "10"):
            # 600 blocks of at least 8 queries: the standard error is under 0.01.
            assert retrieval.recall[k] == pytest.approx(retrieval.chance[k], abs=0.025)
        assert 0 < retrieval.chance["1"] < retrieval.chance["5"] <= retrieval.chance["10"] <= 1
        assert found.two_choice[way] == pytest.approx(0.5, abs=0.02)
    assert found.eer == pytest.approx(0.5, abs=0.02)


def test_a_gallery_smaller_than_the_rank_is_found_by_chance():
    found = tallied((np.eye(4), np.arange(4), np.arange(4)))
    assert found.retrieval["face_to_voice"].chance == {"1": pytest.approx(0.25), "5": 1, "10": 1}


def test_of_equal_scores_the_middle_place_is_taken():
    # One hit among three level with it: place 2 of 3, which is not the first.
    found = tallied((np.zeros((3, 3)), np.arange(3), np.arange(3)))
    for way in WAYS:
        assert found.retrieval[way].recall == {"1": 0, "5": 1, "10": 1}
        assert found.retrieval[way].mean_average_precision == pytest.approx(1 / 2)
        assert found.two_choice[way] == 0.5
    assert (found.eer, found.auc) == (0.5, 0.5)


def test_two_hits_that_tie_above_all_others_are_a_hit_at_once():
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = tallied((scores, np.array(["a", "b"]), np.array(["a", "a", "b"])))
    assert found.retrieval["face_to_voice"].recall["1"] == 1


def test_det_goes_down_as_false_matches_go_up():
    found = tallied(*(block(seed=seed, levels=levels) for seed, levels in ((9, None), (10, 5))))
    fmr, fnmr = np.array(found.det).T
    assert (np.diff(fmr) > 0).all()
    assert (np.diff(fnmr) <= 0).all()
    assert (fmr[-1], fnmr[-1]) == (1, 0)
    assert ((fnmr >= 0) & (fnmr <= 1)).all()


def test_separated_scores_have_no_errors():
    found = tallied((10 * np.eye(6), np.arange(6), np.arange(6)))
    assert (found.eer, found.auc, found.n_errors) == (0, 1, 0)
    assert set(found.fnmr_at.values()) == {0}
    assert {fnmr for _, fnmr in found.det} == {0}
    for way in WAYS:
        assert found.two_choice[way] == 1
        assert found.retrieval[way].recall["1"] == 1
        assert found.retrieval[way].mean_average_precision == 1


def test_inverted_scores_have_nothing_but_errors():
    found = tallied((-np.eye(6), np.arange(6), np.arange(6)))
    assert (found.eer, found.auc) == (1, 0)
    assert found.two_choice == {way: 0 for way in WAYS}


@pytest.mark.parametrize("shared", [-2.0, 0.0, 0.5, 2.0, 8.0])
@pytest.mark.parametrize("n", [2, 5, 40])
def test_interval_contains_the_eer(n, shared):
    found = tallied(block(n, shared=shared, seed=n))
    low, high = found.interval
    assert 0 <= low <= found.eer <= high <= 1
    assert low < high


def test_interval_narrows_with_people():
    widths = [np.ptp(tallied(block(n, shared=1.5, seed=11)).interval) for n in (5, 30, 180)]
    assert widths[0] > widths[1] > widths[2]


def test_interval_of_90_percent_holds():
    # Faces and voices share a trait; the truth is the EER of very many people.
    def drawn(n, rng):
        trait = rng.normal(size=(n, 3))
        x, y = (trait + rng.normal(size=(n, 3)) for _ in range(2))
        return x @ y.T - (x**2).sum(axis=1)[:, None] / 4 - (y**2).sum(axis=1) / 4, np.arange(n), np.arange(n)

    rng = np.random.default_rng(12)
    truth = tallied(drawn(1500, rng)).eer
    intervals = [tallied(drawn(40, rng)).interval for _ in range(200)]
    # Made wide for scores that are cross-validated, these are not: they may hold more often than they say.
    assert np.mean([low <= truth <= high for low, high in intervals]) >= 0.85


def test_one_person_alone_has_no_interval():
    found = tallied((np.array([[1.0, 0.0], [0.0, 0.5]]), np.array(["a", "b"]), np.array(["a", "c"])))
    assert (found.n_people, found.n_genuine, found.n_impostor) == (1, 1, 3)
    assert found.interval is None
    assert found.auc_se is None


def test_a_person_on_one_side_only_is_an_impostor_to_all():
    scores = np.array([[3.0, 0.0], [0.0, 3.0], [5.0, 5.0]])
    known = tallied((scores[:2], np.array(["a", "b"]), np.array(["a", "b"])))
    joined = tallied((scores, np.array(["a", "b", "stranger"]), np.array(["a", "b"])))
    assert joined.n_people == known.n_people == 2
    assert joined.n_impostor == known.n_impostor + 2
    # Two of four impostors are above both genuine scores: the ROC's line from (1/2, 0) to (1/2, 1) meets the diagonal.
    assert (known.eer, joined.eer) == (0, 0.5)
    # A stranger's face has nobody to find; a voice can take it for the face it looks for.
    assert joined.retrieval["face_to_voice"] == known.retrieval["face_to_voice"]
    assert joined.retrieval["voice_to_face"].recall["1"] == 0


def test_few_errors_are_under_thirty():
    few = tallied(block(20, shared=1.0, seed=13))
    assert few.n_errors == few.eer * few.n_people < RULE_OF_30
    assert few.few_errors
    many = tallied(block(100, faces=1, voices=2, shared=0.0, seed=14))
    assert many.n_errors == many.eer * many.n_people >= RULE_OF_30
    assert not many.few_errors


def test_matching_ignores_any_rising_map_of_scores():
    scores, faces, voices = block(seed=15, levels=40)
    assert tallied((np.exp(scores), faces, voices)) == tallied((scores, faces, voices))


def test_matching_ignores_the_order_of_samples():
    scores, faces, voices = block(seed=16)
    rng = np.random.default_rng(17)
    rows, columns = rng.permutation(len(faces)), rng.permutation(len(voices))
    mixed, plain = tallied((scores[rows][:, columns], faces[rows], voices[columns])), tallied((scores, faces, voices))
    assert (mixed.eer, mixed.fnmr_at, mixed.det) == (plain.eer, plain.fnmr_at, plain.det)
    assert (mixed.auc, mixed.auc_se) == pytest.approx((plain.auc, plain.auc_se), rel=1e-12)
    assert mixed.two_choice == pytest.approx(plain.two_choice, rel=1e-12)


def test_faces_and_voices_swapped_swap_the_ways():
    (_, straight), (_, turned) = each_way(block(seed=18))
    there, back = tallied(straight), tallied(turned)
    assert (there.eer, there.fnmr_at) == (back.eer, back.fnmr_at)
    assert there.auc == pytest.approx(back.auc, rel=1e-12)
    for way, other in (WAYS, WAYS[::-1]):
        assert there.retrieval[way] == back.retrieval[other]
        assert there.two_choice[way] == back.two_choice[other]


def test_blocks_without_genuine_or_without_impostor_pairs_change_nothing():
    one = block(seed=19)
    strangers = np.ones((2, 2)), np.array([100, 101]), np.array([102, 103])
    alone = np.ones((2, 2)), np.array([100, 100]), np.array([100, 100])
    assert tallied(strangers, one, alone) == tallied(one)


def test_a_tally_without_both_kinds_of_pair_is_empty_and_an_error():
    tally = Tally()
    tally.add(np.ones((2, 2)), np.array([0, 1]), np.array([2, 3]))
    tally.add(np.ones((2, 1)), np.array([0, 0]), np.array([0]))
    assert tally.is_empty
    with pytest.raises(BadCalibration, match="No test people with both a genuine and an impostor pair"):
        tally.result()
    tally.add(*block())
    assert not tally.is_empty


def test_a_block_in_which_one_side_has_nothing_to_choose_from_is_no_crash():
    # A face against the one voice there is has no choice; the voice has one of two faces.
    tally = Tally()
    tally.add(np.array([[1.0], [0.0]]), np.array(["a", "b"]), np.array(["a"]))
    assert tally.result().two_choice["voice_to_face"] == 1
