"""Filters: sets of named cuts that explain themselves."""
