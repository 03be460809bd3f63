"""Searchers: what proposes architectures and learns from their rewards."""
