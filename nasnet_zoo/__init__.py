"""A model zoo for NASNet and its relatives.

    network = nasnet_zoo.load("nasnet-a-mobile")
    network.predict("cat.jpg")

Importing this package imports no torch; the first call that needs it does.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from . import models  # noqa: F401 - it fills the registry
from .arch.cells import CellScale
from .arch.config import NetworkConfig
from .arch.genotype import Block, Cell, Edge, Genotype, read_genotype
from .arch.genotypes import GENOTYPES
from .arch.preprocess import Preprocess
from .errors import ZooError
from .registry import ModelInfo, list_models
from .registry import get_model as info

if TYPE_CHECKING:
    from .networks.network import Network
    from .training.loop import train
    from .weights.checkpoint import save
    from .weights.loading import create, load

try:
    __version__ = version("nasnet-zoo")
except PackageNotFoundError:  # imported from a checkout that is not installed
    __version__ = "0+unknown"

_LAZY = {
    "load": ".weights.loading",
    "create": ".weights.loading",
    "save": ".weights.checkpoint",
    "Network": ".networks.network",
    "train": ".training.loop",
}
_PACKAGES = ("convert", "export", "search")

__all__ = [
    "Block",
    "Cell",
    "CellScale",
    "Edge",
    "GENOTYPES",
    "Genotype",
    "ModelInfo",
    "Network",
    "NetworkConfig",
    "Preprocess",
    "ZooError",
    "convert",
    "create",
    "export",
    "info",
    "list_models",
    "load",
    "read_genotype",
    "save",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    if name not in _LAZY:
        raise AttributeError(f"module 'nasnet_zoo' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name], __name__), name)
    globals()[name] = value
    return value
