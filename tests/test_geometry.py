from __future__ import annotations

import numpy as np
import pytest
from toy import embeddings, population

from encsel.errors import BadCalibration
from encsel.metrics.linear_cka import gram
from encsel.ranking.geometry import (
    intrinsic_dimension,
    measure_encoder,
    permutation_null,
)


def test_centroids_are_normalised_means_in_sorted_order():
    x = population(5, rows=3)[0]
    made = embeddings("a", "face", x)
    shuffled = made.rows(np.random.default_rng(0).permutation(15))
    means = x.astype(np.float64).mean(axis=1)
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(shuffled.centroids, expected, rtol=1e-12)


def test_centroid_of_rows_that_cancel_is_zero_and_not_nan():
    x = np.stack([np.stack([np.ones(3), -np.ones(3)])] * 2).astype(np.float32)
    assert not embeddings("a", "face", x).centroids.any()


def test_intrinsic_dimension_at_fewer_rows_averages_draws_and_does_not_depend_on_row_order():
    made = embeddings("a", "face", population(20, rows=12)[0])
    order = np.random.default_rng(1).permutation(len(made.labels))
    one = intrinsic_dimension(made, rows_per_identity=4, seed=0)
    two = intrinsic_dimension(made.rows(order), rows_per_identity=4, seed=0)
    assert one.values["mle_median"] == pytest.approx(two.values["mle_median"], rel=1e-12)
    assert intrinsic_dimension(made, rows_per_identity=4, seed=1).values != one.values


def test_intrinsic_dimension_of_too_few_samples_is_missing_with_a_reason():
    found = intrinsic_dimension(embeddings("a", "face", population(5, rows=2)[0]), rows_per_identity=8, seed=0)
    assert found.values is None
    assert "10 distinct samples" in found.reason


def test_repeated_rows_do_not_enter_intrinsic_dimension():
    x = population(20, rows=4)[0]
    doubled = embeddings("a", "face", np.concatenate([x, x], axis=1))
    plain = embeddings("a", "face", x)
    assert (
        intrinsic_dimension(doubled, rows_per_identity=None, seed=0).values
        == intrinsic_dimension(plain, rows_per_identity=None, seed=0).values
    )


def test_constant_embeddings_name_the_encoder():
    broken = embeddings("broken", "voice", np.ones((10, 3, 4), np.float32))
    with pytest.raises(BadCalibration, match="voice encoder broken: All identities have the same embedding"):
        measure_encoder(broken, rows_per_identity=None, seed=0)


def test_geometry_on_a_torch_device_equals_that_on_the_processor():
    torch = pytest.importorskip("torch")
    x, y = (
        embeddings(name, side, samples)
        for name, side, samples in zip("ab", ("face", "voice"), population(60), strict=True)
    )
    # "cpu:0" is the same processor through the code that a GPU runs.
    device = "cuda" if torch.cuda.is_available() else "cpu:0"
    plain, moved = (
        [measure_encoder(e, rows_per_identity=None, seed=0, device=d) for e in (x, y)] for d in ("cpu", device)
    )
    for one, two in zip(plain, moved, strict=True):
        assert two.intrinsic_dimension.values == pytest.approx(one.intrinsic_dimension.values, rel=1e-6)
    nulls = [
        permutation_null(*([g.gram] for g in pair), matched_to=1249, n_permutations=50, seed=0, device=d)[0][0]
        for pair, d in ((plain, "cpu"), (moved, device))
    ]
    assert nulls[1].mean == pytest.approx(nulls[0].mean, abs=1e-6)


def test_of_many_pairs_of_unrelated_encoders_few_sets_hold_one_above_chance():
    # 12 pairs a set, 60 sets: 5 % of sets may make a claim; 9 or more of 60 has probability 0.3 %.
    rng = np.random.default_rng(0)
    claims = 0
    for seed in range(60):
        sides = [[gram(rng.normal(size=(30, 8))) for _ in range(n)] for n in (4, 3)]
        nulls = permutation_null(*sides, matched_to=1249, n_permutations=99, seed=seed)
        claims += min(null.p_familywise for row in nulls for null in row) <= 0.05
        assert all(
            null.p_familywise >= null.p or np.isclose(null.p_familywise, null.p) for row in nulls for null in row
        )
    assert claims < 9
