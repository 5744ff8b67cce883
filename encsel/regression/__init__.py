"""Regression of EER on geometry: tables of measured pairs, least-squares cards, correlations."""
