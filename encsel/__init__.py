"""Rank pretrained face and voice encoder pairs by predicted cross-modal EER from a small calibration set."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from encsel.version import __version__

if TYPE_CHECKING:
    from encsel.ranking.rank import RankReport, rank
    from encsel.regression.card import Card, load_card
    from encsel.regression.fit import fit
    from encsel.validation.result import ValidationReport
    from encsel.validation.validate import validate

# Imported on first use, so that `import encsel` and `encsel --help` stay instant.
_HOMES = {
    "rank": "encsel.ranking.rank",
    "RankReport": "encsel.ranking.result",
    "Card": "encsel.regression.card",
    "fit": "encsel.regression.fit",
    "validate": "encsel.validation.validate",
    "ValidationReport": "encsel.validation.result",
    "load_card": "encsel.regression.card",
}
__all__ = ["__version__", "Card", "RankReport", "ValidationReport", "fit", "load_card", "rank", "validate"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'encsel' has no attribute {name!r}")
