"""Geometry of embeddings, one file per metric, each of which defines METRICS. Metrics are functions of rows:

>>> import numpy as np
>>> from encsel import metrics
>>> rng = np.random.default_rng(0)
>>> x = rng.normal(size=(60, 8))
>>> round(metrics.cka(x, x @ np.linalg.qr(rng.normal(size=(8, 8)))[0]), 6)
1.0
>>> 3 < metrics.mle_median(x) < 9
True

A metric of two encoders takes (n, dim) rows of the same people in the same order (their centroids), a metric of one
encoder takes (rows, dim), and `compactness_gap` takes the identity of each row as well.
"""

from encsel.core import Metric

ALIASES = {"cka": "cka_biased"}


def __getattr__(name: str) -> Metric:
    from encsel.metrics.registry import metrics

    try:
        return metrics()[ALIASES.get(name, name)]
    except KeyError:
        raise AttributeError(f"module 'encsel.metrics' has no metric {name!r}") from None


def __dir__() -> list[str]:
    from encsel.metrics.registry import metrics

    return sorted([*ALIASES, *metrics()])
