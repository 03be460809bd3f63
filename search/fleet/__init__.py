"""Fleets: where children run. The driver does not know which one it has."""
