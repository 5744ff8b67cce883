"""Spectra of graphs of neighbours whose eigenvalues are known."""

from __future__ import annotations

import numpy as np
import pytest

from encsel.errors import BadCalibration
from encsel.metrics import spectral as module
from encsel.metrics.registry import metrics
from encsel.metrics.spectral import N_VALUES, K, spectral_gap, spectrum


def clusters(n_clusters: int, size: int, seed: int = 0) -> np.ndarray:
    """So far apart that no neighbour is in another cluster."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(size, 4)) + 1000 * i for i in range(n_clusters)])


def naive_spectrum(x: np.ndarray) -> np.ndarray:
    n = len(x)
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    joined = np.zeros((n, n))
    for i in range(n):
        for j in [j for j in np.argsort(distances[i]) if j != i][:20]:
            joined[i, j] = joined[j, i] = 1
    degree = joined.sum(axis=1)
    values = np.sort(np.abs(np.linalg.eigvalsh(np.eye(n) - joined / np.sqrt(np.outer(degree, degree)))))[:50]
    return values / values[-1]


def test_spectrum_is_that_of_the_normalised_laplacian_spelled_out():
    x = np.random.default_rng(1).normal(size=(90, 5))
    np.testing.assert_allclose(spectrum(x), naive_spectrum(x), atol=1e-9)


def test_two_cliques_apart_give_two_zeros_and_one_other_value():
    # 21 people who are all each other's 20 neighbours: the complete graph has 0 once and 21 / 20 otherwise.
    np.testing.assert_allclose(spectrum(clusters(2, 21)), [0, 0] + [1] * 40, atol=1e-9)


def test_everybody_joined_but_the_opposite_person_is_the_cocktail_party_graph():
    # 22 people at plus and minus eleven axes, each lacking only the one opposite. Its adjacency has 20 once, 0 eleven
    # times and -2 ten times; over degree 20 the Laplacian has 0, 1 and 1.1.
    x = np.concatenate([np.eye(11), -np.eye(11)])
    np.testing.assert_allclose(spectrum(x), [0] + [10 / 11] * 11 + [1] * 10, atol=1e-9)


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_spectrum_has_a_zero_for_every_part_of_the_graph(parts):
    values = spectrum(clusters(parts, 200 // parts))
    assert (values < 1e-8).sum() == parts
    assert len(values) == N_VALUES
    assert (np.diff(values) >= 0).all()
    assert values[-1] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_dense_and_sparse_solvers_agree(parts, monkeypatch):
    x = clusters(parts, 200 // parts, seed=2)
    dense = spectrum(x)
    monkeypatch.setattr(module, "_SMALL", 0)
    np.testing.assert_allclose(spectrum(x), dense, atol=1e-8)


def test_dense_and_sparse_solvers_agree_on_a_ring(monkeypatch):
    # Every person has as many neighbours, so that the sparse solver's start is an eigenvector already.
    angle = 2 * np.pi * np.arange(201) / 201
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    dense = spectrum(x)
    monkeypatch.setattr(module, "_SMALL", 0)
    np.testing.assert_allclose(spectrum(x), dense, atol=1e-8)


def test_sparse_solver_finds_every_zero_of_a_graph_in_thirty_parts(monkeypatch):
    monkeypatch.setattr(module, "_SMALL", 0)
    assert (spectrum(clusters(30, 24)) < 1e-8).sum() == 30


def test_spectrum_ignores_rotation_shift_scale_and_order():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(80, 6))
    moved = 5 * (x @ np.linalg.qr(rng.normal(size=(6, 6)))[0])[rng.permutation(80)] + 2
    np.testing.assert_allclose(spectrum(moved), spectrum(x), atol=1e-9)


def test_gap_is_zero_of_a_spectrum_with_itself_and_else_euclidean():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 12))
    assert spectral_gap(spectrum(x), spectrum(x)) == 0
    assert spectral_gap(np.array([0, 0.6, 1]), np.array([0, 0.2, 0.7])) == pytest.approx(0.5)
    expected = np.sqrt(((spectrum(x) - spectrum(y)) ** 2).sum())
    assert metrics()["spectral_gap"].compute(x, y) == pytest.approx(expected, rel=1e-12)
    assert expected > 0.1


def test_spectrum_of_few_people_says_how_many_are_needed():
    with pytest.raises(BadCalibration, match="21 people; the spectrum of the graph of 20 neighbours needs at least 22"):
        spectrum(np.random.default_rng(5).normal(size=(K + 1, 4)))


def test_people_who_are_all_alike_are_an_error():
    with pytest.raises(BadCalibration, match="All people have the same embedding"):
        spectrum(np.full((30, 4), 0.3))
