"""Filters, fitters, classifiers and cross-match: pure functions."""
