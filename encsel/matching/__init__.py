"""Matchers and their error rates: scorers, folds, EER, learning curves. Arrays in, numbers out."""

from encsel.matching.eer import eer
from encsel.matching.error_rates import Matching, det
from encsel.matching.evaluate import cross_validate
from encsel.matching.scorers import SCORERS, Scorer

__all__ = ["SCORERS", "Matching", "Scorer", "cross_validate", "det", "eer"]
