"""Evaluation of finished runs: a run is rebuilt from its directory alone and predicts images."""
