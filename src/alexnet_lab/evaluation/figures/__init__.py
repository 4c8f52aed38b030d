"""Figures: pure functions from arrays to a matplotlib Figure; `registry` calls them for a finished run."""
