"""Sweeps: their jobs, their progress, and their results over seeds."""
