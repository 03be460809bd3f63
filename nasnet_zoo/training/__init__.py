"""Training: one loop, and recipes as data."""
