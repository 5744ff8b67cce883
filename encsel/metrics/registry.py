"""Find the metrics: every file of this package that defines METRICS."""

import importlib
import pkgutil
from functools import cache

from encsel.core import Metric


@cache
def metrics() -> dict[str, Metric]:
    """Every metric by name."""
    package = importlib.import_module("encsel.metrics")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"encsel.metrics.{name}") for name in names]
    return {metric.name: metric for module in modules for metric in getattr(module, "METRICS", ())}
