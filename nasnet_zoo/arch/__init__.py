"""Architectures as data: nothing in this folder imports torch."""
