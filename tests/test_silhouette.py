"""Silhouette of samples by person."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from encsel.errors import BadCalibration
from encsel.metrics import silhouette as module
from encsel.metrics.silhouette import silhouette


@pytest.mark.parametrize("chunk", [7, 2000])
def test_silhouette_is_that_of_scikit_learn(monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    rng = np.random.default_rng(0)
    people = np.concatenate([np.repeat(np.arange(20), rng.integers(2, 9, 20)), [99]])  # one person has one sample
    x = 0.7 * rng.normal(size=(100, 8))[people] + rng.normal(size=(len(people), 8))
    assert silhouette(x, people) == pytest.approx(silhouette_score(x, people, metric="cosine"), abs=1e-12)


def test_silhouette_of_people_at_right_angles_is_one_and_of_swapped_people_negative():
    x = np.repeat(np.eye(3), 4, axis=0)
    people = np.repeat(np.arange(3), 4)
    assert silhouette(x, people) == pytest.approx(1)
    assert silhouette(x, np.tile(np.arange(3), 4)) < 0


def test_silhouette_needs_two_people_and_one_with_two_samples():
    x = np.random.default_rng(1).normal(size=(4, 3))
    with pytest.raises(BadCalibration, match="4 samples of 1 people; a silhouette needs at least 2"):
        silhouette(x, np.zeros(4))
    with pytest.raises(BadCalibration, match="4 samples of 4 people; a silhouette needs at least 2"):
        silhouette(x, np.arange(4))
