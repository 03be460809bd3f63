"""The graph of a network: from any plan, and the weights of its state_dict."""

from collections.abc import Callable
from typing import Any

import numpy as np

from nasnet_zoo.arch import layers
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.layers import Layer
from nasnet_zoo.arch.plan import PICTURE
from nasnet_zoo.errors import ConfigError

from .graph import INPUT, OUTPUT, Add, Concat, Conv, Graph, Linear, Mean, Node, Norm, Op, Pool, Relu, Weights, Zero


def trace(config: NetworkConfig, state: Weights) -> Graph:
    """The graph of a config with the weights of its state_dict (float32 arrays), as the network computes it in eval
    mode. Raises ConfigError for a layer type that has no nodes."""
    tracer, plan = Tracer(config.plan.bn_eps, state), config.plan
    values = {PICTURE: INPUT}
    for index, step in enumerate(plan.steps):
        value, *others = (values[read] for read in step.inputs)
        if step.join != "only":
            value = tracer.add(step.name, Concat() if step.join == "concat" else Add(), value, *others)
        for layer in step.layers:
            value = tracer.layer(f"{step.name}.{layer.name}", layer, value)
        values[index] = value
    mean = tracer.add("head.mean", Mean(), values[plan.output])
    tracer.add(OUTPUT, Linear(), mean, weight=state["classifier.weight"], bias=state["classifier.bias"])
    return Graph(tuple(tracer.nodes), config.in_channels)


class Tracer:
    """Collects nodes. `eps` is batch norm's."""

    def __init__(self, eps: float, state: Weights) -> None:
        self.eps, self.state = eps, state
        self.nodes: list[Node] = []

    def add(self, name: str, op: Op, *inputs: str, **weights: np.ndarray) -> str:
        """Adds a node, and returns the name of its value."""
        self.nodes.append(Node(name, op, inputs, weights))
        return name

    def layer(self, name: str, layer: Layer, value: str) -> str:
        """Adds the nodes of one layer; `name` is the prefix of its weights in the state_dict."""
        if type(layer) not in NODES:
            raise ConfigError(f"the layer type {type(layer).__name__} has no nodes: add it to export.trace.NODES")
        return NODES[type(layer)](self, name, layer, value)

    def weights(self, name: str, *keys: str) -> dict[str, np.ndarray]:
        return {key: self.state[f"{name}.{key}"] for key in keys}


def _conv(tracer: Tracer, name: str, layer: layers.Conv, value: str) -> str:
    sizes = (layer.c_in, layer.c_out, layer.kernel, layer.stride, layer.groups, layer.dilation)
    op = Conv(*sizes, "valid" if layer.valid else "same")
    return tracer.add(name, op, value, **tracer.weights(name, "weight"))


def _norm(tracer: Tracer, name: str, layer: layers.Norm, value: str) -> str:
    weights = tracer.weights(name, "weight", "bias", "running_mean", "running_var")
    return tracer.add(name, Norm(layer.channels, tracer.eps), value, **weights)


def _factorized(tracer: Tracer, name: str, layer: layers.Factorized, value: str) -> str:
    """A depthwise convolution picks every second pixel, from the second on. With a slice onnxruntime would leave its
    blocked layout, there and at all concatenations after it."""
    weight = np.zeros((layer.c_in, 1, 2, 2), np.float32)
    weight[:, :, 1, 1] = 1
    picks = Conv(layer.c_in, layer.c_in, (2, 2), (2, 2), layer.c_in)
    odd = tracer.add(f"{name}.odd", picks, value, weight=weight)
    halves = []
    for path, read, stride in (("path_1", value, 2), ("path_2", odd, 1)):
        weight = tracer.state[f"{name}.{path}.weight"]
        op = Conv(layer.c_in, len(weight), stride=(stride, stride))
        halves.append(tracer.add(f"{name}.{path}", op, read, weight=weight))
    return tracer.add(name, Concat(), *halves)


def _example_norm(tracer: Tracer, name: str, layer: layers.LayerNorm | layers.InstanceNorm, value: str) -> str:
    op = Norm(layer.channels, tracer.eps, "layer" if isinstance(layer, layers.LayerNorm) else "instance")
    return tracer.add(name, op, value, **tracer.weights(name, "weight", "bias"))


# The nodes of each layer type of nasnet_zoo/arch/layers.py.
NODES: dict[type[Layer], Callable[[Tracer, str, Any, str], str]] = {
    layers.Conv: _conv,
    layers.Norm: _norm,
    layers.ReLU: lambda tracer, name, layer, value: tracer.add(name, Relu(), value),
    layers.Pool: lambda tracer, name, layer, value: tracer.add(
        name, Pool(layer.mode, layer.kernel, layer.stride), value
    ),
    layers.Factorized: _factorized,
    layers.Zero: lambda tracer, name, layer, value: tracer.add(name, Zero(layer.channels, layer.stride), value),
    layers.LayerNorm: _example_norm,
    layers.InstanceNorm: _example_norm,
}
