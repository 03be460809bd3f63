"""ReLU, depthwise, pointwise and batch norm of a separable convolution, in training, with few passes over memory.

A child of the search is bound by memory traffic. Forward, torch reads or writes a map nine times for one such layer;
here it is five times: one Triton kernel rectifies, convolves per channel, multiplies by the pointwise matrix and
gathers batch norm's statistics of what it puts out. Two more kernels are the depthwise part's gradients. The rest,
matrix products and batch norm's own backward pass, torch does well.

That was the idea. On an H200 (torch 2.11, cuDNN 9) torch's own kernels have become faster: at thirteen of the fourteen
shapes of NASNet-A at 32 filters and 512 pictures of CIFAR-10 these here take 1.1 to 2.9 times as long, forward and
backward, as replays of a graph (the other was not timed). So a recipe has to ask for them.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn

from ..arch.layers import same_padding
from ..networks.layers import BatchNorm, Chain, PointConv2d, SameConv2d, State

MAX_CHANNELS = 256  # of the output: a program holds all of a pixel's
PIXELS, CHANNELS = 64, 32  # what a program takes at a time
ROUNDS = 16  # blocks of pixels whose share of the weights' gradient one program sums up


class Geometry(NamedTuple):
    """The depthwise convolution of an NHWC map: sizes in and out, and the pixels of padding before."""

    images: int
    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    top: int
    left: int
    kernel: int
    stride: int
    dilation: int

    @property
    def pixels(self) -> int:
        return self.images * self.out_height * self.out_width


@triton.jit
def _rectified(x, image, row, column, channel, height, width, channels, inside):
    """ReLU of (pixels, channels) of an NHWC map in float32, zero outside of it."""
    inside = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    at = ((image * height + row) * width + column).to(tl.int64) * channels
    mask = inside[:, None] & (channel < channels)[None, :]
    values = tl.load(x + at[:, None] + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    return tl.maximum(values, 0.0, propagate_nan=tl.PropagateNan.ALL)  # a training that breaks down must show it


@triton.jit
def _forward_kernel(
    x,  # (images, height, width, channels)
    depthwise,  # (kernel * kernel, channels), float32
    pointwise,  # (channels, out_channels)
    middle,  # (pixels, channels): what the depthwise part puts out, for the backward pass
    out,  # (pixels, out_channels)
    sums,  # (programs, out_channels): of the program's pixels
    squares,  # (programs, out_channels): of their deviations from the program's mean
    pixels,
    height,
    width,
    channels: tl.constexpr,  # the end of a loop, which Triton 3.6's interpreter takes as a plain number only
    out_height,
    out_width,
    out_channels,
    top,
    left,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUT_CHANNELS: tl.constexpr,
):
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < pixels
    image, rest = pixel // (out_height * out_width), pixel % (out_height * out_width)
    row, column = rest // out_width * STRIDE - top, rest % out_width * STRIDE - left
    out_channel = tl.arange(0, OUT_CHANNELS)
    product = tl.zeros((PIXELS, OUT_CHANNELS), dtype=tl.float32)
    for first in range(0, channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)
        here = channel < channels
        total = tl.zeros((PIXELS, CHANNELS), dtype=tl.float32)
        for tap in range(KERNEL * KERNEL):
            y, x_ = row + tap // KERNEL * DILATION, column + tap % KERNEL * DILATION
            values = _rectified(x, image, y, x_, channel, height, width, channels, inside)
            total += values * tl.load(depthwise + tap * channels + channel, mask=here, other=0.0)[None, :]
        total = total.to(middle.dtype.element_ty)
        at = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
        tl.store(middle + at, total, mask=inside[:, None] & here[None, :])
        at = channel[:, None] * out_channels + out_channel[None, :]
        weights = tl.load(pointwise + at, mask=here[:, None] & (out_channel < out_channels)[None, :], other=0.0)
        product = tl.dot(total, weights, product, input_precision="ieee")
    result = product.to(out.dtype.element_ty)
    at = pixel.to(tl.int64)[:, None] * out_channels + out_channel[None, :]
    tl.store(out + at, result, mask=inside[:, None] & (out_channel < out_channels)[None, :])
    values = tl.where(inside[:, None], result.to(tl.float32), 0.0)
    total = tl.sum(values, 0)
    count = tl.minimum(pixels - tl.program_id(0) * PIXELS, PIXELS)
    deviation = tl.where(inside[:, None], values - (total / count)[None, :], 0.0)
    at = tl.program_id(0) * out_channels + out_channel
    tl.store(sums + at, total, mask=out_channel < out_channels)
    tl.store(squares + at, tl.sum(deviation * deviation, 0), mask=out_channel < out_channels)


@triton.jit
def _input_gradient_kernel(
    gradient,  # (pixels out, channels), of the depthwise part's output
    x,
    depthwise,
    out,  # as x
    pixels,  # of x
    height,
    width,
    channels,
    out_height,
    out_width,
    top,
    left,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside, here = pixel < pixels, channel < channels
    image, rest = pixel // (height * width), pixel % (height * width)
    row, column = rest // width + top, rest % width + left
    total = tl.zeros((PIXELS, CHANNELS), dtype=tl.float32)
    for tap in range(KERNEL * KERNEL):
        y, x_ = row - tap // KERNEL * DILATION, column - tap % KERNEL * DILATION
        read = inside & (y >= 0) & (x_ >= 0) & (y % STRIDE == 0) & (x_ % STRIDE == 0)
        y, x_ = y // STRIDE, x_ // STRIDE
        read = read & (y < out_height) & (x_ < out_width)
        at = ((image * out_height + y) * out_width + x_).to(tl.int64) * channels
        values = tl.load(gradient + at[:, None] + channel[None, :], mask=read[:, None] & here[None, :], other=0.0)
        weights = tl.load(depthwise + tap * channels + channel, mask=here, other=0.0)
        total += values.to(tl.float32) * weights[None, :]
    at = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    mask = inside[:, None] & here[None, :]
    positive = tl.load(x + at, mask=mask, other=0.0) > 0
    tl.store(out + at, tl.where(positive, total, 0.0).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _weight_gradient_kernel(
    gradient,
    x,
    out,  # (programs, kernel * kernel, channels), float32
    pixels,
    height,
    width,
    channels,
    out_height,
    out_width,
    top,
    left,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROUNDS: tl.constexpr,
):
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    here = channel < channels
    for tap in range(KERNEL * KERNEL):
        total = tl.zeros((CHANNELS,), dtype=tl.float32)
        for turn in range(ROUNDS):
            pixel = (tl.program_id(0) * ROUNDS + turn) * PIXELS + tl.arange(0, PIXELS)
            inside = pixel < pixels
            image, rest = pixel // (out_height * out_width), pixel % (out_height * out_width)
            row = rest // out_width * STRIDE - top + tap // KERNEL * DILATION
            column = rest % out_width * STRIDE - left + tap % KERNEL * DILATION
            at = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
            slope = tl.load(gradient + at, mask=inside[:, None] & here[None, :], other=0.0).to(tl.float32)
            total += tl.sum(slope * _rectified(x, image, row, column, channel, height, width, channels, inside), 0)
        tl.store(out + (tl.program_id(0) * KERNEL * KERNEL + tap) * channels + channel, total, mask=here)


class Separable(torch.autograd.Function):
    """(x, depthwise weights, pointwise weights, scale, shift, what a batch norm keeps) -> the batch norm's output.

    x is (images, channels, height, width) in channels_last, in the dtype in which is computed. The running mean and
    variance are moved in place by `momentum`.
    """

    @staticmethod
    def forward(ctx: Any, x, depthwise, pointwise, scale, shift, running, momentum, eps, stride, dilation) -> Tensor:
        images, channels, height, width = x.shape
        kernel, out_channels = depthwise.shape[2], pointwise.shape[0]
        (top, _), (left, _) = (same_padding(n, (kernel - 1) * dilation + 1, stride) for n in (height, width))
        size = (-(-height // stride), -(-width // stride))
        shape = Geometry(images, height, width, channels, *size, top, left, kernel, stride, dilation)
        taps = depthwise.detach().float().reshape(channels, -1).t().contiguous()
        matrix = pointwise.detach().reshape(out_channels, channels).to(x.dtype)
        flat = x.permute(0, 2, 3, 1).contiguous()
        middle, out = flat.new_empty(shape.pixels, channels), flat.new_empty(shape.pixels, out_channels)
        programs = triton.cdiv(shape.pixels, PIXELS)
        sums, squares = (flat.new_empty(programs, out_channels, dtype=torch.float32) for _ in range(2))
        _forward_kernel[(programs,)](
            *(flat, taps, matrix.t().contiguous(), middle, out, sums, squares),
            *(shape.pixels, height, width, channels, *size, out_channels, top, left),
            *(kernel, stride, dilation, PIXELS, CHANNELS, max(triton.next_power_of_2(out_channels), 16)),
        )
        mean, variance = _statistics(sums, squares, shape.pixels)
        unbiased = variance * (shape.pixels / max(shape.pixels - 1, 1))
        for kept, value in zip(running, (mean, unbiased)):
            kept.lerp_(value.to(kept.dtype), momentum)
        out = out.view(images, *size, out_channels).permute(0, 3, 1, 2)
        ctx.save_for_backward(flat, taps, matrix, middle, out, scale, mean, (variance + eps).rsqrt())
        ctx.shape, ctx.eps = shape, eps
        return F.batch_norm(out, mean, variance, scale, shift, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, taps, matrix, middle, out, scale, mean, deviation = ctx.saved_tensors
        shape: Geometry = ctx.shape
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        gradient, d_scale, d_shift = torch.ops.aten.native_batch_norm_backward(
            gradient, out, scale, None, None, mean, deviation, True, ctx.eps, [True, True, True]
        )
        gradient = gradient.permute(0, 2, 3, 1).reshape(shape.pixels, -1)
        d_pointwise = gradient.t() @ middle
        gradient = gradient @ matrix
        sizes = (shape.height, shape.width, shape.channels, shape.out_height, shape.out_width, shape.top, shape.left)
        fixed = (shape.kernel, shape.stride, shape.dilation, PIXELS, CHANNELS)
        blocks = triton.cdiv(shape.channels, CHANNELS)
        d_x, pixels = torch.empty_like(flat), flat[..., 0].numel()
        _input_gradient_kernel[(triton.cdiv(pixels, PIXELS), blocks)](gradient, flat, taps, d_x, pixels, *sizes, *fixed)
        programs = triton.cdiv(shape.pixels, PIXELS * ROUNDS)
        parts = taps.new_empty(programs, *taps.shape)
        _weight_gradient_kernel[(programs, blocks)](gradient, flat, parts, shape.pixels, *sizes, *fixed, ROUNDS)
        d_depthwise = parts.sum(0).t().reshape(shape.channels, 1, shape.kernel, shape.kernel)
        d_pointwise = d_pointwise.float().view(*d_pointwise.shape, 1, 1)
        return d_x.permute(0, 3, 1, 2), d_depthwise, d_pointwise, d_scale, d_shift, None, None, None, None, None


def _statistics(sums: Tensor, squares: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance from the programs' own, which cancels nothing where the mean is large (Chan et al.)."""
    counts = torch.full((len(sums), 1), float(PIXELS), device=sums.device)
    counts[-1] = pixels - (len(sums) - 1) * PIXELS
    mean = sums.sum(0) / pixels
    return mean, (squares.sum(0) + (counts * (sums / counts - mean).square()).sum(0)) / pixels


def fused(x: Tensor, depthwise: nn.Conv2d, pointwise: nn.Conv2d, norm: BatchNorm) -> Tensor:
    """The four layers, ReLU first, in training mode; in autocast's dtype where that is on."""
    device = x.device.type
    x = x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
    kept = (norm.running_mean, norm.running_var)
    weights = (depthwise.weight, pointwise.weight, norm.weight, norm.bias)
    with torch.autocast(device, enabled=False):
        return Separable.apply(x, *weights, kept, norm.momentum, norm.eps, depthwise.stride[0], depthwise.dilation[0])


def run_fused(chain: Chain, state: State) -> Tensor:
    """Chain.forward, with every separable convolution fused that can be."""
    return _run(chain, state, _fits)


def _run(chain: Chain, state: State, wanted) -> Tensor:
    layers, x, rectify = list(chain), None, chain.takes_relu
    while layers:
        raw = state.raw if x is None else x
        if isinstance(layers[0], nn.ReLU):
            layers, rectify = layers[1:], True
        unit = layers[:3]
        if rectify and _is_separable(unit) and wanted(raw, *unit):
            x, layers = fused(raw, *unit), layers[3:]
        else:
            value = raw if not rectify else state.relu if x is None else F.relu(x, inplace=True)
            x, layers = layers[0](value) if layers else value, layers[1:]
        rectify = False
    return x if x is not None else state.relu if rectify else state.raw


def _is_separable(layers: list[nn.Module]) -> bool:
    match layers:
        case [SameConv2d() as depthwise, PointConv2d(stride=(1, 1)) as pointwise, BatchNorm(training=True) as norm]:
            fits = depthwise.groups == depthwise.out_channels > 1 == pointwise.groups
            return fits and norm.momentum is not None and norm.running_mean is not None
    return False


def _fits(x: Tensor, depthwise: nn.Conv2d, pointwise: nn.Conv2d, norm: BatchNorm) -> bool:
    return torch.is_grad_enabled() and pointwise.out_channels <= MAX_CHANNELS
