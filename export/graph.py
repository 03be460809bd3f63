"""A network for inference as a list of nodes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

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
        """A graph of the given nodes, without those that the output does not need."""
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
