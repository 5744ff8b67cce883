"""Rank pretrained face and voice encoder pairs by predicted cross-modal EER from a small calibration set."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from encsel.card import Card, load_card
    from encsel.ranking import RankReport, rank
    from encsel.regression import fit
    from encsel.validated import ValidationReport
    from encsel.validation import validate

# Imported on first use, so that `import encsel` and `encsel --help` stay instant.
_HOMES = {
    "rank": "encsel.ranking",
    "RankReport": "encsel.ranking",
    "Card": "encsel.card",
    "fit": "encsel.regression",
    "validate": "encsel.validation",
    "ValidationReport": "encsel.validated",
    "load_card": "encsel.card",
}
__all__ = ["Card", "RankReport", "ValidationReport", "fit", "load_card", "rank", "validate"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'encsel' has no attribute {name!r}")
