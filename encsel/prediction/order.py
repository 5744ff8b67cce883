"""Order of pairs: chances that one is better, or the best, from the joint error of all predictions of a set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.prediction.card import CalibratedCard, Values

N_DRAWS = 20_000
"""Draws from the joint distribution of all pairs."""
SURE = 0.9
"""Chance from which one pair is called better than another."""
Labels = Sequence[Any] | NDArray[Any]
"""(pairs,) encoder of each pair."""


def covariance(card: CalibratedCard, sd: Values, faces: Labels, voices: Labels) -> Values:
    """(pairs, pairs) covariance of the errors of predicted d' within one set; `sd` (pairs,) comes from `estimate`."""
    face, voice = (np.asarray(x)[:, None] == np.asarray(x) for x in (faces, voices))
    s = card.shares
    together = s.everyone + s.face * face + s.voice * voice + s.pair * (face & voice)
    return np.asarray(together * np.outer(sd, sd)) * card.order_scale**2


def chance_of_order(card: CalibratedCard, distance: Values, sd: Values, faces: Labels, voices: Labels) -> Values:
    """(pairs, pairs): chance that the row's pair truly has the lower EER; 0.5 on the diagonal."""
    from scipy.special import ndtr

    c = covariance(card, sd, faces, voices)
    variance = np.diag(c)[:, None] + np.diag(c) - 2 * c
    gap = distance[:, None] - distance
    chance = ndtr(gap / np.sqrt(np.maximum(variance, 1e-12)))
    np.fill_diagonal(chance, 0.5)
    return np.asarray(chance)


def chance_of_best(drawn: Values) -> Values:
    """(pairs,) chance that each pair is the best of its set, from `drawn_distances`; they sum to 1."""
    return np.bincount(np.argmax(drawn, axis=1), minlength=drawn.shape[1]) / len(drawn)


def drawn_distances(
    card: CalibratedCard,
    distance: Values,
    sd: Values,
    faces: Labels,
    voices: Labels,
    *,
    seed: int,
    n_draws: int = N_DRAWS,
) -> Values:
    """(draws, pairs) d' of the pairs of one set from the joint distribution of their errors."""
    rng = np.random.default_rng([seed, 3])
    labels = [np.unique(np.asarray(x), return_inverse=True)[1] for x in (faces, voices)]
    s, scale = card.shares, card.best_scale
    error = np.sqrt(s.pair) * rng.standard_normal((n_draws, len(distance)))
    for share, index in zip((s.face, s.voice), labels, strict=True):
        error += np.sqrt(share) * rng.standard_normal((n_draws, index.max() + 1))[:, index]
    # The error common to all pairs matters only where their sds differ.
    error += np.sqrt(s.everyone) * rng.standard_normal((n_draws, 1))
    return np.asarray(distance + scale * sd * error)
