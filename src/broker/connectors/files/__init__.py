"""Buckets of objects."""
