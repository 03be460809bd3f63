"""A model zoo for NASNet and its relatives.

    network = nasnet_zoo.load("nasnet-a-mobile")
    network.predict("cat.jpg")

Networks
    load            a trained network, by a zoo name, a Hub repo or a folder
    create          a network with fresh weights, of any size
    save            writes a network to a folder, which `load` reads
    train           trains a network, and resumes a training
    list_models     the names of the models of the zoo
    info            everything that is known about a model, a ModelInfo
    ImageNetwork    what `load` gives: predict, features, reset_classifier, ...
    Network         any network of the zoo, a torch module
    Prediction      a class, its name and its probability

Architectures, which are data
    GENOTYPES       the published cells by name
    Genotype        a normal and a reduction Cell, made of Blocks of two Edges
    read_genotype   a Genotype from a JSON file
    NetworkConfig   an architecture, its CellScale, its Preprocess and its classes

Packages
    convert         weights of TF-slim, Keras, timm and Cadene
    search          searches for cells
    export          ONNX graphs, and sessions that run them without torch

Errors that you can correct are ZooErrors. Importing this package imports no torch; the first call that needs it does.
`help(nasnet_zoo.load)` explains a name.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from . import models  # noqa: F401 - it fills the registry
from .arch.cells import CellScale
from .arch.config import NetworkConfig
from .arch.genotype import Block, Cell, Edge, Genotype, read_genotype
from .arch.genotypes import GENOTYPES
from .arch.preprocess import Preprocess
from .errors import ZooError
from .registry import ModelInfo, list_models
from .registry import get_model as info
from .util.names import lazily, listed

if TYPE_CHECKING:
    from . import convert, export, search
    from .data.prediction import Prediction
    from .networks.network import ImageNetwork, Network
    from .training.run import train
    from .weights.checkpoint import save
    from .weights.loading import create, load
else:  # a type checker would take any name for one of these
    __getattr__ = lazily(
        __name__,
        {
            "load": ".weights.loading",
            "create": ".weights.loading",
            "save": ".weights.checkpoint",
            "ImageNetwork": ".networks.network",
            "Network": ".networks.network",
            "Prediction": ".data.prediction",
            "train": ".training.run",
            "convert": ".convert",
            "export": ".export",
            "search": ".search",
        },
    )
__dir__ = listed(__name__)

try:
    __version__ = version("nasnet-zoo")
except PackageNotFoundError:  # imported from a checkout that is not installed
    __version__ = "0+unknown"

__all__ = [
    "Block",
    "Cell",
    "CellScale",
    "Edge",
    "GENOTYPES",
    "Genotype",
    "ImageNetwork",
    "ModelInfo",
    "Network",
    "NetworkConfig",
    "Prediction",
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
