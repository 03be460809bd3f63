"""Helpers that do not depend on networks: files, and the environment."""
