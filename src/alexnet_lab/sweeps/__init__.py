"""Sweeps: which jobs one has, which are done, and what they come to over seeds."""
