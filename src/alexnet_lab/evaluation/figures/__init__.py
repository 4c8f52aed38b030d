"""Figures: pure functions from arrays to a matplotlib Figure, and `table`, which makes them from a finished run."""
