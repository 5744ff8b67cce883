"""Rank pretrained face and voice encoder pairs by predicted cross-modal EER from a small calibration set."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from encsel.version import __version__

if TYPE_CHECKING:
    from encsel import matching, metrics
    from encsel.data.calibration_set import CalibrationSet
    from encsel.gates.compare import Comparison, compare
    from encsel.loading.functions import FunctionEncoder
    from encsel.matching.matcher import Matcher
    from encsel.prediction.card import CalibratedCard
    from encsel.prediction.plan import Plan, plan
    from encsel.prediction.shipped import load_card
    from encsel.ranking.rank import rank
    from encsel.ranking.result import Ranking
    from encsel.regression.card import GeometricCard
    from encsel.regression.fit import fit
    from encsel.validation.result import Validation
    from encsel.validation.validate import validate

# Imported on first use, so that `import encsel` and `encsel --help` stay instant. A result's report is imported with
# it, so that it can be shown.
_HOMES = {
    "CalibratedCard": ("encsel.prediction.card",),
    "CalibrationSet": ("encsel.data.calibration_set",),
    "Comparison": ("encsel.gates.compare", "encsel.reports.comparison"),
    "FunctionEncoder": ("encsel.loading.functions",),
    "GeometricCard": ("encsel.regression.card",),
    "Matcher": ("encsel.matching.matcher",),
    "Plan": ("encsel.prediction.plan", "encsel.reports.plan"),
    "Ranking": ("encsel.ranking.result", "encsel.reports.ranking"),
    "Validation": ("encsel.validation.result", "encsel.reports.validation"),
    "compare": ("encsel.gates.compare", "encsel.reports.comparison"),
    "fit": ("encsel.regression.fit",),
    "load_card": ("encsel.prediction.shipped",),
    "matching": ("encsel.matching",),
    "metrics": ("encsel.metrics",),
    "plan": ("encsel.prediction.plan", "encsel.reports.plan"),
    "rank": ("encsel.ranking.rank", "encsel.reports.ranking"),
    "validate": ("encsel.validation.validate", "encsel.reports.validation"),
}
__all__ = [
    "CalibratedCard", "CalibrationSet", "Comparison", "FunctionEncoder", "GeometricCard", "Matcher", "Plan", "Ranking",
    "Validation", "__version__", "compare", "fit", "load_card", "matching", "metrics", "plan", "rank", "validate",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'encsel' has no attribute {name!r}")
    for module in reversed(_HOMES[name]):
        home = importlib.import_module(module)
    return home if home.__name__ == f"encsel.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return __all__
