"""Simulated nights with known truth, loads, replays, and the consumer simulator."""
