"""ONNX graphs of the zoo's networks: fused, verified and run without torch (installed as nasnet_zoo.export).

    nasnet_zoo.export.to_onnx(network, "folder")
    nasnet_zoo.export.Session("folder").predict("cat.jpg")

    to_onnx         writes a network's graph into a folder, once it agrees with torch
    ExportReport    what was written, and how it was verified
    Session         runs the graph of such a folder

Importing this package and running a Session import no torch.
"""

from typing import TYPE_CHECKING

from nasnet_zoo.util.names import lazily, listed

if TYPE_CHECKING:
    from .exporter import ExportReport, to_onnx
    from .session import Session
else:
    __getattr__ = lazily(__name__, {"to_onnx": ".exporter", "ExportReport": ".exporter", "Session": ".session"})
__dir__ = listed(__name__)

__all__ = ["ExportReport", "Session", "to_onnx"]
