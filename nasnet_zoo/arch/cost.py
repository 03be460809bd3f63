"""What a network costs, in closed form from its plan alone: parameters, multiply-adds, activations and memory."""

from math import prod

from .config import NetworkConfig
from .layers import Cost, Layers, ReLU, Size
from .plan import PICTURE, Plan


def layers_cost(layers: Layers, size: Size) -> tuple[Cost, Size]:
    """The cost of a list of layers on a map of `size`, and the size after it."""
    total = Cost()
    for layer in layers:
        size = layer.size_after(size)
        total += layer.cost(size)
    return total, size


def plan_cost(plan: Plan, size: Size) -> Cost:
    """The cost of a plan's steps for one picture of `size`, without a classifier."""
    total, sizes = Cost(), {PICTURE: size}
    for index, step in enumerate(plan.steps):
        cost, sizes[index] = layers_cost(step.layers, sizes[step.inputs[0]])
        total += cost
    return total


def network_cost(config: NetworkConfig, size: Size | None = None) -> Cost:
    """The cost of a network for one picture of `size`, its own if none is given."""
    weights = config.plan.num_features * config.num_classes
    return plan_cost(config.plan, size or config.preprocess.size) + Cost(
        weights + config.num_classes, weights, 0, config.num_classes
    )


def peak_values(plan: Plan, size: Size) -> int:
    """How many values the maps of a forward pass hold at its fullest, for one picture of `size`.

    The picture is held throughout and a map until the last step that reads it, with its ReLU once a step has taken
    that; within a step a layer's input and its output are there together. Checked against what torch allocates.
    """
    sizes, held, rectified = {PICTURE: size}, {PICTURE: plan.in_channels * prod(size)}, {}
    peak = 0
    for index, step in enumerate(plan.steps):
        first, here = step.inputs[0], sizes[step.inputs[0]]
        channels = plan.width(step.inputs) if step.join == "concat" else plan.width((first,))
        layers, before = step.layers, 0  # values of the layer's input, where it is no step's map
        if step.join != "only":
            before = channels * prod(here)
        elif layers and isinstance(layers[0], ReLU):
            layers = layers[1:]
            rectified[first] = held[first]
        base = sum(held.values()) + sum(rectified.values())
        peak = max(peak, base + before)
        for layer in layers:
            if isinstance(layer, ReLU):
                continue  # in place
            here, channels = layer.size_after(here), layer.channels_after(channels)
            peak = max(peak, base + before + channels * prod(here))
            before = channels * prod(here)
        sizes[index], held[index] = here, before
        for read in {*step.inputs} - {PICTURE}:
            if plan.last_use[read] == index and read != plan.output:
                del held[read]
                rectified.pop(read, None)
    return peak
