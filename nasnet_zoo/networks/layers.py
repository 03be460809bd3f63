"""The layers of arch/layers.py as torch modules, with TensorFlow's SAME padding computed from the actual size."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arch import layers
from ..arch.layers import Layer, Layers, ReLU, same_padding
from ..errors import ConfigError


class Conv2d(nn.Conv2d):
    """A convolution whose weights are drawn by network.initialize alone; a network to be loaded draws none."""

    def reset_parameters(self) -> None:
        pass


class PointConv2d(Conv2d):
    """A 1x1 convolution that is safe with any stride and number of channels.

    With a stride, less than eight input channels and channels_last, oneDNN's writes beyond its memory in the
    backward pass (seen with torch 2.14, oneDNN 3.12), so there the pixels are picked before. Elsewhere that would
    only be slower.
    """

    def forward(self, x: Tensor) -> Tensor:
        stride = self.stride
        if self.in_channels < 8 and stride != (1, 1):
            x, stride = x[:, :, :: stride[0], :: stride[1]], 1
        return F.conv2d(x, self.weight, None, stride, groups=self.groups)


class OddPointConv2d(PointConv2d):
    """A 1x1 convolution of every second pixel from the second on: with a pixel of padding, no shifted copy of the map
    is needed."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, None, 2, padding=1)[:, :, 1:, 1:]


class SameConv2d(Conv2d):
    """A convolution with SAME padding for any size; pads explicitly only where the two sides differ.

    In a training on a CPU, a dilated one of bfloat16 that is depthwise, or whose input channels 16 does not divide, is
    computed in float32: oneDNN's weight gradient reads memory that nobody has written, and is NaN or merely wrong (seen
    with torch 2.14, oneDNN 3.12, in channels_last on maps of 32 pixels and more).
    """

    def forward(self, x: Tensor) -> Tensor:
        (kh, kw), (sh, sw), (dh, dw) = self.kernel_size, self.stride, self.dilation
        top, bottom = same_padding(x.shape[2], (kh - 1) * dh + 1, sh)
        left, right = same_padding(x.shape[3], (kw - 1) * dw + 1, sw)
        if top != bottom or left != right:
            x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
        rest = None, self.stride, (top, left), self.dilation, self.groups
        if self._misread(x):
            with torch.autocast("cpu", enabled=False):
                return F.conv2d(x.float(), self.weight.float(), *rest).bfloat16()
        return F.conv2d(x, self.weight, *rest)

    def _misread(self, x: Tensor) -> bool:
        if self.dilation == (1, 1) or x.device.type != "cpu" or not torch.is_grad_enabled():
            return False
        automatic = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        return (automatic or x.dtype == torch.bfloat16) and (self.groups > 1 or self.in_channels % 16 > 0)


class SamePool2d(nn.Module):
    """A pool with SAME padding. Averages do not count padding, maxima pad with -inf.

    torch pads both sides alike, but with `ceil_mode` it lets the last window hang over the end, and leaves what
    hangs over out of the average: that is SAME's odd pixel, without a copy of the map.
    """

    def __init__(self, mode: str, kernel: int, stride: int) -> None:
        super().__init__()
        self.mode, self.kernel, self.stride = mode, kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = (same_padding(n, self.kernel, self.stride) for n in x.shape[2:])
        even = self.stride == 1 and self.kernel % 2 == 0
        if even:  # ceil_mode has nothing to round up: a pixel more before, and the first windows dropped
            top, left = self.kernel // 2, self.kernel // 2
        # A plain bool even where sizes are symbolic, as they become when one compiled function sees several.
        ceil = True if not even and (top != bottom or left != right) else False  # noqa: SIM210
        if self.mode == "max":
            x = F.max_pool2d(x, self.kernel, self.stride, (top, left), ceil_mode=ceil)
        elif not even and not ceil and _slow_to_average(x):
            x = averaged(x, self.kernel, self.stride, (top, left))
        else:
            x = F.avg_pool2d(x, self.kernel, self.stride, (top, left), ceil_mode=ceil, count_include_pad=False)
        return x[:, :, 1:, 1:] if even else x

    def extra_repr(self) -> str:
        return f"{self.mode}, kernel={self.kernel}, stride={self.stride}"


def _slow_to_average(x: Tensor) -> bool:
    """Whether torch's average pool would take many times as long as a convolution: forward and backward 984 us against
    141 for 512 x 32 x 32 x 32 in bfloat16 on an H200 (torch 2.11). torch.compile makes a pool of its own."""
    if not x.is_cuda or x.dtype != torch.bfloat16 or torch.compiler.is_compiling():
        return False  # the convolution would round float32, and a sum in float16 be too large
    return x.is_contiguous(memory_format=torch.channels_last)


def averaged(x: Tensor, kernel: int, stride: int, padding: tuple[int, int]) -> Tensor:
    """An average pool that does not count padding, as a convolution of ones over each channel."""
    size, channels = (kernel, kernel), x.shape[1]
    total = F.conv2d(x, x.new_ones(channels, 1, *size), None, stride, padding, groups=channels)
    count = F.avg_pool2d(x.new_ones(1, 1, *x.shape[2:]), size, stride, padding, divisor_override=1)
    return total / count


class BatchNorm(nn.BatchNorm2d):
    """torch's batch norm, which counts batches only where that matters: for `momentum=None`, the cumulative average.

    The counter is no part of the state_dict, so that checkpoints hold weights and statistics alone; to torch's own
    tools (SyncBatchNorm, swa_utils.update_bn, reset_running_stats) it is there like any other, from the start, since
    AveragedModel pairs the buffers of two networks. One that is `frozen` stays in eval mode and keeps its statistics,
    whatever is said to the network around it.
    """

    _version = 1  # of torch's: before 2 there was no counter, so that what is told 1 does without
    frozen = False

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps=eps)
        self._buffers["num_batches_tracked"] = torch.zeros((), dtype=torch.int64, device="cpu")
        self._non_persistent_buffers_set.add("num_batches_tracked")

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()

    def reset_running_stats(self) -> None:
        if not self.frozen:  # swa_utils.update_bn resets all there are
            super().reset_running_stats()

    def train(self, mode: bool = True) -> "BatchNorm":
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor) -> Tensor:
        if self.momentum is None:
            return super().forward(x)
        training = self.training or self.running_mean is None
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, training, self.momentum, self.eps)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        counted = state_dict.pop(f"{prefix}num_batches_tracked", None)  # of one that was a SyncBatchNorm, say
        if counted is not None:
            self.num_batches_tracked.copy_(counted)
        nn.Module._load_from_state_dict(self, state_dict, prefix, *args)  # torch's own would want the counter


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm that takes maps of one pixel too, which come out as the shift."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.instance_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, False)


class _Concatenation(torch.autograd.Function):
    """torch.cat of channels, whose gradients are maps of their own. torch's are views into the whole one, and over
    those batch norm's backward pass takes 12 to 26 times as long on a CPU (benchmarks/step_profile.py)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*maps: Tensor) -> Tensor:
        return torch.cat(maps, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.widths = [x.shape[1] for x in inputs]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in gradient.split(ctx.widths, 1))  # which keeps the order of the axes

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return torch.cat(tangents, 1)


def concatenated(maps: Sequence[Tensor]) -> Tensor:
    """Maps of the same size as one, their channels one after the other."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return torch.cat(list(maps), 1)
    return _Concatenation.apply(*maps)


class FactorizedReduction(nn.Module):
    """Half of the channels from the even pixels and half from the odd ones, both at half the size (rounded up)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.path_1 = PointConv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.path_2 = OddPointConv2d(c_in, c_out - c_out // 2, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return concatenated([self.path_1(x), self.path_2(x)])


class Zero(nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        height, width = (-(-n // self.stride) for n in x.shape[2:])
        return x.new_zeros(x.shape[0], self.channels, height, width)


def _convolution(layer: layers.Conv, eps: float) -> nn.Module:
    kind = PointConv2d if layer.kernel == (1, 1) else Conv2d if layer.valid else SameConv2d
    options: dict[str, Any] = dict(stride=layer.stride, groups=layer.groups, dilation=layer.dilation, bias=False)
    return kind(layer.c_in, layer.c_out, layer.kernel, **options)


# The module of each layer type of arch/layers.py; `eps` is batch norm's.
MODULES: dict[type[Layer], Callable[[Any, float], nn.Module]] = {
    layers.Conv: _convolution,
    layers.Norm: lambda layer, eps: BatchNorm(layer.channels, eps),
    layers.ReLU: lambda layer, eps: nn.ReLU(),
    layers.Pool: lambda layer, eps: SamePool2d(layer.mode, layer.kernel, layer.stride),
    layers.Factorized: lambda layer, eps: FactorizedReduction(layer.c_in, layer.c_out),
    layers.Zero: lambda layer, eps: Zero(layer.channels, layer.stride),
    layers.LayerNorm: lambda layer, eps: nn.GroupNorm(1, layer.channels, eps=eps),
    layers.InstanceNorm: lambda layer, eps: InstanceNorm(layer.channels, eps=eps, affine=True),
}


def make_layer(layer: Layer, eps: float) -> nn.Module:
    """The module of one layer; raises ConfigError for a type that has none in MODULES."""
    if type(layer) not in MODULES:
        raise ConfigError(f"the layer type {type(layer).__name__} has no module: add it to networks.layers.MODULES")
    return MODULES[type(layer)](layer, eps)


class State:
    """A hidden state, and its ReLU computed once for however many operations read it."""

    def __init__(self, raw: Tensor) -> None:
        self.raw = raw
        self._relu: Tensor | None = None

    @property
    def relu(self) -> Tensor:
        if self._relu is None:
            self._relu = F.relu(self.raw)
        return self._relu


def drop_path(x: Tensor, keep: Tensor) -> Tensor:
    """Drops the whole of x for each example with probability 1 - keep, and scales what stays (Larsson et al. 2016)."""
    # The floor of the sum, as TF-slim has it, is 2 and doubles a path where the sum is rounded up to 2: often in half
    # precision, and for the largest number that can be drawn in float32 too.
    kept = keep + torch.rand(x.shape[0], 1, 1, 1, device=x.device, dtype=torch.float32) >= 1
    return x / keep.to(x.dtype) * kept.to(x.dtype)


class Chain(nn.Sequential):
    """A list of layers that reads a State; a leading ReLU is taken from the state, which shares it.

    A training may set `separable` to its own way through a chain (training/separable.py).
    """

    separable: "Callable[[Chain, State], Tensor] | None" = None

    def __init__(self, layers: Layers, eps: float) -> None:
        takes_relu = bool(layers) and isinstance(layers[0], ReLU)
        rest = layers[1:] if takes_relu else layers
        super().__init__(OrderedDict((layer.name, make_layer(layer, eps)) for layer in rest))
        self.takes_relu = takes_relu
        for module in self:
            if isinstance(module, nn.ReLU):
                module.inplace = True  # it follows a batch norm, whose backward does not need what it put out

    def forward(self, state: State) -> Tensor:
        if self.training and self.separable is not None:
            return self.separable(self, state)
        x = state.relu if self.takes_relu else state.raw
        for layer in self:
            x = layer(x)
        return x


def initialize(network: nn.Module) -> None:
    """Fresh weights as TF-slim draws them: truncated normal, variance 2 / fan-out, for convolutions; batch norms 1
    and 0; a small uniform classifier."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[:, 0].numel() / module.groups
            std = (2 / fan_out) ** 0.5 / 0.87962566103423978  # what truncation at two deviations takes away
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        elif isinstance(module, nn.Linear):
            bound = (3 / module.in_features) ** 0.5
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)
