from __future__ import annotations

import numpy as np
import pytest

from encsel.errors import BadCalibration
from encsel.matching import axes
from encsel.matching.axes import Side, directions, project
from encsel.matching.scorers import SCORERS, PairInFold


def scores(scorer, face, voice):
    return PairInFold(face, voice).scores(scorer)


def paired(
    n: int, dims: tuple[int, int] = (12, 9), *, shared: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    trait = shared * rng.normal(size=(n, 4))
    x, y = (trait @ rng.normal(size=(4, d)) + rng.normal(size=(n, d)) for d in dims)
    return x, y


def split(n: int, n_test: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n_test, n), np.arange(n_test)


def fitted(x: np.ndarray, y: np.ndarray, n_test: int = 10) -> tuple[Side, Side]:
    return project(x, *split(len(x), n_test)), project(y, *split(len(y), n_test))


def test_axes_and_correlations_are_those_of_scikit_learn():
    from sklearn.cross_decomposition import CCA
    from sklearn.decomposition import PCA

    x, y = paired(80)
    train, test = split(80, 10)
    side = project(x, train, test, n_axes=5)
    theirs = PCA(5).fit(x[train])
    assert np.abs(side.test) == pytest.approx(np.abs(theirs.transform(x[test])), abs=1e-9)
    assert side.sd**2 == pytest.approx(theirs.explained_variance_)
    face, voice = fitted(x, y)
    model = CCA(3, max_iter=5000, tol=1e-12).fit(x[train], y[train])
    a, b = model.transform(x[train], y[train])
    found = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(3)]
    assert directions(face, voice).correlations[:3] == pytest.approx(found, abs=1e-5)


def test_cca_scores_are_cosines_of_unit_variance_variates():
    x, y = paired(200)
    face, voice = fitted(x, y)
    found = directions(face, voice)
    for side, found_axes in ((face, found.face), (voice, found.voice)):
        assert np.cov((side.train @ found_axes).T) == pytest.approx(np.eye(found_axes.shape[1]), abs=1e-9)


def test_reference_does_not_divide_by_the_deviations_and_cca_does():
    x, y = paired(200)
    face, voice = fitted(x, y)
    found = directions(face, voice)
    rotated = face.test @ (found.face * face.sd[:, None])
    assert (np.linalg.norm(rotated, axis=1) <= np.linalg.norm(face.test, axis=1) + 1e-9).all()
    assert not np.allclose(scores("reference", face, voice), scores("cca", face, voice), atol=0.01)


@pytest.mark.parametrize("scorer", SCORERS)
def test_scores_do_not_depend_on_rotation_shift_or_scale_of_an_encoder(scorer):
    x, y = paired(60)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0]
    one = scores(scorer, *fitted(x, y))
    other = scores(scorer, *fitted(1e6 * x @ turn + 3, 1e-5 * y))
    assert one == pytest.approx(other, abs=1e-7)


@pytest.mark.parametrize("scorer", SCORERS)
def test_scores_put_own_above_others_when_much_is_shared(scorer):
    matrix = scores(scorer, *fitted(*paired(200, shared=3.0), n_test=50))
    assert np.diag(matrix).mean() > matrix.mean() + 0.3
    assert scorer == "likelihood" or np.abs(matrix).max() <= 1 + 1e-12


def test_a_likelihood_ratio_beats_equal_weights_when_few_directions_are_shared():
    matrices = {s: scores(s, *fitted(*paired(300, (60, 60)), n_test=100)) for s in ("cca", "likelihood")}
    gaps = {s: (np.diag(m).mean() - m.mean()) / m.std() for s, m in matrices.items()}
    assert gaps["likelihood"] > gaps["cca"] + 0.5


def test_test_people_do_not_move_the_axes():
    x, y = paired(60)
    moved = x.copy()
    moved[:10] += 5
    one, other = fitted(x, y)[0], fitted(moved, y)[0]
    assert one.train == pytest.approx(other.train)


def test_more_dimensions_than_people_and_duplicated_people_leave_only_real_axes():
    x, _ = paired(20, (100, 9))
    assert len(project(x, *split(20, 5)).sd) == 14
    twice = np.repeat(x[:10], 2, axis=0)
    side = project(twice, *split(20, 4))
    assert len(side.sd) == 7
    assert np.isfinite(side.test).all()


def test_equal_embeddings_are_an_error():
    with pytest.raises(BadCalibration, match="same embedding"):
        project(np.full((20, 5), 0.1), *split(20, 4))


def test_a_decomposition_that_lapack_gets_wrong_is_done_again(monkeypatch):
    matrix = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 9)))[0]
    right = np.linalg.svd

    def wrong(a, **options):
        u, s, vt = right(a, **options)
        return u, s, vt[::-1]

    def fails(a, **options):
        raise np.linalg.LinAlgError("SVD did not converge")

    for broken in (wrong, fails):
        monkeypatch.setattr(np.linalg, "svd", broken)
        u, s, vt = axes.svd(matrix)
        assert (u * s) @ vt == pytest.approx(matrix, abs=1e-12)


@pytest.mark.parametrize("smallest", [1e-2, 1e-5, 1e-7, 1e-9, 1e-12])
@pytest.mark.parametrize("shape", [(120, 140), (140, 120)])
def test_singular_vectors_of_small_values_are_as_orthogonal_as_those_of_large_ones(shape, smallest):
    rng, k = np.random.default_rng(0), min(shape)
    u, v = (np.linalg.qr(rng.normal(size=(n, k)))[0] for n in shape)
    s = np.geomspace(1, smallest, k)
    matrices = np.stack([(u * s) @ v.T] * 2)
    left, found, right = axes.svd(matrices)
    np.testing.assert_allclose(found, [s, s], atol=1e-14)
    np.testing.assert_allclose((left * found[:, None]) @ right, matrices, atol=1e-13)
    for vectors in (left, right.transpose(0, 2, 1)):
        np.testing.assert_allclose(vectors.transpose(0, 2, 1) @ vectors, [np.eye(k)] * 2, atol=1e-9)
