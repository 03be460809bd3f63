import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nasnet_zoo.arch.cost import layers_cost
from nasnet_zoo.arch.ops import COMBINES, OPS, Conv, Factorized, InstanceNorm, LayerNorm, Norm, Pool, ReLU, Zero
from nasnet_zoo.networks.layers import (
    BatchNorm,
    Chain,
    FactorizedReduction,
    SamePool2d,
    State,
    averaged,
    concatenated,
    make_layer,
    same_padding,
)

EPS = 1e-3
SIZES = [(n, n) for n in range(1, 13)] + [(1, 4), (5, 8), (8, 5), (12, 7), (3, 2)]
EVERY_OP = pytest.mark.parametrize("op", OPS)
STRIDES = pytest.mark.parametrize("stride", [1, 2])


# A slow reference: every output pixel by itself, from the definition of SAME padding


def window_starts(size, kernel, stride):
    """Where the windows of SAME padding begin: ceil(size / stride) of them, what hangs over split, the odd one last."""
    count = math.ceil(size / stride)
    over = max((count - 1) * stride + kernel - size, 0)
    return [i * stride - over // 2 for i in range(count)]


def windows(x, kernel, stride):
    """Yields row, column and the real pixels of each window, with their places in the window."""
    tops, lefts = (window_starts(n, k, s) for n, k, s in zip(x.shape[2:], kernel, stride, strict=True))
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            y0, y1 = max(top, 0), min(top + kernel[0], x.shape[2])
            x0, x1 = max(left, 0), min(left + kernel[1], x.shape[3])
            yield row, column, x[:, :, y0:y1, x0:x1], (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))


def output(x, channels, stride):
    return x.new_zeros(x.shape[0], channels, *(math.ceil(n / s) for n, s in zip(x.shape[2:], stride, strict=True)))


def reference_pool(x, mode, kernel, stride):
    y = output(x, x.shape[1], (stride, stride))
    for row, column, pixels, _ in windows(x, (kernel, kernel), (stride, stride)):
        y[:, :, row, column] = pixels.mean((2, 3)) if mode == "avg" else pixels.amax((2, 3))
    return y


def reference_conv(x, weight, stride, groups, dilation):
    if dilation > 1:  # the same as a larger kernel with holes
        spread = weight.new_zeros(*weight.shape[:2], *((k - 1) * dilation + 1 for k in weight.shape[2:]))
        spread[:, :, ::dilation, ::dilation] = weight
        weight = spread
    y = output(x, weight.shape[0], stride)
    depthwise = groups > 1
    for row, column, pixels, (rows, columns) in windows(x, weight.shape[2:], stride):
        part = weight[:, :, rows, columns]
        if depthwise:
            y[:, :, row, column] = (pixels * part[:, 0]).sum((2, 3))
        else:
            y[:, :, row, column] = torch.einsum("nchw,ochw->no", pixels, part)
    return y


def reference_factorized(x, path_1, path_2):
    """Even pixels through one 1x1 convolution, odd ones through the other; past the end there are zeros."""
    n, _, height, width = x.shape
    even = x[:, :, ::2, ::2]
    odd = x.new_zeros(even.shape)
    odd[:, :, : height // 2, : width // 2] = x[:, :, 1::2, 1::2]
    pixels = ((even, path_1), (odd, path_2))
    return torch.cat([torch.einsum("nchw,oc->nohw", pixel, path[:, :, 0, 0]) for pixel, path in pixels], 1)


def reference(layers, chain, x):
    """`layers` on x with the weights of `chain`, in the slow way."""
    modules = dict(chain.named_children())
    for layer in layers:
        module = modules.get(layer.name)
        match layer:
            case Conv():
                x = reference_conv(x, module.weight, layer.stride, layer.groups, layer.dilation)
            case Pool():
                x = reference_pool(x, layer.mode, layer.kernel, layer.stride)
            case Norm():
                mean, var = module.running_mean, module.running_var
                scale = module.weight / (var + EPS).sqrt()
                x = (x - mean[:, None, None]) * scale[:, None, None] + module.bias[:, None, None]
            case ReLU():
                x = x.clamp(min=0)
            case Factorized():
                x = reference_factorized(x, module.path_1.weight, module.path_2.weight)
            case Zero():
                x = output(x, layer.channels, (layer.stride, layer.stride))
            case _:
                raise NotImplementedError(layer)
    return x


def randomized(module):
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        value.copy_(torch.rand_like(value) + 0.5 if name.endswith("running_var") else torch.randn_like(value))
    return module.eval().double()


def close(ours, expected):
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@EVERY_OP
@STRIDES
@pytest.mark.parametrize("channels", [(4, 4), (3, 4)])
def test_every_op_against_the_slow_reference(op, stride, channels):
    layers = OPS[op](*channels, stride)
    chain = randomized(Chain(layers, EPS))
    for size in [(1, 1), (2, 2), (5, 8), (8, 5), (7, 7), (12, 9)]:
        x = torch.randn(2, channels[0], *size, dtype=torch.float64)
        ours = chain(State(x))
        close(ours, reference(layers, chain, x))
        assert ours.shape[1:] == (channels[1], *(math.ceil(n / stride) for n in size))


@STRIDES
@pytest.mark.parametrize("kernel", range(1, 8))
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_pools_are_same_padded(mode, kernel, stride):
    pool = SamePool2d(mode, kernel, stride)
    for size in SIZES:
        x = torch.randn(2, 3, *size, dtype=torch.float64) - 5  # a padding of zeros would win every maximum
        close(pool(x), reference_pool(x, mode, kernel, stride))


@STRIDES
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_pool_as_a_convolution_is_the_pool(kernel, stride):
    x = torch.randn(2, 3, 7, 5, requires_grad=True)
    found = averaged(x, kernel, stride, (kernel // 2, kernel // 2))
    expected = F.avg_pool2d(x, kernel, stride, kernel // 2, count_include_pad=False)
    slope = torch.randn_like(expected)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, slope)[0] for y in (found, expected)))


@pytest.mark.gpu
def test_averages_on_a_gpu_are_those_of_a_cpu():
    x = torch.randn(2, 3, 7, 5, requires_grad=True)
    there = x.detach().to("cuda", torch.bfloat16, memory_format=torch.channels_last).requires_grad_()
    pool = SamePool2d("avg", 3, 1)
    pool(x).square().sum().backward()
    pool(there).square().sum().backward()
    assert (there.grad.float().cpu() - x.grad).norm() < 0.02 * x.grad.norm()


@STRIDES
@pytest.mark.parametrize("kernel", range(1, 8))
@pytest.mark.parametrize("groups", [1, 3])
def test_convolutions_are_same_padded(kernel, stride, groups):
    layer = Conv("conv", 3, 3, (kernel, kernel), (stride, stride), groups)
    conv = randomized(make_layer(layer, EPS))
    for size in SIZES:
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        close(conv(x), reference_conv(x, conv.weight, (stride, stride), groups, 1))


@STRIDES
@pytest.mark.parametrize("kernel", [(1, 7), (7, 1), (3, 5), (2, 3)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_oblong_and_dilated_convolutions(kernel, stride, dilation):
    layer = Conv("conv", 2, 3, kernel, (stride, 3 - stride), dilation=dilation)
    conv = randomized(make_layer(layer, EPS))
    for size in SIZES:
        x = torch.randn(1, 2, *size, dtype=torch.float64)
        close(conv(x), reference_conv(x, conv.weight, (stride, 3 - stride), 1, dilation))


def test_valid_convolutions_are_not_padded():
    conv = randomized(make_layer(Conv("conv", 3, 4, (3, 3), (2, 2), valid=True), EPS))
    x = torch.randn(2, 3, 12, 9, dtype=torch.float64)
    close(conv(x), F.conv2d(x, conv.weight, stride=2))


def test_the_odd_pixel_goes_after():
    assert same_padding(224, 3, 2) == (0, 1)
    assert same_padding(224, 5, 2) == (1, 2)
    assert same_padding(331, 3, 2) == (1, 1)
    assert same_padding(10, 7, 1) == (3, 3)
    assert same_padding(10, 1, 2) == (0, 0)


@pytest.mark.parametrize("channels", [2, 5, 8])
def test_factorized_reduction(channels):
    reduction = randomized(FactorizedReduction(3, channels))
    assert reduction.path_1.weight.shape[0] == channels // 2
    for size in SIZES:
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        close(reduction(x), reference_factorized(x, reduction.path_1.weight, reduction.path_2.weight))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_concatenation_gives_back_gradients_that_are_maps_of_their_own(layout):
    """Views into the whole one would make batch norm's backward pass many times as slow."""
    maps = [torch.randn(2, channels, 4, 5, requires_grad=True) for channels in (2, 3)]
    slope = torch.randn(2, 5, 4, 5).contiguous(memory_format=layout)
    joined, expected = concatenated(maps), torch.cat(maps, 1)
    assert torch.equal(joined, expected)
    gradients = torch.autograd.grad(joined, maps, slope)
    for gradient, same in zip(gradients, torch.autograd.grad(expected, maps, slope)):
        assert torch.equal(gradient, same) and not same.is_contiguous(memory_format=layout)
        assert gradient.is_contiguous(memory_format=layout)


def test_a_concatenation_can_be_differentiated_in_every_way():
    maps = tuple(torch.randn(1, channels, 2, 2, dtype=torch.double, requires_grad=True) for channels in (1, 2))

    def squared(*maps):
        return concatenated([x.square() for x in maps])

    assert torch.autograd.gradcheck(squared, maps, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(squared, maps)
    found = torch.func.grad(lambda *maps: squared(*maps).sum())(*maps)
    torch.testing.assert_close(found, 2 * maps[0])
    several = [torch.stack([x, 2 * x]) for x in maps]
    assert torch.equal(torch.func.vmap(squared)(*several)[1], 4 * squared(*maps))


def test_layer_norm_is_over_channels_and_pixels():
    norm = randomized(make_layer(LayerNorm("norm", 4), EPS))
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    mean, var = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), correction=0, keepdim=True)
    close(norm(x), (x - mean) / (var + EPS).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None])


@pytest.mark.parametrize("training", [False, True])
def test_instance_norm_is_over_pixels(training):
    norm = randomized(make_layer(InstanceNorm("norm", 4), EPS)).train(training)
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
    close(norm(x), (x - mean) / (var + EPS).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None])


@EVERY_OP
@STRIDES
def test_cost_of_every_op(op, stride):
    """The closed form against the modules: parameters, statistics and the size that comes out."""
    layers = OPS[op](3, 8, stride)
    chain = Chain(layers, EPS).eval()
    cost, size = layers_cost(layers, (7, 10))
    assert cost.parameters == sum(p.numel() for p in chain.parameters())
    assert cost.bn_statistics == sum(b.numel() for b in chain.state_dict().values()) - cost.parameters
    assert chain(State(torch.randn(1, 3, 7, 10))).shape == (1, 8, *size)


@pytest.mark.parametrize("combine", COMBINES)
def test_cost_of_every_combine(combine):
    layers = COMBINES[combine](8)
    cost, size = layers_cost(layers, (7, 10))
    assert cost.parameters == sum(p.numel() for p in Chain(layers, EPS).parameters())
    assert size == (7, 10)


def test_every_layer_has_a_name_of_its_own():
    for op, make in OPS.items():
        names = [layer.name for layer in make(4, 8, 2)]
        assert len(set(names)) == len(names), op


# Batch norm


def test_batch_norm_has_no_counter():
    norm = BatchNorm(4, EPS)
    assert set(norm.state_dict()) == {"weight", "bias", "running_mean", "running_var"}
    assert norm.eps == EPS


@pytest.mark.parametrize("prefixed", [False, True])
def test_batch_norm_loads_dicts_of_torch_without_the_counter(prefixed):
    theirs = randomized(nn.BatchNorm2d(4, eps=EPS)).float()
    state = {key: value for key, value in theirs.state_dict().items() if key != "num_batches_tracked"}
    ours = nn.Sequential(BatchNorm(4, EPS)) if prefixed else BatchNorm(4, EPS)
    ours.load_state_dict({f"0.{key}" if prefixed else key: value for key, value in state.items()}, strict=True)
    x = torch.randn(3, 4, 5, 5)
    assert torch.equal(ours.eval()(x), theirs(x))


def test_batch_norm_misses_what_is_missing():
    state = BatchNorm(4, EPS).state_dict()
    del state["running_mean"]
    with pytest.raises(RuntimeError, match="running_mean"):
        BatchNorm(4, EPS).load_state_dict(state)


def test_batch_norm_trains_like_torchs():
    ours, theirs = BatchNorm(4, EPS).train(), nn.BatchNorm2d(4, eps=EPS).train()
    for norm in (ours, theirs):
        norm.momentum = 0.3
    x = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(ours(x), theirs(x))
    assert not torch.equal(ours.running_mean, torch.zeros(4))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)


# Chains and states


def test_a_state_computes_its_relu_once():
    state = State(torch.randn(1, 2, 3, 3))
    assert state.relu is state.relu
    assert torch.equal(state.relu, state.raw.clamp(min=0))


@EVERY_OP
def test_an_op_leaves_what_it_reads_alone(op):
    """Some ReLUs work in place; none may touch a state that other operations read as well."""
    for c_in in (4, 3):
        chain = Chain(OPS[op](c_in, 4, 1), EPS).train()
        state = State(torch.randn(2, c_in, 6, 6, requires_grad=True))
        raw, relu = state.raw.detach().clone(), state.relu.detach().clone()
        y = chain(state)
        if y.requires_grad:
            y.square().sum().backward()
        assert torch.equal(state.raw, raw) and torch.equal(state.relu, relu)


@EVERY_OP
@pytest.mark.parametrize("channels", [18, 32])
@pytest.mark.parametrize("whole", [False, True], ids=["autocast", "bfloat16"])
def test_convolutions_in_bfloat16_have_the_gradients_of_float32(op, channels, whole):
    """In channels_last, as trainings compute. oneDNN's weight gradient of a dilated one can be NaN, or nonsense."""
    for convolution in Chain(OPS[op](channels, channels, 1), EPS).modules():
        if not isinstance(convolution, nn.Conv2d):
            continue
        nn.init.normal_(convolution.weight.data)
        convolution.to(memory_format=torch.channels_last)
        for size in (32, 33, 40):
            x = torch.randn(4, convolution.in_channels, size, size).contiguous(memory_format=torch.channels_last)
            exact = gradients(convolution.float(), x)
            with torch.autocast("cpu", torch.bfloat16, enabled=not whole):
                found = gradients(convolution.bfloat16(), x.bfloat16()) if whole else gradients(convolution, x)
            for mine, true in zip(found, exact, strict=True):
                assert float((mine.float() - true).norm()) <= 0.02 * float(true.norm()), (convolution, size)


def gradients(convolution, x):
    """Of the weight and of what goes in, for a slope that is the same each time."""
    x = x.clone().requires_grad_()
    y = convolution(x)
    slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((y.float() * slope).sum(), (convolution.weight, x))
