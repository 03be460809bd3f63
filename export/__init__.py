"""ONNX graphs of the zoo's networks: fused, verified and run without torch (installed as nasnet_zoo.export).

    nasnet_zoo.export.to_onnx(network, "folder")
    nasnet_zoo.export.Session("folder").predict("cat.jpg")

Importing this package and running a Session import no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporter import ExportReport, to_onnx
    from .session import Session

_LAZY = {"to_onnx": ".exporter", "ExportReport": ".exporter", "Session": ".session"}

__all__ = ["ExportReport", "Session", "to_onnx"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name], __name__), name)
    globals()[name] = value
    return value
