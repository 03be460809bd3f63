"""The cost of a network, in closed form from its plan alone: parameters, multiply-adds, activations and memory."""

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
    """The largest number of values that the maps hold at the same time, in inference, for one picture of `size`.

    The picture is kept during the whole forward pass. A map is kept until the last step that reads it, and so is its
    ReLU after a step has computed it. The joined inputs of a step are kept until its last layer is done. A layer's
    input, its output and its `scratch` exist at the same time. Not included are the allocations of the kernels
    themselves (oneDNN's and cuDNN's own layouts and workspaces) and memory that the allocator does not give back.
    """
    sizes, held, rectified = {PICTURE: size}, {PICTURE: plan.in_channels * prod(size)}, {}
    peak = 0
    for index, step in enumerate(plan.steps):
        first, layers = step.inputs[0], step.layers
        here, channels = sizes[first], plan.width(step.inputs if step.join == "concat" else (first,))
        joined = channels * prod(here)
        own = joined if step.join != "only" else 0
        if layers and isinstance(layers[0], ReLU):
            layers = layers[1:]
            if step.join == "only":
                rectified[first] = joined
            else:
                own += joined
        base = sum(held.values()) + sum(rectified.values()) + own
        peak = max(peak, base + (joined if step.join == "add" and len(step.inputs) > 2 else 0))  # two sums at a time
        read = 0  # values that a layer reads, unless they belong to a map that is counted already
        for layer in layers:
            if isinstance(layer, ReLU):
                continue  # in place
            scratch = layer.scratch(here, channels)
            here, channels = layer.size_after(here), layer.channels_after(channels)
            put_out = channels * prod(here)
            peak = max(peak, base + read + scratch + put_out)
            read = put_out
        sizes[index], held[index] = here, channels * prod(here)
        for done in {*step.inputs, index}:
            if plan.last_use.get(done, index) == index and done != plan.output:
                rectified.pop(done, None)
                if done != PICTURE:
                    del held[done]
    return peak
