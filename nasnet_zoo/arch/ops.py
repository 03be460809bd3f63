"""Every operation as a short list of layers, one operation per line. Imports no torch.

The list is the only definition of an operation: layers.py makes modules of it, cost.py counts its parameters and
multiply-adds, and the exporters emit graphs from it.

Conventions (NASNet paper, appendix A.4): ReLU - convolution - batch norm; a separable convolution is applied twice,
with no batch norm or ReLU between its depthwise and its pointwise part; a 1x1 convolution is inserted wherever the
number of channels has to change. All padding is TensorFlow's SAME. `c_in` and `c` are channels in and out, `s` the
stride.
"""

from collections.abc import Callable
from typing import NamedTuple


class Conv(NamedTuple):
    """A convolution without bias; `kernel` and `stride` are (height, width). Padding is SAME, or none if `valid`."""

    name: str
    c_in: int
    c_out: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    groups: int = 1
    dilation: int = 1
    valid: bool = False


class Norm(NamedTuple):
    """Batch norm with scale and shift."""

    name: str
    channels: int


class ReLU(NamedTuple):
    name: str


class Pool(NamedTuple):
    """A pool with SAME padding: the average does not count padding, the maximum pads with -inf."""

    name: str
    mode: str
    kernel: int
    stride: int


class Factorized(NamedTuple):
    """Halves the map without losing half of it: two 1x1 convolutions of stride 2, one on the map and one on the map
    shifted by one pixel, concatenated (TF-slim's `factorized_reduction`)."""

    name: str
    c_in: int
    c_out: int


class Zero(NamedTuple):
    """All zeros, at the output's size (DARTS' `none`)."""

    name: str
    channels: int
    stride: int


class LayerNorm(NamedTuple):
    """Normalises each example over channels and pixels, with scale and shift per channel (NASNet-B's combine)."""

    name: str
    channels: int


class InstanceNorm(NamedTuple):
    """Normalises each channel of each example over its pixels, with scale and shift per channel."""

    name: str
    channels: int


Layer = Conv | Norm | ReLU | Pool | Factorized | Zero | LayerNorm | InstanceNorm
Layers = tuple[Layer, ...]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after, so that ceil(size / stride) windows cover the map; the odd one goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def conv(kernel: int, c_in: int, c: int, s: int, dilation: int = 1) -> Layers:
    return ReLU("relu"), Conv("conv", c_in, c, (kernel, kernel), (s, s), dilation=dilation), Norm("bn", c)


def conv_pair(kernel: int, c_in: int, c: int, s: int) -> Layers:
    """A 1xk and then a kx1 convolution, each followed by batch norm."""
    return (
        *(ReLU("relu_1"), Conv("conv_1", c_in, c, (1, kernel), (1, s)), Norm("bn_1", c)),
        *(ReLU("relu_2"), Conv("conv_2", c, c, (kernel, 1), (s, 1)), Norm("bn_2", c)),
    )


def bottleneck(inner: Callable[[int], Layers], c_in: int, c: int) -> Layers:
    """`inner` at a quarter of the channels between two 1x1 convolutions, as the AmoebaNets have it."""
    narrow = max(c // 4, 1)
    return (
        *(ReLU("relu_pre"), Conv("conv_pre", c_in, narrow, (1, 1)), Norm("bn_pre", narrow)),
        *inner(narrow),
        *(ReLU("relu_post"), Conv("conv_post", narrow, c, (1, 1)), Norm("bn_post", c)),
    )


def separable(kernel: int, c_in: int, c: int, s: int, index: int, dilation: int = 1) -> Layers:
    return (
        ReLU(f"relu_{index}"),
        Conv(f"depthwise_{index}", c_in, c_in, (kernel, kernel), (s, s), groups=c_in, dilation=dilation),
        Conv(f"pointwise_{index}", c_in, c, (1, 1)),
        Norm(f"bn_{index}", c),
    )


def separable_twice(kernel: int, c_in: int, c: int, s: int, dilation: int = 1) -> Layers:
    return separable(kernel, c_in, c, s, 1, dilation) + separable(kernel, c, c, 1, 2, dilation)


def pool(mode: str, kernel: int, c_in: int, c: int, s: int) -> Layers:
    fit = () if c_in == c else (Conv("conv", c_in, c, (1, 1)), Norm("bn", c))
    return (Pool("pool", mode, kernel, s), *fit)


def identity(c_in: int, c: int, s: int) -> Layers:
    return () if s == 1 and c_in == c else conv(1, c_in, c, s)


def factorized(c_in: int, c: int) -> Layers:
    return ReLU("relu"), Factorized("path", c_in, c), Norm("bn", c)


OPS: dict[str, Callable[[int, int, int], Layers]] = {
    "identity": identity,
    "zero": lambda c_in, c, s: (Zero("zero", c, s),),
    "avg_pool_3x3": lambda c_in, c, s: pool("avg", 3, c_in, c, s),
    "max_pool_2x2": lambda c_in, c, s: pool("max", 2, c_in, c, s),
    "max_pool_3x3": lambda c_in, c, s: pool("max", 3, c_in, c, s),
    "max_pool_5x5": lambda c_in, c, s: pool("max", 5, c_in, c, s),
    "max_pool_7x7": lambda c_in, c, s: pool("max", 7, c_in, c, s),
    "conv_1x1": lambda c_in, c, s: conv(1, c_in, c, s),
    "conv_3x3": lambda c_in, c, s: conv(3, c_in, c, s),
    "conv_1x3_3x1": lambda c_in, c, s: conv_pair(3, c_in, c, s),
    "conv_1x7_7x1": lambda c_in, c, s: conv_pair(7, c_in, c, s),
    "conv_3x3_dilated": lambda c_in, c, s: conv(3, c_in, c, s, dilation=2),
    "bottleneck_3x3": lambda c_in, c, s: bottleneck(lambda n: conv(3, n, n, s), c_in, c),
    "bottleneck_1x7_7x1": lambda c_in, c, s: bottleneck(lambda n: conv_pair(7, n, n, s), c_in, c),
    "sep_conv_3x3": lambda c_in, c, s: separable_twice(3, c_in, c, s),
    "sep_conv_5x5": lambda c_in, c, s: separable_twice(5, c_in, c, s),
    "sep_conv_7x7": lambda c_in, c, s: separable_twice(7, c_in, c, s),
    "dil_conv_3x3": lambda c_in, c, s: separable(3, c_in, c, s, 1, dilation=2),
    "dil_conv_5x5": lambda c_in, c, s: separable(5, c_in, c, s, 1, dilation=2),
    "dil_sep_conv_3x3": lambda c_in, c, s: separable_twice(3, c_in, c, s, dilation=2),
    "dil_sep_conv_5x5": lambda c_in, c, s: separable_twice(5, c_in, c, s, dilation=2),
}

COMBINES: dict[str, Callable[[int], Layers]] = {
    "add": lambda c: (),
    "concat": lambda c: conv(1, 2 * c, c, 1),
    "add_layer_norm": lambda c: (LayerNorm("norm", c),),
    "add_instance_norm": lambda c: (InstanceNorm("norm", c),),
}
