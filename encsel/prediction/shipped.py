"""The cards that encsel ships, and loading a card of either kind."""

from collections.abc import Mapping
from pathlib import Path

from encsel.errors import UsageError
from encsel.metrics.registry import metrics
from encsel.prediction.card import CalibratedCard, load_calibrated, shipped_calibrated
from encsel.regression.card import (
    GeometricCard,
    card_path,
    check_metric_versions,
    load_geometric_card,
    shipped_cards,
)
from encsel.storage.documents import family_of

DEFAULT_REGRESSION = "encsel-likelihood"
STUDY_REGRESSION = "upadhyay2026"
CALIBRATED: Mapping[str, str] = {"likelihood": DEFAULT_REGRESSION, "reference": "encsel-calibrated"}
"""Shipped calibrated card by the scorer whose EER it predicts."""
COMPANIONS = (*CALIBRATED.values(), "upadhyay2026-ln", STUDY_REGRESSION)
"""Cards whose predictions are in every result, in addition to those of the card that orders the pairs."""
FEATURES_OF_RANK = ("cka", "cka_matched", "id_mismatch")

RENAMED: Mapping[str, str] = {"encsel-calibrated-weighted": DEFAULT_REGRESSION}
"""Cards of earlier versions, and their successors."""

AnyCard = GeometricCard | CalibratedCard


def card_names() -> tuple[str, ...]:
    """Names of all shipped cards, sorted."""
    return tuple(sorted({*shipped_cards(), *shipped_calibrated()}))


def load_card(name_or_path: str | Path) -> AnyCard:
    """Load a regression card of either kind by its shipped name or its path.

    Raises:
        UsageError: no such card (names the nearest one), or a damaged file.

    >>> load_card("encsel-calibrated").scorer
    'reference'
    >>> load_card("upadhyay2026").equation
    'eer = 0.4979 - 0.7842 cka - 0.003861 id_mismatch'
    """
    if successor := RENAMED.get(str(name_or_path)):
        raise UsageError(f"The card {name_or_path} was removed together with its scorer. Use {successor} instead.")
    path = card_path(name_or_path, card_names(), "regression card")
    is_calibrated = str(name_or_path) in shipped_calibrated() or family_of(path) == "encsel.calibrated"
    return load_calibrated(name_or_path) if is_calibrated else load_geometric_card(name_or_path)


def cards_for(regression: str) -> tuple[AnyCard, ...]:
    """The card that orders, then its companions; UsageError if it cannot be applied or has a shipped card's name."""
    chosen = load_card(regression)
    names = card_names()
    if regression not in names and chosen.name in names and chosen.sha256 != load_card(chosen.name).sha256:
        raise UsageError(
            f"The card {regression} is named {chosen.name!r}, like a card that encsel ships. "
            "Fit it again with another --name."
        )
    cards = (chosen, *(load_card(name) for name in COMPANIONS if name != chosen.name))
    versions = {name: metric.version for name, metric in metrics().items()}
    for card in cards:
        if isinstance(card, CalibratedCard):
            continue
        check_metric_versions(card, versions)
        if unknown := [f.name for f in card.features if f.name not in FEATURES_OF_RANK]:
            raise UsageError(
                f"The card {card.name} needs {', '.join(unknown)}; rank measures {', '.join(FEATURES_OF_RANK)}. "
                "Fit a card on these, or choose another."
            )
        if card.sizes_mixed:
            raise UsageError(
                f"The card {card.name} pools pairs measured on different numbers of people, between which biased "
                "CKA is not comparable. Fit a card on pairs measured on equally many people."
            )
    return cards


def scorer_of(card: AnyCard) -> str:
    """The scorer whose EER the card predicts."""
    return card.scorer if isinstance(card, CalibratedCard) else str(card.target["scorer"])
