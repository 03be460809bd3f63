"""Weights: checkpoint folders, and where weights come from."""
