"""From a config to a network."""

import torch

from ..arch.config import NetworkConfig
from ..arch.kinds import get_kind
from .layers import initialize
from .network import Network


def build(config: NetworkConfig, empty: bool = False) -> Network:
    """The network of a config: freshly initialised, or with `empty` on the meta device, holding no weights yet."""
    make = get_kind(config.kind).build
    with torch.device("meta" if empty else "cpu"):
        network = make(config)
    if not empty:
        initialize(network)
    return network
