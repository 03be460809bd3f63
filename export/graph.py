"""A network for inference as a list of nodes, from a config's plan and the weights of its state_dict."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from nasnet_zoo.arch import ops
from nasnet_zoo.arch.cells import make_plan
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.errors import ConfigError

Weights = Mapping[str, np.ndarray]
INPUT, OUTPUT = "image", "logits"


@dataclass(frozen=True)
class Conv:
    """A convolution; padding is TensorFlow's SAME or none ("valid")."""

    c_in: int
    c_out: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    groups: int = 1
    dilation: int = 1
    padding: Literal["same", "valid"] = "same"

    @property
    def pointwise(self) -> bool:
        return self.kernel == (1, 1) and self.groups == 1

    @property
    def depthwise(self) -> bool:
        return self.groups == self.c_in == self.c_out > 1


@dataclass(frozen=True)
class Norm:
    """Batch norm with its running statistics, or, by `over`, a norm of each example's channels and pixels ("layer")
    or of each channel's pixels ("instance")."""

    channels: int
    eps: float
    over: Literal["batch", "layer", "instance"] = "batch"


@dataclass(frozen=True)
class Pool:
    mode: str
    kernel: int
    stride: int


@dataclass(frozen=True)
class Relu:
    pass


@dataclass(frozen=True)
class Add:
    pass


@dataclass(frozen=True)
class Concat:
    pass


@dataclass(frozen=True)
class Slice:
    """Every `step`-th channel from `start` to `stop`; benchmarks/unproven_fusions.py cuts maps up with it."""

    start: int
    stop: int
    step: int = 1


@dataclass(frozen=True)
class Zero:
    """Zeros of the map's size divided by the stride, rounded up."""

    channels: int
    stride: int


@dataclass(frozen=True)
class Mean:
    """The average over a map: (batch, channels, height, width) to (batch, channels)."""


@dataclass(frozen=True)
class Linear:
    pass


Op = Conv | Norm | Pool | Relu | Add | Concat | Slice | Zero | Mean | Linear


@dataclass(frozen=True)
class Node:
    """One operation; `name` is also its output's."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    weights: Weights = field(default_factory=dict)

    def renamed(self, names: Mapping[str, str]) -> "Node":
        return replace(self, inputs=tuple(names.get(name, name) for name in self.inputs))


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they run, from INPUT to the last node, which is OUTPUT."""

    nodes: tuple[Node, ...]
    in_channels: int

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    @property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @property
    def uses(self) -> Counter[str]:
        """How often each value is read."""
        return Counter(name for node in self.nodes for name in node.inputs)

    @property
    def readers(self) -> dict[str, list[Node]]:
        """The nodes that read each value."""
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for name in set(node.inputs):
                found[name].append(node)
        return found

    def with_nodes(self, nodes: Iterable[Node]) -> "Graph":
        """Of these nodes those that the output needs."""
        nodes = tuple(nodes)
        needed = {OUTPUT}
        for node in reversed(nodes):
            if node.name in needed:
                needed.update(node.inputs)
        return Graph(tuple(node for node in nodes if node.name in needed), self.in_channels)

    def channels(self) -> dict[str, int]:
        """How many channels each value has."""
        known = {INPUT: self.in_channels}
        for node in self.nodes:
            match node.op:
                case Conv():
                    known[node.name] = node.op.c_out
                case Concat():
                    known[node.name] = sum(known[name] for name in node.inputs)
                case Slice():
                    known[node.name] = len(range(node.op.start, node.op.stop, node.op.step))
                case Zero():
                    known[node.name] = node.op.channels
                case Linear():
                    known[node.name] = len(node.weights["bias"])
                case _:
                    known[node.name] = known[node.inputs[0]]
        return known


def trace(config: NetworkConfig, state: Weights) -> Graph:
    """The graph of a config of kind "cell" with the weights of its state_dict (float32 arrays), as the network
    computes it in eval mode. Raises ConfigError for another kind."""
    if config.kind != "cell":
        raise ConfigError(f"networks of kind {config.kind!r} cannot be exported to ONNX yet: export one of kind 'cell'")
    return _Tracer(config, state).trace()


class _Tracer:
    def __init__(self, config: NetworkConfig, state: Weights) -> None:
        self.config, self.state, self.nodes = config, state, []

    def trace(self) -> Graph:
        plan = make_plan(self.config)
        steps: list[tuple[str, ...]] = []
        value = INPUT
        for index, layers in enumerate(plan.stem):
            value = self.chain(f"stem.{index}", layers, value)
            steps.append((value,))
        for cell in plan.cells:
            name = f"cells.{cell.name}"
            states = [
                self.chain(f"{name}.inputs.{i}", feed.layers, steps[feed.step][feed.part])
                for i, feed in enumerate(cell.feeds)
            ]
            for b, block in enumerate(cell.blocks):
                prefix = f"{name}.blocks.{b}"
                sides = [
                    self.chain(f"{prefix}.{side}", layers, states[read])
                    for side, layers, read in zip(("left", "right"), block.ops, block.states)
                ]
                joined = self.add(f"{prefix}.joined", Concat() if block.combine == "concat" else Add(), *sides)
                states.append(self.chain(f"{prefix}.combine", block.combine_layers, joined))
            outputs = tuple(self.chain(f"{name}.outputs.{s}", layers, states[s]) for s, layers in cell.outputs)
            steps.append(outputs if cell.separate else (self.joined(name, outputs),))
        value = self.chain("head", plan.head, self.joined("head.joined", steps[-1]))
        mean = self.add("head.mean", Mean(), value)
        self.add(OUTPUT, Linear(), mean, weight=self.state["classifier.weight"], bias=self.state["classifier.bias"])
        return Graph(tuple(self.nodes), self.config.in_channels)

    def add(self, name: str, op: Op, *inputs: str, **weights: np.ndarray) -> str:
        self.nodes.append(Node(name, op, inputs, weights))
        return name

    def joined(self, name: str, values: tuple[str, ...]) -> str:
        return values[0] if len(values) == 1 else self.add(name, Concat(), *values)

    def chain(self, prefix: str, layers: ops.Layers, value: str) -> str:
        for layer in layers:
            value = self.layer(f"{prefix}.{layer.name}", layer, value)
        return value

    def odd_pixels(self, name: str, layer: ops.Factorized, value: str) -> str:
        """Every second pixel from the second on, picked by a depthwise convolution: a slice would have onnxruntime
        leave its blocked layout, there and at all concatenations after it."""
        weight = np.zeros((layer.c_in, 1, 2, 2), np.float32)
        weight[:, :, 1, 1] = 1
        op = Conv(layer.c_in, layer.c_in, (2, 2), (2, 2), layer.c_in)
        return self.add(f"{name}.odd", op, value, weight=weight)

    def layer(self, name: str, layer: ops.Layer, value: str) -> str:
        state = self.state
        match layer:
            case ops.Conv(_, c_in, c_out, kernel, stride, groups, dilation, valid):
                padding = "valid" if valid else "same"
                op = Conv(c_in, c_out, kernel, stride, groups, dilation, padding)
                return self.add(name, op, value, weight=state[f"{name}.weight"])
            case ops.Norm():
                keys = ("weight", "bias", "running_mean", "running_var")
                weights = {key: state[f"{name}.{key}"] for key in keys}
                return self.add(name, Norm(layer.channels, self.config.scale.bn_eps), value, **weights)
            case ops.LayerNorm() | ops.InstanceNorm():
                over = "layer" if isinstance(layer, ops.LayerNorm) else "instance"
                weights = {key: state[f"{name}.{key}"] for key in ("weight", "bias")}
                return self.add(name, Norm(layer.channels, self.config.scale.bn_eps, over), value, **weights)
            case ops.ReLU():
                return self.add(name, Relu(), value)
            case ops.Pool():
                return self.add(name, Pool(layer.mode, layer.kernel, layer.stride), value)
            case ops.Factorized():
                halves = []
                for path, values, stride in (("path_1", value, 2), ("path_2", self.odd_pixels(name, layer, value), 1)):
                    weight = state[f"{name}.{path}.weight"]
                    op = Conv(layer.c_in, len(weight), stride=(stride, stride))
                    halves.append(self.add(f"{name}.{path}", op, values, weight=weight))
                return self.add(name, Concat(), *halves)
            case ops.Zero():
                return self.add(name, Zero(layer.channels, layer.stride), value)
        raise TypeError(f"no node for {layer}")
