"""Intrinsic dimension from the ratio of the two nearest distances: TwoNN of Facco et al. 2017."""

import numpy as np
from numpy.typing import NDArray

from encsel.core import Metric
from encsel.errors import BadCalibration
from encsel.metrics.neighbours import neighbour_distances


def two_nn(distances: NDArray[np.float64], *, discard: float = 0.1) -> float:
    """Slope of -log(1 - F(mu)) against log(mu) through the origin, mu the ratio of second to first distance.

    Args:
        distances: (rows, >= 2) distances to the nearest other rows, ascending.
        discard: fraction of the largest ratios to leave out, in [0, 1); 0 in the study's released code.
    Returns:
        Dimensions, > 0; may exceed the ambient dimension on few rows.
    Raises:
        BadCalibration: fewer than 3 rows, or no two rows differ in their ratio.
    """
    first, second = distances[:, 0], distances[:, 1]
    log_ratio = np.log(np.sort(second[first > 1e-10] / first[first > 1e-10]))
    n = len(log_ratio)
    # The largest ratio has F = 1, for which the logarithm is infinite: it is left out in every variant.
    used = min(n - 1, int(n * (1 - discard)))
    if used < 2 or log_ratio[used - 1] <= 0:
        raise BadCalibration(
            f"{n} samples have a usable pair of neighbours; TwoNN needs at least 3 that differ. Check the encoder."
        )
    log_ratio, cumulative = log_ratio[:used], np.arange(1, used + 1) / n
    return float(-(np.log1p(-cumulative) @ log_ratio) / (log_ratio @ log_ratio))


_DIRECTION = "larger: more degrees of freedom"
_SOURCE = "Facco et al. 2017, doi:10.1038/s41598-017-11873-y"
METRICS = (
    Metric("two_nn", 1, "rows", _DIRECTION, (0.0, np.inf), f"{_SOURCE}; largest 10 % of ratios left out",
           lambda x: two_nn(neighbour_distances(x, 2)), label="ID mismatch (TwoNN)", unit="dimensions",
           column="two_nn_mismatch", combine="difference"),
    Metric("two_nn_reference", 1, "rows", _DIRECTION, (0.0, np.inf), f"{_SOURCE}; all ratios, as the study's code",
           lambda x: two_nn(neighbour_distances(x, 2), discard=0.0), unit="dimensions", combine=None),
)  # fmt: skip
