"""From a config to a network."""

from collections.abc import Callable

import torch

from ..arch.config import NetworkConfig
from ..arch.cost import network_cost
from ..errors import ConfigError
from .layers import initialize
from .network import ImageNetwork
from .planned import PlannedNetwork

# A kind whose networks are more than their plan has a row here; all others are built from the plan alone.
BUILDERS: dict[str, Callable[[NetworkConfig], ImageNetwork]] = {}

MAX_PARAMETERS = 1 << 30  # 4 GB; the largest published network has 89 million


def build(config: NetworkConfig, empty: bool = False) -> ImageNetwork:
    """The network of a config: freshly initialised, or with `empty` on the meta device, holding no weights yet. Raises
    ConfigError for a network that is too large."""
    check_size(config)
    with torch.device("meta" if empty else "cpu"):
        network = BUILDERS.get(config.kind, PlannedNetwork)(config)
    if not empty:
        initialize(network)
    return network


def check_size(config: NetworkConfig) -> None:
    """Raises ConfigError if the network would take all memory: a config may come from anywhere."""
    parameters = network_cost(config).parameters
    if parameters > MAX_PARAMETERS:
        raise ConfigError(
            f"a network of {parameters / 1e9:.1f} billion parameters is too large, {MAX_PARAMETERS / 1e9:.1f} billion "
            f"are the most: use fewer filters, cells or classes"
        )
