"""Light-curve fitters."""
