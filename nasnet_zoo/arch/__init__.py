"""Architectures as data: nothing in this folder imports torch."""

from . import cells  # noqa: F401 - it registers its kind
