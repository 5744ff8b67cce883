"""Groups of people, such as sex, in an encoder's centroids: how well they can be predicted, and how to remove them."""

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.data.groups import PersonGroups
from encsel.matching.axes import N_AXES


def group_probe(x: Vectors, groups: PersonGroups, *, seed: int) -> float:
    """Balanced accuracy, in [0, 1], of a linear classifier of the group from (n, dim) centroids, on held-out people."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    grouped = groups.index >= 0
    rows, labels = np.asarray(x, dtype=np.float64)[grouped], groups.index[grouped]
    least = int(np.bincount(labels).min())
    n_axes = min(N_AXES, int(0.7 * len(rows)), rows.shape[1])
    probe = make_pipeline(
        PCA(n_axes, random_state=seed),
        StandardScaler(),
        LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000),
    )
    splits = StratifiedKFold(min(5, least), shuffle=True, random_state=seed)
    return float(cross_val_score(probe, rows, labels, cv=splits, scoring="balanced_accuracy").mean())


def centred_within(x: Vectors, groups: PersonGroups) -> tuple[Vectors, NDArray[np.intp]]:
    """Centroids of the people who have a group, minus their group's mean, and the row numbers of those people."""
    grouped = np.flatnonzero(groups.index >= 0)
    rows = np.asarray(x, dtype=np.float64)[grouped]
    for value in range(len(groups.values)):
        members = groups.index[grouped] == value
        rows[members] -= rows[members].mean(axis=0)
    return rows, grouped
