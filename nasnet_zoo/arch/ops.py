"""Every operation as a short list of layers, one operation per line.

The list is the only definition of an operation: modules, costs and graphs are made from its layers (layers.py).

Conventions (NASNet paper, appendix A.4): ReLU - convolution - batch norm; a separable convolution is applied twice,
with no batch norm or ReLU between its depthwise and its pointwise part; a 1x1 convolution is inserted wherever the
number of channels has to change. All padding is TensorFlow's SAME. `c_in` and `c` are channels in and out, `s` the
stride.
"""

from collections.abc import Callable

from .layers import Conv, Factorized, InstanceNorm, LayerNorm, Layers, Norm, Pool, ReLU, Zero


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
