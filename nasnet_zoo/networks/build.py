"""From a config to a network."""

from collections.abc import Callable

import torch

from ..arch.config import NetworkConfig
from .layers import initialize
from .network import ImageNetwork
from .planned import PlannedNetwork

# A kind whose networks are more than their plan has a row here; all others are built from the plan alone.
BUILDERS: dict[str, Callable[[NetworkConfig], ImageNetwork]] = {}


def build(config: NetworkConfig, empty: bool = False) -> ImageNetwork:
    """The network of a config: freshly initialised, or with `empty` on the meta device, holding no weights yet."""
    with torch.device("meta" if empty else "cpu"):
        network = BUILDERS.get(config.kind, PlannedNetwork)(config)
    if not empty:
        initialize(network)
    return network
