"""Parameters and multiply-adds in closed form, from the plan alone. Imports no torch.

Counted as the papers count: one multiply-add per weight and output pixel of every convolution and of the classifier;
batch norm, pools, additions and ReLUs are free. Parameters are the trained ones, without batch-norm statistics and
without the auxiliary head, which is not there at inference.
"""

from dataclasses import dataclass
from math import prod

from .cells import make_plan
from .config import NetworkConfig
from .ops import Conv, Factorized, InstanceNorm, LayerNorm, Layers, Norm, Pool, Zero

Size = tuple[int, int]


@dataclass(frozen=True)
class Cost:
    """`parameters` and `multiply_adds` for one picture; `bn_statistics` counts running means and variances."""

    parameters: int = 0
    multiply_adds: int = 0
    bn_statistics: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.parameters + other.parameters,
            self.multiply_adds + other.multiply_adds,
            self.bn_statistics + other.bn_statistics,
        )


def conv_size(layer: Conv, size: Size) -> Size:
    """Height and width after a convolution."""
    cut = [kernel - 1 if layer.valid else 0 for kernel in layer.kernel]
    return tuple(-((c - n) // s) for n, c, s in zip(size, cut, layer.stride))


def layers_cost(layers: Layers, size: Size) -> tuple[Cost, Size]:
    """The cost of a list of layers on a map of `size`, and the size after it."""
    total = Cost()
    for layer in layers:
        match layer:
            case Conv():
                size = conv_size(layer, size)
                weights = layer.c_out * layer.c_in // layer.groups * prod(layer.kernel)
                total += Cost(weights, weights * prod(size))
            case Factorized():
                size = tuple(-(-n // 2) for n in size)
                weights = layer.c_in * layer.c_out
                total += Cost(weights, weights * prod(size))
            case Norm():
                total += Cost(2 * layer.channels, 0, 2 * layer.channels)
            case LayerNorm() | InstanceNorm():
                total += Cost(2 * layer.channels)
            case Pool() | Zero():
                size = tuple(-(-n // layer.stride) for n in size)
    return total, size


def cell_cost(config: NetworkConfig, size: Size) -> Cost:
    """The cost of a network of kind "cell" for one picture of `size` (height, width)."""
    plan = make_plan(config)
    total, sizes = Cost(), []
    for layers in plan.stem:
        cost, size = layers_cost(layers, size)
        total += cost
        sizes.append(size)
    for cell in plan.cells:
        states = []
        for feed in cell.feeds:
            cost, state = layers_cost(feed.layers, sizes[feed.step])
            total += cost
            states.append(state)
        for block in cell.blocks:
            for state, layers in zip(block.states, block.ops):
                cost, after = layers_cost(layers, states[state])
                total += cost
            total += layers_cost(block.combine_layers, after)[0]
            states.append(after)
        for state, layers in cell.outputs:
            total += layers_cost(layers, states[state])[0]
        sizes.append(states[-1])
    weights = plan.head_channels * config.num_classes
    return total + Cost(weights + config.num_classes, weights)
