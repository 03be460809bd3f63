"""A kind of network, with a layer type and a search space of its own, that nothing else in the project knows of."""

import dataclasses
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn

from nasnet_zoo.arch import layers
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.kinds import Kind, Sizing, register_kind
from nasnet_zoo.arch.layers import Conv, Cost, Layer, Norm, ReLU
from nasnet_zoo.arch.plan import PICTURE, Plan, Step
from nasnet_zoo.arch.preprocess import CIFAR10
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.export import graph
from nasnet_zoo.export.trace import NODES
from nasnet_zoo.networks.layers import MODULES

drawn: list["PlainNet"] = []  # what the kind was asked to draw


@dataclass(frozen=True)
class Cross(Layer):
    """The layer type: a depthwise convolution with a bias, which no layer of the zoo has."""

    channels: int

    def cost(self, size: layers.Size) -> Cost:
        return Cost(10 * self.channels, 9 * self.channels * prod(size), 0, self.channels * prod(size))


MODULES[Cross] = lambda layer, eps: nn.Conv2d(layer.channels, layer.channels, 3, padding=1, groups=layer.channels)
NODES[Cross] = lambda tracer, name, layer, value: tracer.add(
    name,
    graph.Conv(layer.channels, layer.channels, (3, 3), groups=layer.channels),
    value,
    **tracer.weights(name, "weight", "bias"),
)


@dataclass(frozen=True)
class PlainNet:
    """`depth` convolutions of stride 2, each with a residual of `kernel` pixels."""

    depth: int
    kernel: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= 4:
            raise ConfigError(f"a plain network has 1 to 4 layers, not {self.depth}")


@dataclass(frozen=True)
class PlainScale:
    width: int
    repeats: int = 1


def plan(net: PlainNet, scale: PlainScale, in_channels: int) -> Plan:
    steps: list[Step] = []
    features, read, channels = [], PICTURE, in_channels
    for index in range(net.depth):
        down = (Conv("conv", channels, scale.width, (net.kernel,) * 2, (2, 2)), Norm("bn", scale.width))
        steps.append(Step(f"body.{index}.down", (read,), down))
        for repeat in range(scale.repeats):
            before = len(steps) - 1
            name = f"body.{index}.residual_{repeat}"
            steps.append(Step(name, (before,), (ReLU("relu"), Cross("cross", scale.width)), drop_path=1.0))
            steps.append(Step(f"{name}.sum", (before, before + 1), join="add"))
        read, channels = len(steps) - 1, scale.width
        features.append((read,))
    return Plan(tuple(steps), output=read, in_channels=in_channels, features=tuple(features), minimum_size=8)


def sized(net: PlainNet, sizing: Sizing) -> NetworkConfig:
    size = sizing.size or (32 if sizing.data == "cifar10" else 64)
    preprocess = dataclasses.replace(CIFAR10, size=(size, size))
    return NetworkConfig(net, PlainScale(sizing.width, sizing.depth), preprocess, sizing.classes or 10)


def draw(net: PlainNet, path: Any, **options: Any) -> None:
    drawn.append(net)
    with open(path, "w") as file:
        file.write('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><rect width="4" height="4"/></svg>')


def read(value: Any) -> PlainNet:
    if not isinstance(value, dict) or set(value) != {"depth", "kernel"}:
        raise ConfigError(f"a plain network is its depth and kernel, not {str(value)[:60]}")
    return PlainNet(**value)


def register() -> None:
    register_kind(
        "plain",
        Kind(
            architecture=PlainNet,
            scale=PlainScale,
            read=read,
            write=dataclasses.asdict,
            hash=lambda net: f"plain-{net.depth}-{net.kernel}",
            plan=plan,
            sized=sized,
            draw=draw,
            parts=("whole",),
            recognise=lambda value: isinstance(value, dict) and set(value) == {"depth", "kernel"},
        ),
    )
