"""The layers that operations are made of, as data: what each does to a map's channels and size, and what it costs.

A layer type is one class here, its torch module in `networks/layers.py` (MODULES) and its nodes of an exported graph
in `export/trace.py` (NODES). All padding is TensorFlow's SAME.
"""

from dataclasses import dataclass
from math import prod

Size = tuple[int, int]  # height and width in pixels


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after, so that ceil(size / stride) windows cover the map; the odd one goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True)
class Cost:
    """The cost of a network for one picture, counted as the papers count: one multiply-add per weight and output pixel
    of every convolution and of the classifier; batch norm, pools, additions and ReLUs are free.

    `parameters` are the trained ones, without batch-norm statistics (`bn_statistics` counts those) and without the
    auxiliary head, which is not there at inference. `activations` are the values that convolutions and the classifier
    output (Radosavovic et al. 2020, section 3.2).
    """

    parameters: int = 0
    multiply_adds: int = 0
    bn_statistics: int = 0
    activations: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.parameters + other.parameters,
            self.multiply_adds + other.multiply_adds,
            self.bn_statistics + other.bn_statistics,
            self.activations + other.activations,
        )


@dataclass(frozen=True)
class Layer:
    """One layer. `name` is its part of the keys in a state_dict. This base class does not change a map and costs
    nothing."""

    name: str

    @property
    def reduction(self) -> int:
        """The factor by which it divides the height of a map, rounding up."""
        return 1

    def channels_after(self, channels: int) -> int:
        """The channels of its output, from those of its input."""
        return channels

    def size_after(self, size: Size) -> Size:
        """The size of its output, from that of its input."""
        return size

    def cost(self, size: Size) -> Cost:
        """The cost of an output map of `size`."""
        return Cost()

    def scratch(self, size: Size, channels: int) -> int:
        """How many values its module holds beside its output while it reads a map of that many `channels`."""
        return 0


Layers = tuple[Layer, ...]


def _divided(size: Size, stride: int) -> Size:
    return -(-size[0] // stride), -(-size[1] // stride)


@dataclass(frozen=True)
class Conv(Layer):
    """A convolution without bias; `kernel` and `stride` are (height, width). Padding is SAME, or none if `valid`."""

    c_in: int
    c_out: int
    kernel: Size
    stride: Size = (1, 1)
    groups: int = 1
    dilation: int = 1
    valid: bool = False

    @property
    def reduction(self) -> int:
        return self.stride[0]

    def channels_after(self, channels: int) -> int:
        return self.c_out

    def size_after(self, size: Size) -> Size:
        cut = [kernel - 1 if self.valid else 0 for kernel in self.kernel]
        height, width = (-((c - n) // s) for n, c, s in zip(size, cut, self.stride))
        return height, width

    def cost(self, size: Size) -> Cost:
        weights = self.c_out * self.c_in // self.groups * prod(self.kernel)
        return Cost(weights, weights * prod(size), 0, self.c_out * prod(size))

    def scratch(self, size: Size, channels: int) -> int:
        if self.valid:
            return 0
        spread = [(kernel - 1) * self.dilation + 1 for kernel in self.kernel]
        sides = [same_padding(n, k, s) for n, k, s in zip(size, spread, self.stride)]
        if all(before == after for before, after in sides):
            return 0
        return channels * prod(n + sum(side) for n, side in zip(size, sides))  # a padded copy


@dataclass(frozen=True)
class Norm(Layer):
    """Batch norm with scale and shift."""

    channels: int

    def cost(self, size: Size) -> Cost:
        return Cost(2 * self.channels, 0, 2 * self.channels)


@dataclass(frozen=True)
class ReLU(Layer):
    """Negative values become zero."""


@dataclass(frozen=True)
class Pool(Layer):
    """A pool: the average does not count padding, the maximum pads with -inf. `mode` is "avg" or "max"."""

    mode: str
    kernel: int
    stride: int

    @property
    def reduction(self) -> int:
        return self.stride

    def size_after(self, size: Size) -> Size:
        return _divided(size, self.stride)

    def scratch(self, size: Size, channels: int) -> int:
        cut = int(self.stride == 1 and self.kernel % 2 == 0)  # the first row and column, computed and dropped
        height, width = self.size_after(size)
        computed = channels * (height + cut) * (width + cut)
        indices = 2 * computed if self.mode == "max" else 0  # of the maxima, which torch notes in 64 bits
        return computed - channels * height * width + indices


@dataclass(frozen=True)
class Factorized(Layer):
    """Halves the map without losing half of it: two 1x1 convolutions of stride 2, one on the map and one on the map
    shifted by one pixel, concatenated (TF-slim's `factorized_reduction`)."""

    c_in: int
    c_out: int

    @property
    def reduction(self) -> int:
        return 2

    def channels_after(self, channels: int) -> int:
        return self.c_out

    def size_after(self, size: Size) -> Size:
        return _divided(size, 2)

    def cost(self, size: Size) -> Cost:
        weights = self.c_in * self.c_out
        return Cost(weights, weights * prod(size), 0, self.c_out * prod(size))

    def scratch(self, size: Size, channels: int) -> int:
        height, width = self.size_after(size)
        half = self.c_out // 2
        return half * height * width + (self.c_out - half) * (height + 1) * (width + 1)  # before the concatenation


@dataclass(frozen=True)
class Zero(Layer):
    """All zeros, at the output's size (DARTS' `none`)."""

    channels: int
    stride: int

    @property
    def reduction(self) -> int:
        return self.stride

    def channels_after(self, channels: int) -> int:
        return self.channels

    def size_after(self, size: Size) -> Size:
        return _divided(size, self.stride)


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Normalises each example over channels and pixels, with scale and shift per channel (NASNet-B's combine)."""

    channels: int

    def cost(self, size: Size) -> Cost:
        return Cost(2 * self.channels)


@dataclass(frozen=True)
class InstanceNorm(Layer):
    """Normalises each channel of each example over its pixels, with scale and shift per channel."""

    channels: int

    def cost(self, size: Size) -> Cost:
        return Cost(2 * self.channels)
