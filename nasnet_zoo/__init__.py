"""A model zoo for NASNet and its relatives.

    network = nasnet_zoo.load("nasnet-a-mobile")
    network.predict("cat.jpg")

Importing this package imports no torch; the first call that needs it does.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from .config import CellScale, NetworkConfig, Preprocess
from .errors import ZooError
from .genotype import Block, Cell, Edge, Genotype, read_genotype
from .genotypes import GENOTYPES
from .models import ModelInfo, list_models
from .models import get_model as info

if TYPE_CHECKING:
    from . import convert
    from .checkpoint import save
    from .loading import create, load
    from .network import Network

try:
    __version__ = version("nasnet-zoo")
except PackageNotFoundError:  # imported from a checkout that is not installed
    __version__ = "0+unknown"

_LAZY = {"load": ".loading", "create": ".loading", "save": ".checkpoint", "Network": ".network", "convert": ".convert"}

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
    "info",
    "list_models",
    "load",
    "read_genotype",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'nasnet_zoo' has no attribute {name!r}")
    module = import_module(_LAZY[name], __name__)
    value = module if name == "convert" else getattr(module, name)
    globals()[name] = value
    return value
