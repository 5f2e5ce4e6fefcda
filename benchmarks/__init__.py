"""Benchmarks: each module has a function `run` that returns ratios and figures."""
