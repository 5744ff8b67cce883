"""Matchers and their error rates: scorers, folds, EER, learning curves. Arrays in, numbers out."""
