"""The fused separable convolution against torch's layers, its kernels run by Triton's interpreter on the CPU."""

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest

import nasnet_zoo
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.training.prepare import prepare
from nasnet_zoo.training.recipe import Recipe

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch on Linux alone")

PREAMBLE = """
import torch
from nasnet_zoo.networks.layers import BatchNorm, Chain, State
from nasnet_zoo.arch.ops import separable, separable_twice
from nasnet_zoo.training import separable as kernels
from nasnet_zoo.training.separable import run_fused
kernels.ROUNDS = 2  # the interpreter takes its time for every one
torch.manual_seed(0)

def chain(layers):
    made = Chain(layers, 1e-3).to(memory_format=torch.channels_last)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made.train()

def both(layers, x, slope_of=torch.sin):
    "(output, gradients, running statistics), computed by torch and by the kernels."
    results = []
    made = chain(layers)
    before = {key: value.clone() for key, value in made.state_dict().items()}
    for way in (None, run_fused):
        made.load_state_dict(before)
        made.zero_grad()
        made.separable = way
        leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        y = made(State(leaf))
        y.backward(slope_of(torch.arange(y.numel(), dtype=torch.float32)).view_as(y).to(y.dtype))
        kept = [value.clone() for key, value in made.state_dict().items() if "running" in key]
        results.append([y, leaf.grad, *(p.grad for p in made.parameters()), *kept])
    return results

def picture(*shape):
    return torch.randn(shape).contiguous(memory_format=torch.channels_last) + 0.3
"""


def interpreted(code: str) -> str:
    """What a program prints that runs Triton's kernels as plain Python; which way is settled at its import."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", PREAMBLE + code], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def test_output_gradients_and_statistics_are_those_of_torch():
    said = interpreted("""
cases = [
    (3, 1, 1, (2, 8, 6, 5), 8),
    (3, 2, 1, (2, 40, 5, 6), 33),
    (5, 2, 1, (2, 3, 7, 8), 7),
    (7, 2, 1, (1, 4, 6, 6), 20),
    (3, 1, 2, (2, 4, 7, 7), 4),
]
for kernel, stride, dilation, shape, c in cases:
    torch_way, kernels = both(separable(kernel, shape[1], c, stride, 1, dilation), picture(*shape))
    for index, (a, b) in enumerate(zip(torch_way, kernels, strict=True)):
        error = (a - b).abs().max() / a.abs().max()
        assert error < 2e-5, (kernel, stride, dilation, index, error)
print(len(cases))
""")
    assert said == "5\n"


def test_twice_applied_it_takes_over_the_batch_norm_between():
    said = interpreted("""
torch_way, kernels = both(separable_twice(3, 6, 10, 2), picture(3, 6, 8, 8))
print(all((a - b).abs().max() < 2e-4 * a.abs().max() for a, b in zip(torch_way, kernels, strict=True)), len(kernels))
""")
    assert said == f"True {1 + 1 + 8 + 4}\n"


def test_statistics_hold_where_the_mean_is_much_larger_than_the_deviation():
    said = interpreted("""
x = (picture(4, 4, 8, 8) * 1e-3 + 100)
made = chain(separable(3, 4, 4, 1, 1))
made.separable = run_fused
with torch.no_grad():
    made.depthwise_1.weight.zero_(); made.depthwise_1.weight[:, :, 1, 1] = 1
    made.pointwise_1.weight.copy_(torch.eye(4)[..., None, None])
made.bn_1.momentum = 1.0
made(State(x.requires_grad_()))
exact = x.detach().double().permute(1, 0, 2, 3).reshape(4, -1)
print(bool(((made.bn_1.running_var - exact.var(1)).abs() / exact.var(1) < 1e-2).all()))
""")
    assert said == "True\n"


def test_what_is_not_a_number_stays_visible():
    said = interpreted("""
x = picture(2, 4, 5, 5)
x[0, 1, 2, 2] = float("nan")
made = chain(separable(3, 4, 4, 1, 1))
made.separable = run_fused
print(bool(made(State(x.requires_grad_())).isnan().any()))
""")
    assert said == "True\n"


def test_a_network_trained_by_the_kernels_is_the_one_that_torch_trains():
    said = interpreted("""
from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotype import Block, Cell, Edge, Genotype
from nasnet_zoo.arch.preprocess import CIFAR10
from nasnet_zoo.networks.build import build
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify
count, original = [], kernels.fused
kernels.fused = lambda *arguments: count.append(1) or original(*arguments)
cell = Cell((Block(Edge(0, "sep_conv_3x3"), Edge(1, "max_pool_3x3")),), (2,))
config = NetworkConfig(Genotype(cell, cell), CellScale("cifar", 4, 4, (1, 1)), CIFAR10, 10)
pictures = Pictures(torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8), torch.arange(4))
losses = []
for way in ("torch", "fused", "auto"):
    torch.manual_seed(0)
    network = build(config)
    recipe = Recipe(2, batch_size=2, pad=1, separable=way)
    losses.append(train(network, Classify(pictures, recipe, CIFAR10), recipe)[-1].loss)
    print(way, len(count))
    count.clear()
assert abs(losses[0] - losses[1]) < 1e-4 and losses[0] == losses[2], losses
""")
    layers = 3 * 2  # one separable convolution in each of three cells, applied twice
    steps = 2 * 2
    assert said.split() == ["torch", "0", "fused", str(layers * steps), "auto", "0"]


def test_the_kernels_need_a_gpu_and_what_they_were_made_for(monkeypatch):
    recipe, network = Recipe(1, separable="fused"), nasnet_zoo.create("nasnet-a-cifar", filters=4, stages=(1, 1, 1))
    with pytest.raises(ConfigError, match='separable "fused" needs a GPU and Triton: leave it out of the recipe'):
        prepare(network, recipe)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for changes in (dict(channels_last=False), dict(compile=True), dict(sync_norms=True)):
        with pytest.raises(ConfigError, match="needs channels_last, and neither compile nor sync_norms"):
            prepare(network, replace(recipe, **changes))
