"""The browser demo: a static page that runs an exported graph with onnxruntime-web. Imports no torch."""

from .server import serve
from .site import build_site

__all__ = ["build_site", "serve"]
